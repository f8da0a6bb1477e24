from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.store.seekable import FileDamaged
from fullsend_receiver.store_s3 import blob
from fullsend_receiver.store_s3.blob import BucketBlob

CONTENT: Final = bytes(range(30))


def test_object_is_read_in_ranges(bucket: MemoryBucket) -> None:
    bucket.put("key", b"0123456789")
    reader = BucketBlob(bucket, "key")
    assert reader.size == 10
    assert (reader.read(0, 4), reader.read(8, 5), reader.read(10, 5), reader.read(20, 5)) == (b"0123", b"89", b"", b"")
    reader.close()


class CountingBucket:
    """A bucket that notes the ranges that are read."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self.head = bucket.head
        self._read = bucket.read
        self.ranges: list[tuple[int, int]] = []

    def read(self, key: str, start: int, size: int) -> bytes:
        self.ranges.append((start, size))
        return self._read(key, start, size)


@pytest.fixture
def counting(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> CountingBucket:
    monkeypatch.setattr(blob, "READ_AHEAD", 10)
    bucket.put("key", CONTENT)
    return CountingBucket(bucket)


def test_what_is_read_in_order_is_read_ahead(counting: CountingBucket) -> None:
    reader = BucketBlob(counting, "key")  # type: ignore[arg-type]
    assert b"".join(reader.read(at, 3) for at in range(0, 30, 3)) == CONTENT
    # The first read does not tell an order. One that needs more than is held gets the rest.
    assert counting.ranges == [(0, 3), (3, 10), (13, 10), (23, 7)]
    assert reader.read(2, 1) == CONTENT[2:3]
    assert counting.ranges[-1] == (2, 1)


def test_read_that_is_longer_than_what_is_read_ahead_is_one_request(counting: CountingBucket) -> None:
    reader = BucketBlob(counting, "key")  # type: ignore[arg-type]
    assert (reader.read(0, 2), reader.read(2, 2), reader.read(4, 20)) == (CONTENT[:2], CONTENT[2:4], CONTENT[4:24])
    assert counting.ranges == [(0, 2), (2, 10), (12, 12)]


@pytest.mark.parametrize(("start", "size", "requests"), [(0, 8, 0), (13, 9, 0), (0, 30, 1), (9, 1, 1), (4, 2, 1)])
def test_what_is_forgotten_is_read_again(counting: CountingBucket, start: int, size: int, requests: int) -> None:
    reader = BucketBlob(counting, "key")  # type: ignore[arg-type]
    assert reader.read(0, 3) + reader.read(3, 3) == CONTENT[:6]  # held up to 13
    reader.forget(start, size)
    counting.ranges.clear()
    assert reader.read(9, 4) == CONTENT[9:13]
    assert len(counting.ranges) == requests


@given(reads=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.booleans()), max_size=20))
def test_each_read_has_the_bytes_that_are_asked_for(reads: list[tuple[int, int, bool]]) -> None:
    bucket = MemoryBucket()
    bucket.put("key", CONTENT)
    reader = BucketBlob(bucket, "key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob, "READ_AHEAD", 5)
        for start, size, forget in reads:
            assert reader.read(start, size) == CONTENT[start : start + size]
            if forget:
                reader.forget(start, size)
            after = start + size
            assert reader.read(after, 2) == CONTENT[after : after + 2]


def test_missing_object_is_damage(bucket: MemoryBucket) -> None:
    with pytest.raises(FileDamaged, match="is missing"):
        BucketBlob(bucket, "key")


def test_object_that_is_deleted_while_it_is_read_is_missing(bucket: MemoryBucket) -> None:
    bucket.put("key", b"0123456789")
    reader = BucketBlob(bucket, "key")
    bucket.delete("key")
    with pytest.raises(FileNotFoundError):
        reader.read(0, 1)
