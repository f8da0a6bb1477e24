from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import FILE, SteppedBucket

from fullsend_receiver.store_s3 import faults, keys
from fullsend_receiver.store_s3.holds import BucketHold, held

if TYPE_CHECKING:
    from tests.receiver.buckets import MemoryBucket

HOUR = 3600.0


def age(bucket: MemoryBucket, seconds: float) -> None:
    """Let all objects have been stored so much earlier."""
    bucket.objects = {key: (data, etag, at - seconds) for key, (data, etag, at) in bucket.objects.items()}


def test_what_is_read_is_held_while_it_is_read_and_an_hour_more(bucket: MemoryBucket) -> None:
    hold = BucketHold(bucket)
    assert held(bucket) == set()
    hold.add(FILE)
    hold.add(FILE)
    hold.add(FILE.with_name("@other.zfs.zst"))
    age(bucket, 24 * HOUR)
    assert held(bucket) == {FILE, FILE.with_name("@other.zfs.zst")}
    hold.close()
    age(bucket, 0.9 * HOUR)
    assert FILE in held(bucket)
    age(bucket, 0.2 * HOUR)
    assert held(bucket) == set()
    assert list(bucket.entries(keys.READING)) == []


def test_hold_of_a_reader_that_died_counts_for_days(bucket: MemoryBucket) -> None:
    BucketHold(bucket).add(FILE)
    age(bucket, 6 * 24 * HOUR)
    assert held(bucket) == {FILE}
    age(bucket, 2 * 24 * HOUR)
    assert held(bucket) == set()


def test_hold_without_a_stream_writes_nothing(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    BucketHold(bucket).close()
    assert bucket.objects == {}


def test_hold_of_the_future_counts(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = BucketHold(bucket)
    hold.add(FILE)
    hold.close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * HOUR)
    assert held(bucket) == {FILE}


def test_hold_that_cannot_be_written_is_an_error_as_of_a_disk(bucket: MemoryBucket) -> None:
    """Its reader goes on then: a full store can be read."""

    def refuse(name: str) -> None:
        raise faults.refused("s3://memory/key", name, 403, "QuotaExceeded")

    def refuse_once(name: str) -> None:
        if steps.pop():
            refuse(name)

    steps = [False, True]
    hold = BucketHold(SteppedBucket(bucket, refuse_once))
    with pytest.raises(OSError, match="the bucket is full"):
        hold.add(FILE)
    hold.add(FILE)
    hold.add(FILE)  # known by now
    assert held(bucket) == {FILE}
