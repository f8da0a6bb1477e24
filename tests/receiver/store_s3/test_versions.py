from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import FILE, KEY, RAW, arriving, content, names, store_in, store_raw
from tests.receiver.helpers import decode
from tests.receiver.versioned_bucket import VersionedBucket

from fullsend_receiver.store.api import KeptVersions, TrashedStream
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3 import keys, manifests, versions

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store_s3.stores import BucketStore

DAY = 86400.0
LOCKED_FOR = 30 * DAY


def data_of(bucket: VersionedBucket) -> str:
    """The key of the bytes of the stored stream."""
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert found.data is not None
    return found.data


def stored(bucket: VersionedBucket, folder: Path) -> BucketStore:
    """A store with one stream."""
    store = store_in(bucket, folder)
    assert store_raw(store)
    return store


def test_what_is_removed_leaves_no_version(tmp_path: Path) -> None:
    bucket = VersionedBucket()
    store = stored(bucket, tmp_path)
    data = data_of(bucket)
    assert store.remove(lambda: [FILE]) == [FILE]
    assert not any(key.startswith(data) for key in bucket.history)
    (tombstone,) = bucket.history[manifests.key_of(FILE)]
    assert tombstone.data is not None
    assert store.kept_versions() == KeptVersions()
    assert store_raw(store)
    assert decode(content(store)) == RAW


def test_locked_stream_stays_whole(tmp_path: Path) -> None:
    bucket = VersionedBucket(retention=LOCKED_FOR)
    store = stored(bucket, tmp_path)
    before = dict(bucket.objects)
    (until,) = store.locked([FILE]).values()
    assert until == pytest.approx(max(each.until for each in bucket.history[manifests.key_of(FILE)]))
    for trash in (None, "trash"):
        assert store.remove(lambda: [FILE], trash=trash) == []
    assert {name: each for name, each in bucket.objects.items() if name != keys.REMOVING} == before
    assert decode(content(store)) == RAW
    bucket.age(LOCKED_FOR)
    assert store.locked([FILE]) == {}
    data = data_of(bucket)
    assert store.remove(lambda: [FILE]) == [FILE]
    assert data not in bucket.history


def test_what_stands_behind_a_locked_stream_stays(tmp_path: Path) -> None:
    bucket = VersionedBucket(retention=0.0)
    store = stored(bucket, tmp_path)
    other = FILE.with_name("@other.zfs.zst")
    found = manifests.read(bucket, FILE)
    assert found is not None
    bucket.put("other bytes", b"bytes")
    bucket.put(manifests.key_of(other), manifests.stream_bytes(found.content, "other bytes", None))
    bucket.lock(data_of(bucket))
    assert store.locked([FILE, other]) == {FILE: math.inf}
    assert store.remove(lambda: [FILE, other]) == []
    assert store.remove(lambda: [other, FILE]) == [other]


def test_lock_that_nobody_may_read_is_no_free_pass(tmp_path: Path) -> None:
    bucket = VersionedBucket(may_see=False)
    store = stored(bucket, tmp_path)
    with pytest.raises(StoreError, match="GetObjectRetention is refused"):
        store.locked([FILE])
    with pytest.raises(StoreError, match="GetObjectRetention is refused"):
        store.remove(lambda: [FILE])
    assert decode(content(store)) == RAW
    assert store.remove(list) == []  # and others may remove


def test_locked_trash_stays_whole_and_can_be_brought_back(tmp_path: Path) -> None:
    bucket = VersionedBucket(retention=0.0)
    store = stored(bucket, tmp_path)
    data = data_of(bucket)
    assert store.remove(lambda: [FILE], trash="trash") == [FILE]
    bucket.lock(data)
    told: list[tuple[TrashedStream, float]] = []
    assert store.empty_trash(lambda _folder: True, lambda *each: told.append(each)) == []
    assert [(each.file, until) for each, until in told] == [(FILE, math.inf)]
    assert [each.file for each in store.trashed()] == [FILE]
    assert store.bring_back(store.trashed) == [FILE]
    assert decode(content(store)) == RAW
    bucket.lock(data, 0.0)
    assert store.remove(lambda: [FILE], trash="trash") == [FILE]
    assert store.empty_trash(lambda _folder: True, lambda *each: told.append(each)) == ["trash"]
    assert data not in bucket.history


