from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.buckets import (
    FILE,
    KEY,
    PUSH,
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
from tests.receiver.helpers import SENDER, decode, take

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.api import Replaced, Supersedes
from fullsend_receiver.store.errors import ManifestError, StoreError
from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store_s3 import commits, manifests, recovery, removals
from fullsend_receiver.store_s3.bucket import BucketBusy
from fullsend_receiver.store_s3.journals import UploadLost
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import PurePosixPath

    from fullsend_receiver.store.api import Upload


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


MERGED = FILE.with_name("@later.zfs.zst")


def merging(store: BucketStore) -> Upload:
    """An upload of a merge, all of it durable."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, PUSH).model_copy(update={"merge": True})))
    take(ingest, crash.chunks())
    return ingest.partial


def stored(store: BucketStore) -> list[PurePosixPath]:
    return [each.file for each in store.objects() if each.size is not None]


def wait(bucket: MemoryBucket) -> None:
    """Wait for removals, and take each that chooses for dead."""
    removals.wait_for_removals(bucket, patience=0.0, stalled=partial(recovery.complete_merges, bucket))


def start_elsewhere(bucket: MemoryBucket) -> None:
    """Start the daemon of another host."""
    with TemporaryDirectory() as home:
        BucketStore(bucket, Path(home), patience=900.0).recover()


@pytest.mark.parametrize("meanwhile", [wait, start_elsewhere])
def test_merge_that_is_stalled_while_it_chooses_commits_nothing(
    store: BucketStore, bucket: MemoryBucket, meanwhile: Callable[[MemoryBucket], None]
) -> None:
    assert store_raw(store)
    upload = merging(store)
    sealed = manifest_for(upload.seal(3))

    def choose() -> list[PurePosixPath]:
        meanwhile(bucket)
        return [FILE]

    with pytest.raises(UploadLost):
        upload.commit(MERGED, sealed, None, Supersedes(choose))
    upload.close(keep=True)
    assert stored(store) == [FILE]
    assert store.remove(lambda: [FILE]) == [FILE]  # nobody waits


@pytest.mark.parametrize("look", [wait, start_elsewhere])
def test_merge_whose_commit_fails_at_any_step_keeps_its_turn_until_that_is_complete(
    tmp_path: Path, look: Callable[[MemoryBucket], None]
) -> None:
    """The object store is overloaded for one request, and the daemon lives on."""
    ends = set()
    for at in itertools.count(1):
        bucket = MemoryBucket(least_part=0)
        assert store_raw(store_in(bucket, tmp_path))
        left_steps = [0]

        def step(_name: str, left_steps: list[int] = left_steps) -> None:
            left_steps[0] -= 1
            if left_steps[0] == 0:
                raise BucketBusy("overloaded")

        store = store_in(SteppedBucket(bucket, step), tmp_path)
        upload = merging(store)
        sealed = manifest_for(upload.seal(3))
        left_steps[0] = at
        failed = False
        try:
            upload.commit(MERGED, sealed, None, Supersedes(lambda: [FILE], "t"))
        except BucketBusy:
            failed = True
        left_steps[0] = 0
        upload.close(keep=True)
        look(bucket)
        left = stored(store)
        assert left in ([FILE], [MERGED]), at
        store.recover()
        assert stored(store) == left
        ends.add(left[0])
        if not failed:
            break
    assert ends == {FILE, MERGED}


def test_commit_that_has_failed_is_completed_at_once_by_the_next_try(bucket: MemoryBucket, tmp_path: Path) -> None:
    """It has the turn to remove already."""
    failed: list[str] = []

    def step(name: str) -> None:
        there = journal_of(bucket)
        if not failed and there is not None and there.open.opened.merge and there.stored is not None:
            failed.append(name)
            raise BucketBusy("overloaded")

    store = store_in(SteppedBucket(bucket, step), tmp_path)
    assert store_raw(store)
    upload = merging(store)
    sealed = manifest_for(upload.seal(3))
    with pytest.raises(BucketBusy):
        upload.commit(MERGED, sealed, None, Supersedes(lambda: [FILE]))
    upload.close(keep=True)
    assert store.recover_merges() == [f"{MERGED}: its commit was interrupted and is complete now"]
    assert stored(store) == [MERGED]
    assert store.remove(lambda: [MERGED]) == [MERGED]  # nobody waits


def test_commit_of_a_merge_that_cannot_be_completed_keeps_no_daemon_from_starting(
    bucket: MemoryBucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program has spoilt what stands under its name. A push that needs to know still fails."""

    def step(_name: str) -> None:
        there = journal_of(bucket)
        if there is not None and there.stored is not None:
            raise BucketBusy("overloaded")

    upload = merging(store_in(SteppedBucket(bucket, step), tmp_path))
    sealed = manifest_for(upload.seal(3))
    with pytest.raises(BucketBusy):
        upload.commit(MERGED, sealed, None, Supersedes(lambda: [FILE]))
    upload.close(keep=True)
    bucket.put(manifests.key_of(MERGED), b"spoilt")
    store = store_in(bucket, tmp_path)
    assert store.recover() == []
    assert "the commit of a merge cannot be completed" in caplog.text
    with pytest.raises(ManifestError):
        wait(bucket)
    bucket.delete(manifests.key_of(MERGED))
    wait(bucket)
    assert stored(store) == [MERGED]


def test_turn_of_a_merge_is_ended_only_by_who_can_see_its_journal(bucket: MemoryBucket) -> None:
    with removals.turn(bucket, merge="0123456789abcdef"):
        with pytest.raises(StoreError, match="a merge has not ended its commit"):
            removals.wait_for_removals(bucket, patience=0.0)
        wait(bucket)
        removals.wait_for_removals(bucket, patience=0.0)


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
