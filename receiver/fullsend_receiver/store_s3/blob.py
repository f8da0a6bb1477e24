"""The bytes of a stored stream in a bucket, read in ranges, and ahead while they are read in order."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket

#: Bytes of one request while a stream is read in order: some usual chunks, so that a request costs little beside them.
#: One such range is held, and the next one arrives meanwhile. docs/operations.md counts both for each reader.
READ_AHEAD: Final = 8 * limits.MIB
#: Bytes of the first such request. Each further one has twice as many: a reader of a few chunks reads little in vain.
READ_AHEAD_FIRST: Final = 1 * limits.MIB
#: Bytes of the request that reads the end of a stream: the tables of a stream of 14 GiB are in it, which are read in
#: small pieces.
READ_AT_END: Final = 256 << 10


class BucketBlob:
    """A `Blob`: an object. Threads that read it wait for one another."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        """Look for the object. Raises: FileDamaged if it is missing; BucketError."""
        found = bucket.head(key)
        if found is None:
            msg = "the object is missing"
            raise FileDamaged(msg)
        self.size = found.size
        self._bucket = bucket
        self._key = key
        self._lock = threading.Lock()
        self._next = -1  # where a read continues in order
        self._range = 0  # bytes of the last request of a read in order; 0: none
        self._first, self._held = 0, b""  # what was read ahead, and where it begins
        self._coming: tuple[int, Future[bytes]] | None = None  # where the next range begins, and the range
        self._thread: ThreadPoolExecutor | None = None  # requests it; None: nothing was read in order yet

    def read(self, start: int, size: int) -> bytes:
        """Return its bytes; fewer at its end. Raises: BucketError, FileNotFoundError if it was deleted meanwhile."""
        end = min(start + size, self.size)
        if end <= start:
            return b""
        with self._lock:
            in_order, self._next = start == self._next, end
            if not in_order:
                self._range = 0
            found = self._from_held(start, end)
            at = start + len(found)
            if at < end and self._coming is not None and self._coming[0] == at:
                coming, self._coming = self._coming[1], None
                self._held, self._first = coming.result(), at
                found += self._from_held(at, end)
                at = start + len(found)
            if at < end:
                found += self._request(at, end, in_order=in_order)
            if in_order and self._range == READ_AHEAD:
                self._request_next()
            return found

    def _from_held(self, start: int, end: int) -> bytes:
        at = start - self._first
        return self._held[at : end - self._first] if 0 <= at < len(self._held) else b""

    def _request(self, start: int, end: int, *, in_order: bool) -> bytes:
        """Read these bytes, and more: of those behind them in order, of those before them at the end."""
        if not in_order and end == self.size:
            self._first = max(0, min(start, end - READ_AT_END))
            self._held = self._bucket.read(self._key, self._first, end - self._first)
            return self._from_held(start, end)
        until = end
        if in_order:
            self._range = min(READ_AHEAD, max(READ_AHEAD_FIRST, 2 * self._range))
            until = max(end, min(start + self._range, self.size))
        data = self._bucket.read(self._key, start, until - start)
        if in_order:
            self._first, self._held = start, data
        return data[: end - start]

    def _request_next(self) -> None:
        """Begin to read what follows the held range, if nothing else is coming."""
        start = self._first + len(self._held)
        size = min(READ_AHEAD, self.size - start)
        if size > 0 and (self._coming is None or self._coming[0] != start):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "read ahead")
            self._coming = start, self._thread.submit(self._bucket.read, self._key, start, size)

    def forget(self, start: int, size: int) -> None:
        """Drop what was read ahead of these bytes. See `Blob.forget`."""
        end = start + size
        with self._lock:
            behind = self._first + len(self._held)
            if start < behind and self._first < end:
                kept = self._held[end - self._first :] if start <= self._first else b""
                self._first, self._held = end, kept
            if self._coming is not None and start < self._coming[0] + READ_AHEAD and self._coming[0] < end:
                self._coming = None

    def close(self) -> None:
        """Returns when nothing is read ahead any more."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
