from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import FILE, MemoryBucket, names, store_in, store_raw

from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.store_s3 import manifests
from fullsend_receiver.store_s3.bucket import BucketError, Fetched

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.store_s3.stores import BucketStore


@pytest.fixture
def store(bucket: MemoryBucket, tmp_path: Path) -> BucketStore:
    return store_in(bucket, tmp_path)


@pytest.fixture
def search(store: BucketStore) -> ObjectSearch:
    return ObjectSearch(store, "alpha")


def files(search: ObjectSearch) -> list[str]:
    return [each.path for each in search.summaries]


def test_stream_is_found_once_it_is_stored(search: ObjectSearch, store: BucketStore) -> None:
    assert not search.run()
    assert (files(search), search.shelves, search.problems, search.orphans) == ([], [], [], [])
    assert store_raw(store)
    assert search.run()
    (summary,) = search.summaries
    manifest = store.manifest(FILE)
    assert (summary.path, summary.sender, summary.guid) == (str(FILE), "alpha", manifest.guid)
    assert [list(shelf.summaries()) for shelf in search.shelves] == [[summary]]
    assert search.shelves[0].lacking == frozenset()
    assert not search.run()
    store.remove(lambda: [FILE])
    assert search.run()
    assert files(search) == []


def test_other_sender_has_none_of_it(store: BucketStore) -> None:
    assert store_raw(store)
    search = ObjectSearch(store, "beta")
    assert not search.run()
    assert files(search) == []


def test_manifest_is_read_once(search: ObjectSearch, store: BucketStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_raw(store)
    search.run()

    def never(_file: PurePosixPath) -> Manifest:
        raise AssertionError("read again")

    monkeypatch.setattr(store, "manifest", never)
    assert not search.run()
    assert files(search) == [str(FILE)]


def test_manifest_that_was_replaced_is_read_again(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket
) -> None:
    assert store_raw(store)
    search.run()
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert found.data is not None
    bucket.put(
        manifests.key_of(FILE),
        manifests.stream_bytes(found.content | {"received": "2026-12-01T00:00:00Z"}, found.data, None),
    )
    assert search.run()
    assert [each.received for each in search.summaries] == ["2026-12-01T00:00:00Z"]


def test_object_of_another_length_is_lacking(search: ObjectSearch, store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    search.run()
    (data,) = [each for each in names(bucket) if each.endswith(".zst")]
    bucket.put(data, b"cut")
    assert search.run()
    assert [shelf.lacking for shelf in search.shelves] == [frozenset({FILE.name})]


def test_stream_whose_object_is_lost_is_lacking(search: ObjectSearch, store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    search.run()
    (data,) = [each for each in names(bucket) if each.endswith(".zst")]
    bucket.delete(data)
    assert search.run()
    assert files(search) == [str(FILE)]
    assert search.lacking == {str(FILE)}


def test_manifest_that_cannot_be_read_is_a_problem(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket
) -> None:
    assert store_raw(store)
    search.run()
    bucket.put(manifests.key_of(FILE), b"spoilt")
    assert search.run()
    assert files(search) == []
    (problem,) = search.problems
    assert problem.path == manifests.key_of(FILE)
    assert "cannot be read" in problem.what
    store.remove(list)
    bucket.delete(manifests.key_of(FILE))
    search.run()
    assert search.problems == []


def test_stream_that_is_removed_while_it_is_searched_is_none(
    search: ObjectSearch, store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    real = store.manifest

    def gone(file: PurePosixPath) -> Manifest:
        monkeypatch.undo()
        store.remove(lambda: [file])
        return real(file)

    monkeypatch.setattr(store, "manifest", gone)
    search.run()
    assert (files(search), search.problems) == ([], [])


def test_bucket_that_cannot_be_reached_is_no_empty_one(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    search.run()

    def away(_key: str) -> Fetched | None:
        raise BucketError("no answer")

    monkeypatch.setattr(bucket, "entries", away)
    with pytest.raises(BucketError):
        search.run()
    monkeypatch.undo()
    assert not search.run()
    assert files(search) == [str(FILE)]


def test_nothing_is_reported(search: ObjectSearch) -> None:
    search.distrust()
    search.distrust(["alpha/tank"])
    assert not search.sure
    assert list(search.batches()) == []
