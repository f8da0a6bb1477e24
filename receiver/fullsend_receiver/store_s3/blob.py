"""The bytes of a stored stream in a bucket, read in ranges, and ahead while they are read in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket

#: Bytes of one request while a stream is read in order: some usual chunks, so that a request costs little beside them.
#: docs/operations.md counts them for each reader.
READ_AHEAD: Final = 8 * limits.MIB


class BucketBlob:
    """A `Blob`: an object."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        """Look for the object. Raises: FileDamaged if it is missing; BucketError."""
        found = bucket.head(key)
        if found is None:
            msg = "the object is missing"
            raise FileDamaged(msg)
        self.size = found.size
        self._bucket = bucket
        self._key = key
        # Both are replaced as a whole, so that several threads may read.
        self._held = (0, b"")  # bytes that were read ahead, and where they begin
        self._next = -1  # where a read goes on in order

    def read(self, start: int, size: int) -> bytes:
        """Return its bytes; fewer at its end. Raises: BucketError, FileNotFoundError if it was deleted meanwhile."""
        end = min(start + size, self.size)
        if end <= start:
            return b""
        in_order, self._next = start == self._next, end
        first, held = self._held
        if first <= start < first + len(held):
            found = held[start - first : end - first]
            start += len(found)
            if start == end:
                return found
        else:
            found = b""
        until = min(max(end, start + READ_AHEAD), self.size) if in_order else end
        data = self._bucket.read(self._key, start, until - start)
        if in_order:
            self._held = (start, data)
        return found + data[: end - start]

    def forget(self, start: int, size: int) -> None:
        """Drop what was read ahead of these bytes. See `Blob.forget`."""
        first, held = self._held
        if start < first + len(held) and first < start + size:
            kept = held[start + size - first :]
            self._held = (start + size, kept) if kept and start <= first else (0, b"")

    def close(self) -> None:
        """Nothing is open."""
