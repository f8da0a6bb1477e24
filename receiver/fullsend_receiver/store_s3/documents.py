"""Small documents in a bucket, one object each."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from fullsend_receiver.store.api import Document, update
from fullsend_receiver.store_s3.bucket import Bucket, BucketError, BucketFull
from fullsend_receiver.store_s3.keys import STATE


class DocumentAway(BucketError, OSError):  # noqa: N818 - reads as what it says
    """A document cannot be read, or not be written: an OSError, as `Documents` says, with the object store's reason."""

    def __init__(self, error: BucketError) -> None:
        """`error`: the reason. Of a full bucket `errno` is that of a full disk."""
        super().__init__(str(error))
        self.code = error.code
        if isinstance(error, BucketFull):
            self.errno = errno.EDQUOT


@contextlib.contextmanager
def as_documents() -> Iterator[None]:
    """Requests for small things that may fail, and the caller goes on. Raises: DocumentAway in place of BucketError."""
    try:
        yield
    except BucketError as error:
        raise DocumentAway(error) from None


@dataclass(frozen=True, slots=True)
class BucketDocuments:
    """The `Documents` of a store in a bucket: replaced by compare and swap."""

    bucket: Bucket

    def get(self, name: str) -> Document | None:
        """Read a document. See `Documents.get`."""
        with as_documents():
            found = self.bucket.get(STATE + name)
        return None if found is None else Document(found.data, found.etag)

    def version(self, name: str) -> object:
        """Return its ETag. See `Documents.version`."""
        with as_documents():
            found = self.bucket.head(STATE + name)
        return None if found is None else found.etag

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        """Replace a document. See `Documents.put`."""
        with as_documents():
            return self.bucket.put(STATE + name, data, if_absent=if_match is None, if_match=if_match) is not None

    def append(self, name: str, line: bytes, *, most: int) -> None:
        """Append to a document. See `Documents.append`."""

        def longer(before: bytes | None) -> bytes:
            data = (before or b"") + line
            return data if len(data) <= most else data[-most // 2 :].partition(b"\n")[2]

        update(self, name, longer)