def test_without_the_right_to_delete_versions_it_is_said_what_they_take(tmp_path: Path) -> None:
    bucket = VersionedBucket(may_delete=False)
    store = stored(bucket, tmp_path)
    data = data_of(bucket)
    size = len(content(store)) + len(bucket.objects[f"{data}.sha256"][0])
    assert store.remove(lambda: [FILE]) == [FILE]
    assert bucket.head(data) is None
    assert store.kept_versions() == KeptVersions(2, size)
    assert store.kept_versions(sweep=True).stored_bytes >= size
    bucket._may_delete = True
    assert store.kept_versions(sweep=True) == store.kept_versions() == KeptVersions()
    assert data not in bucket.history


def test_working_objects_leave_no_versions(tmp_path: Path) -> None:
    bucket = VersionedBucket()
    store = store_in(bucket, tmp_path)
    for number in range(5):
        found = store.documents.get(f"paper-{number % 2}")
        store.documents.put(f"paper-{number % 2}", b"%d" % number, if_match=None if found is None else found.tag)
    arriving(store).partial.close(keep=False)
    assert any(key.startswith(keys.PARTIAL) for key in bucket.history)
    assert store.kept_versions(sweep=True) == KeptVersions()
    assert {key: [each.data for each in versions] for key, versions in bucket.history.items()} == {
        ".state/paper-0": [b"4"],
        ".state/paper-1": [b"3"],
    }


def test_sweep_leaves_what_is_arriving_and_stored(tmp_path: Path) -> None:
    bucket = VersionedBucket()
    store = stored(bucket, tmp_path)
    ingest = arriving(store, 2)
    there = dict(bucket.objects)
    store.kept_versions(sweep=True)
    assert bucket.objects == there
    ingest.partial.close(keep=True)
    reopened = store.reopen(KEY, at_resume_point=False)
    assert reopened is not None
    reopened[0].close(keep=False)
    assert decode(content(store)) == RAW


def test_locked_versions_of_working_objects_are_not_tried_before_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = VersionedBucket(retention=LOCKED_FOR)
    store = store_in(bucket, tmp_path)
    arriving(store).partial.close(keep=False)
    assert names(bucket, keys.PARTIAL) == []
    size = bucket.bytes_kept
    tried: list[str] = []
    real = bucket.delete_version

    def delete_version(key: str, version: str) -> bool:
        tried.append(key)
        return real(key, version)

    monkeypatch.setattr(bucket, "delete_version", delete_version)
    kept = store.kept_versions(sweep=True)
    assert kept.stored_bytes == size
    assert tried == []
    assert names(bucket, keys.PARTIAL) == []  # a marker that went too early would have shown them again
    bucket.age(LOCKED_FOR)
    assert store.kept_versions(sweep=True) == KeptVersions()
    assert bucket.history == {}


def test_marker_stays_as_long_as_it_hides_something() -> None:
    bucket = VersionedBucket(retention=0.0)
    key = f"{keys.STATE}paper"
    bucket.put(key, b"old")
    bucket.put(key, b"locked")
    bucket.lock(key)
    bucket.delete(key)
    assert versions.sweep(bucket) == KeptVersions(1, len(b"locked"))
    assert bucket.get(key) is None
    assert [each.data for each in bucket.history[key]] == [b"locked", None]


def test_what_was_written_without_versions_is_no_sweep_s() -> None:
    bucket = VersionedBucket()
    key = f"{keys.STATE}paper"
    bucket.put(key, b"old")
    bucket.history[key] = [each.__class__("null", each.data, each.etag, 0.0, 0.0) for each in bucket.history[key]]
    bucket.delete(key)
    assert versions.sweep(bucket) == KeptVersions(1, 3)
    assert bucket.get(key) is None


def test_stream_that_somebody_else_deleted_keeps_its_versions(tmp_path: Path) -> None:
    bucket = VersionedBucket()
    store = stored(bucket, tmp_path)
    data = data_of(bucket)
    bucket.delete(data)
    bucket.delete(manifests.key_of(FILE))
    store.kept_versions(sweep=True)
    for key in (data, manifests.key_of(FILE)):
        marker = bucket.history[key][-1]
        bucket.delete_version(key, marker.name)
    assert decode(content(store)) == RAW
