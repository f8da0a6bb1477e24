from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import (
    FILE,
    KEY,
    RAW,
    MemoryBucket,
    SteppedBucket,
    arriving,
    content,
    journal_of,
    manifest_for,
    names,
    store_in,
    store_raw,
)
from tests.receiver.helpers import decode

from fullsend_receiver.store.api import Replaced, Supersedes
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3 import commits

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.store_s3.stores import BucketStore


def test_damaged_stream_gives_way_and_is_set_aside(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    there = store.stamp(FILE)
    assert there is not None
    damaged = content(store)
    assert store_raw(store, Replaced(there, "a chunk is bad"))
    assert store.stamp(FILE) != there
    (aside,) = store.set_aside()
    assert (aside.sender, aside.what, aside.why) == ("alpha", "tank/data@now", "a chunk is bad")
    assert aside.stored_bytes == len(damaged) == store.aside()["alpha"]
    assert aside.file is not None
    assert content(store, aside.file) == damaged
    assert store.aside_manifest(aside.name).snapshot == "now"
    store.discard_damaged(aside.at)
    assert list(store.set_aside("alpha")) == [aside]
    store.discard_damaged(aside.at + 1)
    assert list(store.set_aside()) == []
    assert decode(content(store)) == RAW


def test_stream_that_was_replaced_before_stays(store: BucketStore) -> None:
    assert store_raw(store)
    assert store_raw(store, Replaced((1,), "of an earlier look")) is False
    assert list(store.set_aside()) == []


def test_merged_streams_are_removed_with_the_commit(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    other = FILE.with_name("@later.zfs.zst")
    upload = arriving(store).partial
    sealed = manifest_for(upload.seal(3))
    assert upload.commit(other, sealed, None, Supersedes(lambda: [FILE], "trash"))
    assert [each.file for each in store.objects() if each.size is not None] == [other]
    (trashed,) = store.trashed()
    assert trashed.file == FILE


def test_choice_of_merged_streams_that_fails_commits_nothing(store: BucketStore) -> None:
    upload = arriving(store).partial
    sealed = manifest_for(upload.seal(3))

    def choose() -> list[PurePosixPath]:
        raise StoreError("nothing can be chosen")

    with pytest.raises(StoreError, match="nothing can be chosen"):
        upload.commit(FILE, sealed, None, Supersedes(choose))
    assert not store.has(FILE)
    upload.close(keep=True)
    assert store.remove(lambda: [FILE]) == []  # nobody waits


def test_commit_that_another_process_has_completed_is_not_repeated_after_a_removal(
    store: BucketStore, bucket: MemoryBucket, tmp_path: Path
) -> None:
    """It stalls just before the manifest. Meanwhile the stream is stored by another daemon, and removed."""
    outcome: list[object] = []

    def step(name: str) -> None:
        found = journal_of(bucket)
        if found is not None and found.stored is not None and not outcome:
            outcome.append(None)
            other = store_in(bucket, tmp_path)
            other.recover()
            outcome.append(other.remove(lambda: [FILE]))

    upload = arriving(store_in(SteppedBucket(bucket, step), tmp_path)).partial
    assert upload.commit(FILE, manifest_for(upload.seal(3)))
    assert outcome == [None, [FILE]]
    assert not store.has(FILE)
    assert [each for each in names(bucket) if each.endswith(".zst")] == []


def test_loser_deletes_its_bytes(store: BucketStore, bucket: MemoryBucket) -> None:
    first = arriving(store).partial
    manifest = manifest_for(first.seal(3))
    found = journal_of(bucket)
    assert found is not None
    prepared = commits.prepare(bucket, found.open, FILE, manifest, replaces=None, supersedes=None)
    assert prepared is not None
    bucket.delete(f".partial/{KEY}/open")
    assert store_raw(store)
    assert commits.complete(bucket, found.open, prepared.commit, found.objects) is False
    assert [each for each in names(bucket) if each.endswith(".zst")] != [found.open.data]
    assert decode(content(store)) == RAW
