"""Counts the requests of a push and of a read, from what the modules do that send them.

The only lists are those of parts. What a daemon asks for beside its streams (documents, the marker) is not
counted, nor are requests that are sent again. tests/receiver/store_s3/test_costs.py compares with real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fullsend_receiver.store.api import RequestCost
from fullsend_receiver.store.seekable import tables_size
from fullsend_receiver.store_s3.blob import BucketBlob
from fullsend_receiver.store_s3.bucket import BucketObject
from fullsend_receiver.store_s3.part_sizes import PartSizes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fullsend_receiver.store_s3.bucket import Bucket

#: Parts that one list of parts names.
_PAGE = 1000


_SIZES = PartSizes()


def pushed(chunks: int, chunk: int, batch: int, *, sizes: PartSizes = _SIZES) -> RequestCost:
    """Return what a push of one stream costs. `chunks`: how many; `chunk`: stored bytes of each; `batch`: chunks that
    become durable together; `sizes`: of its parts. Raises: ValueError if some of it would be in segments.
    """
    parts = batches = waiting = working = in_parts = 0
    left = chunks
    while left:
        taken = min(batch, left)
        left -= taken
        batches += 1
        waiting += taken * chunk
        if waiting >= sizes.part(parts):
            parts += 1
            in_parts += waiting
            waiting = 0
        else:
            working += taken * chunk  # its bytes are in the journal, and later once more in a part
    if parts > sizes.direct:
        msg = f"{parts} parts: some are segments"
        raise ValueError(msg)
    end = waiting + tables_size(chunks)
    # The journal: a line before the first part, one for each batch, one for the seal, one for the commit.
    journal = batches + 2 + (parts > 0)
    multipart = parts + 3 if parts else 1  # begin, parts, the last one, complete; or one PUT
    return RequestCost(
        puts=1 + journal + multipart + 3,  # the first object, `.sha256`, the manifest, the index
        # Each object of the journal has a look at the first one. Before: whether there is an upload, twice. Behind: the
        # manifest, twice; the index; the whole object, if it was in parts.
        gets=journal + 5 + (parts > 0),
        lists=-(-(parts + 1) // _PAGE) if parts else 0,  # of its parts; of keys there is none
        deletes=1 + journal,
        sent=in_parts + working + end,
        working=journal + 1,
        working_bytes=working,
    )


def read(size: int, ranges: Iterable[tuple[int, int]]) -> RequestCost:
    """Return what reading one stream costs. `size`: stored bytes; `ranges`: offset and size of each read, in order."""
    bucket = _CountingBucket(size)
    blob = BucketBlob(cast("Bucket", bucket), "")
    for start, length in ranges:
        blob.read(start, length)
    blob.close()
    return RequestCost(gets=2 + bucket.reads, received=bucket.received)  # the manifest, the size, and these


class _Blank:
    """Bytes that are not there, and have a length."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> _Blank:
        return _Blank(len(range(*part.indices(self._size))))

    def __add__(self, other: _Blank) -> _Blank:
        return _Blank(self._size + len(other))

    __radd__ = __add__


class _CountingBucket:
    """A bucket with one object of this size. `reads`, `received`: the requests that read it, and their bytes."""

    def __init__(self, size: int) -> None:
        self.reads = self.received = 0
        self._size = size

    def head(self, key: str) -> BucketObject:
        return BucketObject(key, self._size, "", 0.0)

    def read(self, _key: str, _start: int, size: int) -> _Blank:
        self.reads += 1
        self.received += size
        return _Blank(size)
