"""Small documents in a bucket, one object each."""

from __future__ import annotations

from dataclasses import dataclass

from fullsend_receiver.store.api import Document, update
from fullsend_receiver.store_s3.bucket import Bucket
from fullsend_receiver.store_s3.faults import as_disk_errors
from fullsend_receiver.store_s3.keys import STATE


@dataclass(frozen=True, slots=True)
class BucketDocuments:
    """The `Documents` of a store in a bucket: replaced by compare and swap."""

    bucket: Bucket

    def get(self, name: str) -> Document | None:
        """Read a document. See `Documents.get`."""
        with as_disk_errors():
            found = self.bucket.get(STATE + name)
        return None if found is None else Document(found.data, found.etag)

    def version(self, name: str) -> object:
        """Return its ETag. See `Documents.version`."""
        with as_disk_errors():
            found = self.bucket.head(STATE + name)
        return None if found is None else found.etag

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        """Replace a document. See `Documents.put`."""
        with as_disk_errors():
            return self.bucket.put(STATE + name, data, if_absent=if_match is None, if_match=if_match) is not None

    def append(self, name: str, line: bytes, *, most: int) -> None:
        """Append to a document. See `Documents.append`."""

        def longer(before: bytes | None) -> bytes:
            data = (before or b"") + line
            return data if len(data) <= most else data[-most // 2 :].partition(b"\n")[2]

        update(self, name, longer)
