"""The bytes of a stored stream in a bucket, read in ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket


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

    def read(self, start: int, size: int) -> bytes:
        """Return its bytes; fewer at its end. Raises: BucketError, FileNotFoundError if it was deleted meanwhile."""
        size = min(size, self.size - start)
        return self._bucket.read(self._key, start, size) if size > 0 else b""

    def forget(self, start: int, size: int) -> None:
        """Nothing of an object is in this host's memory. See `Blob.forget`."""

    def close(self) -> None:
        """Nothing is open."""
