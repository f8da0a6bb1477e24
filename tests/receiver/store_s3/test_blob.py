from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.store.seekable import FileDamaged
from fullsend_receiver.store_s3 import blob
from fullsend_receiver.store_s3.blob import BucketBlob
from fullsend_receiver.store_s3.bucket import BucketError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT: Final = bytes(range(40))


def test_object_is_read_in_ranges(bucket: MemoryBucket) -> None:
    bucket.put("key", b"0123456789")
    reader = BucketBlob(bucket, "key")
    assert reader.size == 10
    assert (reader.read(0, 4), reader.read(8, 5), reader.read(10, 5), reader.read(20, 5)) == (b"0123", b"89", b"", b"")
    reader.close()


class CountingBucket:
    """A bucket that notes the ranges that are read, and fails if it is told to."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self.head = bucket.head
        self._read = bucket.read
        self.ranges: list[tuple[int, int]] = []
        self.fails_at: int | None = None

    def read(self, key: str, start: int, size: int) -> bytes:
        self.ranges.append((start, size))
        if start == self.fails_at:
            self.fails_at = None
            raise BucketError("the object store is overloaded")
        return self._read(key, start, size)


@pytest.fixture
def counting(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> CountingBucket:
    monkeypatch.setattr(blob, "READ_AHEAD", 8)
    monkeypatch.setattr(blob, "READ_AHEAD_FIRST", 2)
    bucket.put("key", CONTENT)
    return CountingBucket(bucket)


@pytest.fixture
def reader(counting: CountingBucket) -> Iterator[BucketBlob]:
    with contextlib.closing(BucketBlob(counting, "key")) as reader:  # type: ignore[arg-type]
        yield reader


def test_what_is_read_in_order_is_read_ahead_and_further_each_time(
    counting: CountingBucket, reader: BucketBlob
) -> None:
    assert b"".join(reader.read(at, 1) for at in range(40)) == CONTENT
    reader.close()
    # The first read does not tell an order. From the longest range on, the next one is requested before it is wanted.
    assert counting.ranges == [(0, 1), (1, 2), (3, 4), (7, 8), (15, 8), (23, 8), (31, 8), (39, 1)]


def test_next_range_arrives_while_the_one_before_is_read(counting: CountingBucket, reader: BucketBlob) -> None:
    assert b"".join(reader.read(at, 1) for at in range(8)) == CONTENT[:8]
    reader.close()  # the thread has ended
    assert counting.ranges[-2:] == [(7, 8), (15, 8)]


def test_read_that_is_not_in_order_is_a_request_of_its_own(counting: CountingBucket, reader: BucketBlob) -> None:
    assert b"".join(reader.read(at, 1) for at in range(4)) == CONTENT[:4]
    assert reader.read(20, 3) == CONTENT[20:23]
    assert counting.ranges == [(0, 1), (1, 2), (3, 4), (20, 3)]
    assert reader.read(23, 1) + reader.read(5, 1) == CONTENT[23:24] + CONTENT[5:6]
    assert counting.ranges[4:] == [(23, 2), (5, 1)]


def test_read_that_is_longer_than_what_is_held_requests_the_rest(counting: CountingBucket, reader: BucketBlob) -> None:
    assert reader.read(0, 2) + reader.read(2, 1) + reader.read(3, 20) == CONTENT[:23]
    assert counting.ranges == [(0, 2), (2, 2), (4, 19)]


def test_fault_of_what_is_read_ahead_is_raised_where_it_is_wanted(counting: CountingBucket, reader: BucketBlob) -> None:
    counting.fails_at = 15
    assert b"".join(reader.read(at, 1) for at in range(15)) == CONTENT[:15]
    with pytest.raises(BucketError, match="overloaded"):
        reader.read(15, 1)
    assert reader.read(15, 1) == CONTENT[15:16]


@pytest.mark.parametrize(
    ("forgotten", "at", "requests"),
    [((0, 8), 9, 0), ((15, 1), 9, 0), ((0, 40), 9, 1), ((9, 1), 9, 1), ((0, 40), 20, 1)],
)
def test_what_is_forgotten_is_read_again(
    counting: CountingBucket, reader: BucketBlob, forgotten: tuple[int, int], at: int, requests: int
) -> None:
    assert b"".join(reader.read(at, 1) for at in range(8)) == CONTENT[:8]
    reader.close()  # held: 7 to 15, and what comes behind it is there
    counting.ranges.clear()
    reader.forget(*forgotten)
    assert reader.read(at, 2) == CONTENT[at : at + 2]
    assert len(counting.ranges) == requests


@given(reads=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.booleans()), max_size=20))
def test_each_read_has_the_bytes_that_are_asked_for(reads: list[tuple[int, int, bool]]) -> None:
    bucket = MemoryBucket()
    bucket.put("key", CONTENT)
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(BucketBlob(bucket, "key")) as reader:
        patch.setattr(blob, "READ_AHEAD", 4)
        patch.setattr(blob, "READ_AHEAD_FIRST", 1)
        for start, size, forget in reads:
            assert reader.read(start, size) == CONTENT[start : start + size]
            if forget:
                reader.forget(start, size)
            for after in range(start + size, start + size + 12, 3):
                assert reader.read(after, 3) == CONTENT[after : after + 3]


def test_missing_object_is_damage(bucket: MemoryBucket) -> None:
    with pytest.raises(FileDamaged, match="is missing"):
        BucketBlob(bucket, "key")


def test_object_that_is_deleted_while_it_is_read_is_missing(bucket: MemoryBucket) -> None:
    bucket.put("key", b"0123456789")
    reader = BucketBlob(bucket, "key")
    bucket.delete("key")
    with pytest.raises(FileNotFoundError):
        reader.read(0, 1)
