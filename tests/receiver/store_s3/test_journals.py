from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.buckets import KEY, PART, PUSH, RAW, arriving, journal_of, names
from tests.receiver.helpers import SENDER

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.journal import make_line
from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store_s3 import journals, keys
from fullsend_receiver.store_s3.journals import JournalWriter, UploadLost

if TYPE_CHECKING:
    from tests.receiver.buckets import MemoryBucket

    from fullsend_receiver.store_s3.stores import BucketStore

OPENED = open_offer(SENDER, PUSH)


def test_journal_tells_parts_and_the_bytes_behind_them(store: BucketStore, bucket: MemoryBucket) -> None:
    arriving(store).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    said = journals.summary(found)
    assert (said.offset, said.committing) == (len(RAW), None)
    assert found.in_parts == PART
    (part,) = found.parts
    assert (part.part.number, part.part.size) == (1, PART)
    assert found.tail(bucket, said.stored) == bytes(crash.chunks()[2].frame)
    (written,) = bucket.parts(found.open.data, found.upload or "") or ()
    assert written.etag == part.part.etag


def test_second_begin_is_refused(bucket: MemoryBucket) -> None:
    journals.begin(bucket, KEY, OPENED)
    with pytest.raises(StoreError, match="another daemon has begun"):
        journals.begin(bucket, KEY, OPENED)


def test_of_two_writers_of_one_number_the_second_stops(bucket: MemoryBucket) -> None:
    opened = journals.begin(bucket, KEY, OPENED)
    first, second = JournalWriter(bucket, opened, 1), JournalWriter(bucket, opened, 1)
    first.write([journals.owner_line()])
    with pytest.raises(StoreError, match="has taken it over"):
        second.write([journals.owner_line()])
    first.write([journals.owner_line()])
    found = journal_of(bucket)
    assert found is not None
    assert found.next == 3


@pytest.mark.parametrize("again", [False, True])
def test_writer_of_what_was_discarded_stops(bucket: MemoryBucket, again: bool) -> None:
    writer = JournalWriter(bucket, journals.begin(bucket, KEY, OPENED), 1)
    bucket.delete(keys.open_key(KEY))
    if again:
        journals.begin(bucket, KEY, OPENED)
    with pytest.raises(UploadLost, match="was discarded") as caught:
        writer.write([journals.owner_line()])
    assert caught.value.code is ErrorCode.LIMIT  # its sender tries again
    assert names(bucket, ".partial/") == ([keys.open_key(KEY)] if again else [])


def test_journal_that_lacks_an_object_is_damaged(store: BucketStore, bucket: MemoryBucket) -> None:
    arriving(store).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    bucket.delete(keys.journal_key(KEY, found.open.generation, 2))
    with pytest.raises(PartialDamaged, match="lacks the object of number 2"):
        journal_of(bucket)


@pytest.mark.parametrize("at", [0, 12, -1])
def test_object_that_is_not_as_written_is_damage(store: BucketStore, bucket: MemoryBucket, at: int) -> None:
    arriving(store, 1).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    name = keys.journal_key(KEY, found.open.generation, 1)
    content = bucket.get(name)
    assert content is not None
    spoilt = bytearray(content.data)
    spoilt[at] ^= 1
    bucket.put(name, bytes(spoilt) if at >= 0 else bytes(spoilt[:-1]))
    with pytest.raises(PartialDamaged):
        journal_of(bucket)


@pytest.mark.parametrize("word", ["closing", "copied"])
def test_line_that_ends_no_segment_is_damage(bucket: MemoryBucket, word: str) -> None:
    opened = journals.begin(bucket, KEY, OPENED)
    JournalWriter(bucket, opened, 1).write([make_line({word: 7})])
    with pytest.raises(PartialDamaged, match="ends a segment that has not begun"):
        journals.read(bucket, opened)


def test_missing_bytes_are_damage(store: BucketStore, bucket: MemoryBucket) -> None:
    arriving(store).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    found.pieces.pop()
    with pytest.raises(PartialDamaged, match="has the bytes up to"):
        found.tail(bucket, journals.summary(found).stored)


def test_journal_of_a_later_format_is_refused(bucket: MemoryBucket) -> None:
    bucket.put(keys.open_key(KEY), b'{"format": 2}')
    with pytest.raises(PartialDamaged, match="format 2"):
        journals.read_open(bucket, KEY)
    bucket.put(keys.open_key(KEY), b"[]")
    with pytest.raises(PartialDamaged):
        journals.read_open(bucket, KEY)
