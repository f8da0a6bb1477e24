"""What only a store in a bucket does; what any store does is tested in tests/receiver/store/test_api.py."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.receiver.buckets import FILE, KEY, MemoryBucket, content, names, store_in, store_raw

from fullsend_protocol.format.names import hash_of
from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.store.api import ObjectInfo, Replaced, Stamp
from fullsend_receiver.store.errors import ManifestError, StoreError, StoreMissing
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store_s3 import keys, manifests
from fullsend_receiver.store_s3.bucket import BucketBusy, BucketError, BucketObject, Fetched
from fullsend_receiver.store_s3.stores import BucketStore, make_bucket_store, open_bucket_store, read_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path, PurePosixPath


class CarelessBucket(MemoryBucket):
    """Ignores each condition."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:  # type: ignore[explicit-override]
        return super().put(key, data)


def nothing(_store: BucketStore) -> None:
    """A store without contents."""


def test_store_is_made_once_in_an_empty_place(bucket: MemoryBucket, tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    made, store_id = make_bucket_store(bucket, home, lambda store: (store.home / "key.pem").touch())
    assert read_id(bucket) == made.store_id == store_id
    made.check_mounted()
    assert home.stat().st_mode & 0o777 == 0o700
    assert open_bucket_store(bucket, home, store_id).home == home
    with pytest.raises(UsageError, match="is already a store; take it over with --adopt"):
        make_bucket_store(bucket, home, nothing)
    with pytest.raises(StoreMissing, match="it has the key of this host"):
        open_bucket_store(bucket, tmp_path / "other", store_id)


def test_store_is_not_made_within_another_one(bucket: MemoryBucket, tmp_path: Path) -> None:
    class Hidden(MemoryBucket):
        """The rights end below it."""

        def get(self, key: str) -> NoReturn:  # type: ignore[explicit-override]
            msg = f"{key}: access denied"
            raise BucketError(msg)

    outer = MemoryBucket()
    make_bucket_store(outer, tmp_path / "outer", nothing)
    with pytest.raises(UsageError, match="is within the store s3://memory, which would take it for a sender"):
        make_bucket_store(bucket, tmp_path / "inner", nothing, above=[Hidden(), MemoryBucket(), outer])
    assert not (tmp_path / "inner").exists()
    assert not bucket.objects

    class Busy(MemoryBucket):
        def get(self, key: str) -> NoReturn:  # type: ignore[explicit-override]
            raise BucketBusy(key)

    with pytest.raises(BucketBusy):
        make_bucket_store(bucket, tmp_path / "inner", nothing, above=[Busy()])
    make_bucket_store(bucket, tmp_path / "inner", nothing, above=[Hidden(), MemoryBucket()])


def test_store_is_made_in_no_place_that_has_something(bucket: MemoryBucket, tmp_path: Path) -> None:
    bucket.put("somebody's", b"data")
    with pytest.raises(UsageError, match="not empty and not a store"):
        make_bucket_store(bucket, tmp_path / "home", nothing)
    assert not (tmp_path / "home").exists()
    bucket.delete("somebody's")
    (tmp_path / "home").mkdir()
    with pytest.raises(UsageError, match="may have the key of another store"):
        make_bucket_store(bucket, tmp_path / "home", nothing)
    (tmp_path / "home").rmdir()
    with pytest.raises(StoreError, match="cannot be made"):
        make_bucket_store(bucket, pathlib.Path("/proc/home"), nothing)


def test_bucket_without_conditions_gets_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not fit for a store: PUT If-None-Match"):
        make_bucket_store(CarelessBucket(), tmp_path / "home", nothing)
    assert not (tmp_path / "home").exists()


def test_nothing_stays_of_a_store_that_was_not_made(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_store: BucketStore) -> None:
        raise OSError("no key")

    home = tmp_path / "home"
    with pytest.raises(OSError, match="no key"):
        make_bucket_store(bucket, home, fail)
    assert not home.exists()

    def other(_store: BucketStore) -> None:
        bucket.put(keys.MARKER, b'{"format": 1, "id": "other"}')

    with pytest.raises(StoreError, match="another process has made a store here"):
        make_bucket_store(bucket, home, other)
    assert not home.exists()


def test_key_stays_if_the_store_may_be_made(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker is in place, and its answer was lost; then the object store is away."""
    real = bucket.put

    def put(key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:
        done = real(key, data, if_absent=if_absent, if_match=if_match)
        if key == keys.MARKER:
            raise BucketBusy("no answer")
        return done

    monkeypatch.setattr(bucket, "put", put)
    with pytest.raises(BucketBusy):
        make_bucket_store(bucket, tmp_path / "home", lambda store: (store.home / "key.pem").touch())
    assert (tmp_path / "home" / "key.pem").exists()


def test_what_an_interrupted_init_has_left_is_no_obstacle(bucket: MemoryBucket, tmp_path: Path) -> None:
    bucket.put(".state/certificate.pem", b"of a host that was given up")
    bucket.put(".state/probe-0123/race-0", b"1")
    make_bucket_store(bucket, tmp_path / "home", nothing)
    assert names(bucket) == [keys.MARKER]


def test_fit_bucket_is_fit_and_nothing_stays_of_the_trial(store: BucketStore, bucket: MemoryBucket) -> None:
    store.check_fitness()
    assert all(each.holds for each in store.examine() if each.needed)
    assert names(bucket) == []


def test_another_store_in_its_place_is_seen(bucket: MemoryBucket, tmp_path: Path) -> None:
    store = BucketStore(bucket, tmp_path, "an id")
    with pytest.raises(StoreMissing, match="no store here"):
        store.check_mounted()
    make_bucket_store(bucket, tmp_path / "home", nothing)
    with pytest.raises(StoreMissing, match="is another store"):
        store.check_mounted()
    bucket.put(keys.MARKER, b'{"format": 2, "id": ""}')
    with pytest.raises(StoreError, match="a store of format 2"):
        store.check_mounted()
    bucket.put(keys.MARKER, b"[]")
    with pytest.raises(StoreError, match="cannot be read"):
        store.check_mounted()


def test_listing_reads_no_manifest_that_is_known(
    store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    (found,) = store.objects()
    assert found.manifest == store.manifest(FILE)
    asked: list[tuple[PurePosixPath, int]] = []

    def known(file: PurePosixPath, first: int) -> Stamp | None:
        asked.append((file, first))
        return found.stamp

    def never(_key: str) -> Fetched | None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "get", never)
        assert list(store.objects(known=known)) == [replace(found, manifest=None)]
    assert asked == [(FILE, found.stamp[0])]
    assert list(store.objects(known=lambda _file, _first: None)) == [found]


def test_removed_stream_is_listed_as_removed(
    store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    store.remove(lambda: [FILE])
    (found,) = store.objects()
    assert (found.file, found.size, found.stamp[1]) == (FILE, None, 0)
    assert list(store.objects(only=[FILE])) == [found]

    def never(_key: str) -> Fetched | None:
        raise AssertionError("read again")

    monkeypatch.setattr(bucket, "get", never)
    assert list(store.objects(known=lambda _file, _first: found.stamp)) == [found]


def test_streams_that_are_named_are_looked_at_without_a_list(
    store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    (found,) = store.objects()

    def never(_prefix: str) -> Iterator[BucketObject]:
        raise AssertionError("listed")

    monkeypatch.setattr(bucket, "entries", never)
    absent = FILE.with_name("@absent.zfs.zst")
    assert list(store.objects(only=[absent, FILE])) == [ObjectInfo(absent, None, ()), found]


def test_stream_is_listed_with_a_manifest_that_cannot_be_read(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    (found,) = store.objects()
    bucket.put(manifests.key_of(FILE), b"spoilt")
    (spoilt,) = store.objects()
    assert (spoilt.file, spoilt.size) == (found.file, 0)
    assert isinstance(spoilt.manifest, ManifestError)
    with pytest.raises(ManifestError):
        store.manifest(FILE)
    bucket.put(manifests.key_of(FILE), b"{}")
    (incomplete,) = store.objects()
    assert isinstance(incomplete.manifest, ManifestError)


def test_stream_that_is_replaced_while_it_is_listed_is_listed(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    there = store.stamp(FILE)
    assert there is not None
    real = bucket.entries

    def entries(prefix: str) -> Iterator[BucketObject]:
        found = list(real(prefix))
        monkeypatch.undo()
        assert store_raw(other, Replaced(there, "a chunk is bad"))
        return iter(found)

    monkeypatch.setattr(bucket, "entries", entries)
    (found,) = store.objects("alpha")
    assert (found.file, found.stamp) == (FILE, other.stamp(FILE))
    assert found.stamp != there


def test_stream_without_its_bytes_is_listed_with_none(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    (found,) = store.objects()
    (data,) = [each for each in names(bucket) if each.endswith(".zst")]
    bucket.delete(data)
    assert list(store.objects()) == [replace(found, size=0)]


def test_stream_that_is_removed_while_it_is_listed_is_not_listed(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    assert len(list(store.objects())) == 1
    real = bucket.entries

    def entries(prefix: str) -> Iterator[BucketObject]:
        found = [each for each in real(prefix) if not each.key.endswith(".zst")]
        monkeypatch.undo()
        other.remove(lambda: [FILE])
        return iter(found)

    monkeypatch.setattr(bucket, "entries", entries)
    assert [each.size for each in store.objects("alpha")] == [None]


def test_hash_line_is_that_of_the_name_in_the_store(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    (data,) = [each for each in names(bucket) if each.endswith(".zst")]
    digest = store.manifest(FILE).file_sha256
    assert bucket.objects[hash_of(data)][0].decode() == f"{digest}  {data.rpartition('/')[2]}\n"
    assert store.hash_line(FILE) == hash_line(digest, FILE)
    bucket.put(hash_of(data), b"something else\n")
    assert store.hash_line(FILE) == b"something else\n"
    bucket.delete(hash_of(data))
    assert store.hash_line(FILE) == b""


def test_object_that_another_program_has_put_there_is_adopted(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    manifest, data = store.manifest(FILE), content(store)
    copy = FILE.with_name("@copy.zfs.zst")
    with pytest.raises(StoreError, match="there is no such object"):
        store.adopt(copy, manifest)
    bucket.put(str(copy), data)
    store.adopt(copy, manifest)
    assert (store.manifest(copy), content(store, copy)) == (manifest, data)
    assert store.hash_line(copy) == hash_line(manifest.file_sha256, copy)
    with pytest.raises(StoreError, match="has its manifest by now"):
        store.adopt(copy, manifest)


def test_work_is_claimed_on_this_host(store: BucketStore, tmp_path: Path) -> None:
    with store.alone("merging") as mine, store_in(MemoryBucket(), tmp_path).alone("merging") as others:
        assert mine
        assert not others


def test_what_no_object_store_tells_is_without_bound(store: BucketStore) -> None:
    assert store.space().free == store.space().total > 1 << 60
    assert not store.is_read_only(by_writing=True)
    assert store.disk == store.where == "s3://memory"


def test_events_are_this_hosts(store: BucketStore, tmp_path: Path) -> None:
    store.events.append([b'{"event": "x"}\n'])
    assert (tmp_path / "events").is_dir()


def test_damaged_name_of_nothing_is_no_manifest(store: BucketStore) -> None:
    with pytest.raises(ManifestError, match="nothing of this name"):
        store.aside_manifest("00")
    assert store.reopen(KEY, at_resume_point=False) is None
