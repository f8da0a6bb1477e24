from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import FILE, RAW, MemoryBucket, SteppedBucket, content, names, store_in, store_raw
from tests.receiver.helpers import decode

from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3 import keys, manifests, removals
from fullsend_receiver.store_s3.bucket import Fetched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fullsend_receiver.store_s3.stores import BucketStore


def test_stream_is_moved_into_the_trash_and_back(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    manifest = store.manifest(FILE)
    assert store.remove(lambda: [FILE], trash="2026-11-28") == [FILE]
    assert not store.has(FILE)
    (found,) = store.trashed()
    assert (found.folder, found.file, found.size) == ("2026-11-28", FILE, manifest.stored_bytes)
    assert store.trashed_manifest(found) == manifest
    assert store.trash_bytes() == manifest.stored_bytes == store.aside()["alpha"]
    assert store.bring_back(lambda: [found]) == [FILE]
    assert list(store.trashed()) == []
    assert store.manifest(FILE) == manifest
    assert decode(content(store)) == RAW


def test_stream_whose_name_is_taken_stays_in_the_trash(store: BucketStore) -> None:
    assert store_raw(store)
    store.remove(lambda: [FILE], trash="t")
    assert store_raw(store)
    there = store.stamp(FILE)
    assert store.bring_back(store.trashed) == []
    assert [each.file for each in store.trashed()] == [FILE]
    assert store.stamp(FILE) == there


def test_trash_is_emptied_by_folders(store: BucketStore, bucket: MemoryBucket) -> None:
    for folder in ("old", "new"):
        assert store_raw(store)
        store.remove(lambda: [FILE], trash=folder)
    assert store.empty_trash(lambda folder: folder == "old") == ["old"]
    assert [each.folder for each in store.trashed()] == ["new"]
    assert store.bring_back(store.trashed) == [FILE]
    assert decode(content(store)) == RAW


def test_stream_in_the_trash_without_its_bytes_is_not_brought_back(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    store.remove(lambda: [FILE], trash="t")
    for name in names(bucket):
        if name.endswith(".zst"):
            bucket.delete(name)
    assert store.bring_back(store.trashed) == []
    assert not store.has(FILE)


def stalled(
    bucket: MemoryBucket, tmp_path: Path, state: bytes, meanwhile: Callable[[BucketStore], None]
) -> BucketStore:
    """Return a store whose process stalls at the first step of a removal in this state, while another one works."""
    once: list[None] = []

    def step(_name: str) -> None:
        there = bucket.get(keys.REMOVING)
        if there is not None and state in there.data and not once:
            once.append(None)
            meanwhile(store_in(bucket, tmp_path))

    return store_in(SteppedBucket(bucket, step), tmp_path)


def test_removal_that_stalls_while_it_chooses_removes_nothing(
    store: BucketStore, bucket: MemoryBucket, tmp_path: Path
) -> None:
    assert store_raw(store)

    def meanwhile(_other: BucketStore) -> None:
        removals.wait_for_removals(bucket, patience=0.0)

    with pytest.raises(StoreError, match="try again"):
        stalled(bucket, tmp_path, b'"choosing"', meanwhile).remove(lambda: [FILE])
    assert decode(content(store)) == RAW
    assert store.remove(lambda: [FILE]) == [FILE]


@pytest.mark.parametrize("trash", [None, "t"])
def test_removal_that_stalls_is_completed_by_another_and_harms_no_new_stream(
    store: BucketStore, bucket: MemoryBucket, tmp_path: Path, trash: str | None
) -> None:
    assert store_raw(store)

    def meanwhile(other: BucketStore) -> None:
        other.wait_for_removals()
        assert not other.has(FILE)
        assert store_raw(other)

    assert stalled(bucket, tmp_path, b'"doing"', meanwhile).remove(lambda: [FILE], trash=trash) == [FILE]
    assert decode(content(store)) == RAW
    assert store.under_way() == set()


def test_bytes_of_a_stream_that_came_back_outlive_an_entry_that_is_written_late(
    store: BucketStore, bucket: MemoryBucket, tmp_path: Path
) -> None:
    assert store_raw(store)

    def meanwhile(other: BucketStore) -> None:
        other.wait_for_removals()
        assert other.bring_back(lambda: list(other.trashed())) == [FILE]

    assert stalled(bucket, tmp_path, b'"doing"', meanwhile).remove(lambda: [FILE], trash="t") == []
    assert [each.folder for each in store.trashed()] == ["t"]
    assert store.empty_trash(lambda _folder: True) == ["t"]
    assert list(store.trashed()) == []
    assert decode(content(store)) == RAW


def test_bytes_of_a_stream_outlive_the_older_one_of_its_entries(store: BucketStore, bucket: MemoryBucket) -> None:
    """It came back, its entry was written late, and it was removed again."""
    assert store_raw(store)
    store.remove(lambda: [FILE], trash="new")
    (entry,) = names(bucket, keys.TRASH)
    late = entry.replace("/new/", "/old/")
    bucket.put(late, bucket.objects[entry][0])
    assert store.empty_trash(lambda folder: folder == "old") == ["old"]
    assert names(bucket, keys.TRASH) == [entry]
    assert store.bring_back(store.trashed) == [FILE]
    assert decode(content(store)) == RAW


def test_entry_stays_while_the_manifest_under_its_name_cannot_be_read(store: BucketStore, bucket: MemoryBucket) -> None:
    """It may be that of the same stream."""
    assert store_raw(store)
    store.remove(lambda: [FILE], trash="t")
    before = bucket.objects[manifests.key_of(FILE)]
    bucket.put(manifests.key_of(FILE), b"spoilt")
    assert store.empty_trash(lambda _folder: True) == []
    assert [each.folder for each in store.trashed()] == ["t"]
    bucket.objects[manifests.key_of(FILE)] = before
    assert store.empty_trash(lambda _folder: True) == ["t"]
    assert [each for each in names(bucket) if each.endswith(".zst")] == []


def test_return_that_stalls_does_not_undo_a_later_removal(
    store: BucketStore, bucket: MemoryBucket, tmp_path: Path
) -> None:
    assert store_raw(store)
    store.remove(lambda: [FILE], trash="t")

    def meanwhile(other: BucketStore) -> None:
        other.wait_for_removals()
        assert other.remove(lambda: [FILE]) == [FILE]

    late = stalled(bucket, tmp_path, b'"doing"', meanwhile)
    late.bring_back(late.trashed)
    assert not store.has(FILE)
    assert [each for each in names(bucket) if each.endswith(".zst")] == []


def test_wait_ends_only_when_the_removal_that_had_begun_is_done(
    store: BucketStore, bucket: MemoryBucket, tmp_path: Path
) -> None:
    """The one who waits sees it choose, and then at work."""
    assert store_raw(store)
    looks = 0

    class Watched(MemoryBucket):
        def get(self, key: str) -> Fetched | None:  # type: ignore[explicit-override]
            nonlocal looks
            if key == keys.REMOVING:
                looks += 1
                if looks == 2:  # between its first look and the next
                    mine._bucket.put(keys.REMOVING, doing(), if_match=mine._etag)
            return super().get(key)

    def doing() -> bytes:
        return removals._encode({"state": "doing", "what": "remove", "streams": rows})

    watched = Watched(least_part=0)
    watched.objects = bucket.objects
    rows = removals.rows_of(bucket, [FILE], None)
    mine = removals.Turn(bucket, removals._claim(bucket, 0.0))
    removals.wait_for_removals(watched)
    assert looks > 2
    assert not store.has(FILE)


def test_wait_does_not_end_with_a_choice_that_turns_into_a_removal(store: BucketStore, bucket: MemoryBucket) -> None:
    """It chooses for so long that the one who waits ends it, and is faster by a moment."""
    assert store_raw(store)
    mine = removals.Turn(bucket, removals._claim(bucket, 0.0))
    said = {"state": "doing", "what": "remove", "streams": removals.rows_of(bucket, [FILE], None)}

    def stalled(_merge: str | None) -> None:
        assert bucket.put(keys.REMOVING, removals._encode(said), if_match=mine._etag)

    removals.wait_for_removals(bucket, patience=0.0, stalled=stalled)
    assert not store.has(FILE)


def test_stream_that_is_being_committed_is_not_removed(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    assert removals.remove(bucket, lambda: [FILE], lambda: {FILE}) == []
    assert store.has(FILE)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"format": 2, "state": "doing"}', b'{"format": 1, "state": "?"}'])
def test_log_of_another_form_stops_all_removals(store: BucketStore, bucket: MemoryBucket, data: bytes) -> None:
    bucket.put(keys.REMOVING, data)
    with pytest.raises(StoreError, match="not in the form"):
        store.remove(lambda: [PurePosixPath("alpha/x.zfs.zst")])
