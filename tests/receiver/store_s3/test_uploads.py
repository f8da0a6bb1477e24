from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.buckets import (
    FILE,
    KEY,
    PART,
    PUSH,
    RAW,
    MemoryBucket,
    arriving,
    content,
    journal_of,
    manifest_for,
    names,
    store_in,
)
from tests.receiver.helpers import SENDER, chunks_from, decode, take, take_one

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store_s3.bucket import BucketBusy
from fullsend_receiver.store_s3.journals import UploadLost

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store_s3.stores import BucketStore


def reopened(store: BucketStore, *, at_resume_point: bool = False) -> Ingest:
    found = store.reopen(KEY, at_resume_point=at_resume_point)
    assert found is not None
    return Ingest(*found)


def finish(ingest: Ingest) -> bool:
    take(ingest, chunks_from(RAW, ingest.offset))
    return ingest.partial.commit(FILE, manifest_for(ingest.partial.seal(ingest.chunks)))


def test_two_daemons_take_turns_and_nothing_acknowledged_is_lost(store: BucketStore, other: BucketStore) -> None:
    """None closes its upload: each stalls, and the next one takes over."""
    stalled = arriving(store, 1)
    second = reopened(other)
    take(second, list(chunks_from(RAW, second.offset))[:1])
    third = reopened(store)
    assert third.offset == second.offset
    assert finish(third)
    assert decode(content(other)) == RAW
    for late in (stalled, second):
        take_one(late, next(iter(chunks_from(RAW, late.offset))))
        with pytest.raises(StoreError, match=r"taken it over|was discarded"):
            late.partial.sync(late.batch())


def test_stalled_daemon_that_wakes_up_can_change_nothing(store: BucketStore, other: BucketStore) -> None:
    stalled = arriving(store)
    assert finish(reopened(other))
    before = content(other)
    with pytest.raises(UploadLost, match="was discarded meanwhile"):
        stalled.partial.seal(stalled.chunks)
    stalled.partial.close(keep=True)
    assert content(other) == before


def test_part_that_a_stalled_daemon_replaces_is_found_before_the_commit(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    arriving(store, 2).partial.close(keep=True)
    again = reopened(other)
    found = journal_of(bucket)
    assert found is not None
    assert found.upload is not None
    bucket.put_part(found.open.data, found.upload, 1, b"late")
    with pytest.raises(PartialDamaged, match="not those that were acknowledged"):
        finish(again)
    again.partial.close(keep=True)
    assert store.reopen(KEY, at_resume_point=False) is None  # it starts over
    assert (names(bucket), bucket.uploads) == ([], {})


def test_upload_that_the_object_store_has_aborted_starts_over(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    """By a rule of the bucket for old uploads, of which nothing tells."""
    arriving(store, 2).partial.close(keep=True)
    bucket.uploads.clear()
    again = reopened(other)
    with pytest.raises(PartialDamaged, match="has discarded its multipart upload"):
        finish(again)
    again.partial.close(keep=True)
    assert store.reopen(KEY, at_resume_point=False) is None
    assert (names(bucket), bucket.uploads) == ([], {})
    assert finish(arriving(store, 0))
    assert decode(content(other)) == RAW


def test_upload_that_the_object_store_lists_and_does_not_find_is_kept(
    store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = arriving(store, 2)
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "put_part", lambda *_arguments: None)
        with pytest.raises(BucketBusy, match="lists a multipart upload that it does not find"):
            finish(first)
    first.partial.close(keep=True)
    assert finish(reopened(store))
    assert decode(content(store)) == RAW


def test_part_that_nothing_acknowledged_is_replaced(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    """A daemon dies after it has stored a part, before it writes that into the journal."""
    arriving(store, 2).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    bucket.put_part(found.open.data, found.upload or "", 2, b"of a dead daemon")
    assert finish(reopened(other))
    assert decode(content(other)) == RAW


def test_seal_is_repeated_after_a_death_at_any_place(store: BucketStore, other: BucketStore) -> None:
    first = arriving(store)
    sealed = first.partial.seal(first.chunks)
    again = reopened(other)
    assert again.partial.seal(again.chunks) == sealed
    with pytest.raises(StoreError, match="is sealed"):
        again.partial.append(b"more")
    assert again.partial.commit(FILE, manifest_for(sealed))
    assert decode(content(other)) == RAW


def test_bytes_that_the_object_store_has_changed_are_found_before_the_commit(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    first = arriving(store)
    first.partial.seal(first.chunks)
    (name,) = [each for each in names(bucket) if each.endswith(".zst")]
    data = bytearray(bucket.objects[name][0])
    data[PART // 2] ^= 1
    bucket.put(name, bytes(data))
    again = reopened(other)
    with pytest.raises(PartialDamaged, match="is not as it arrived"):
        again.partial.seal(again.chunks)


def test_object_that_is_lost_before_the_commit_is_found(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    first = arriving(store)
    first.partial.seal(first.chunks)
    (name,) = [each for each in names(bucket) if each.endswith(".zst")]
    bucket.delete(name)
    again = reopened(other)
    with pytest.raises(PartialDamaged, match="has lost some of its parts"):
        again.partial.seal(again.chunks)


def test_small_stream_is_one_put(bucket: MemoryBucket, tmp_path: Path) -> None:
    store = store_in(bucket, tmp_path, part_least=1 << 20)
    assert finish(arriving(store, 2))
    assert bucket.uploads == {}
    assert decode(content(store)) == RAW


def test_multipart_upload_without_an_acknowledged_part_is_aborted(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(bucket, tmp_path)
    monkeypatch.setattr(bucket, "put_part", lambda *_arguments: (_ for _ in ()).throw(BucketBusy("died")))
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, PUSH)))
    take(ingest, crash.chunks()[:1])
    take_one(ingest, crash.chunks()[1])
    with pytest.raises(StoreError, match="died"):
        ingest.partial.sync(ingest.batch())
    with pytest.raises(StoreError, match="has failed before: died") as caught:
        ingest.partial.append(b"more")
    assert caught.value.code is ErrorCode.LIMIT  # its sender tries again, whichever of the two it hears of
    monkeypatch.undo()
    assert len(bucket.uploads) == 1
    again = reopened(store_in(bucket, tmp_path, part_least=1 << 20))
    assert finish(again)
    assert bucket.uploads == {}


def test_multipart_upload_that_a_dead_process_had_just_begun_is_aborted(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    arriving(store, 1).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    orphan = bucket.begin_parts(found.open.data)
    again = reopened(other)
    assert orphan not in bucket.uploads
    bucket.begin_parts(found.open.data)
    again.partial.close(keep=False)
    assert (names(bucket), bucket.uploads) == ([], {})


def test_record_is_told_of_a_part_that_nobody_can_read(store: BucketStore, other: BucketStore) -> None:
    ingest = arriving(store, 2)
    ingest.partial.close(keep=True)
    found = other.reopen(KEY, at_resume_point=True)
    assert found is not None
    upload, standing = found
    told = upload.record(standing)
    assert (len(told.payload_sha256), told.features) == (64, standing.begins[-1].features)
    upload.close(keep=True)
