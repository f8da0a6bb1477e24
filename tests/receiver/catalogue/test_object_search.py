from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import FILE, MemoryBucket, names, store_in, store_raw

from fullsend_receiver.catalogue import object_search
from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3 import keys, manifests, stream_index
from fullsend_receiver.store_s3.bucket import BucketError, BucketObject, Fetched, UnfinishedUpload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def replaced(bucket: MemoryBucket, received: str) -> None:
    """Replace the manifest, as another program would."""
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert found.data is not None
    bucket.put(manifests.key_of(FILE), manifests.stream_bytes(found.content | {"received": received}, found.data, None))


def test_what_another_program_has_changed_is_seen_by_a_look_at_everything(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture
) -> None:
    assert store_raw(store)
    search.run()
    replaced(bucket, "2026-12-01T00:00:00Z")
    assert not search.run()
    search.distrust()
    with caplog.at_level(logging.WARNING):
        assert search.run()
    assert [each.received for each in search.summaries] == ["2026-12-01T00:00:00Z"]
    assert "the index of its streams in s3://memory was wrong about 1 stream" in caplog.text
    assert files(fresh(store)) == [str(FILE)]  # the index has it now
    assert [each.received for each in fresh(store).summaries] == ["2026-12-01T00:00:00Z"]
    bucket.delete(manifests.key_of(FILE))
    search.distrust()
    assert search.run()
    assert files(search) == files(fresh(store)) == []


def test_change_that_the_index_has_is_no_wrong_index(
    search: ObjectSearch, store: BucketStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert store_raw(store)
    search.run()
    store.remove(lambda: [FILE])
    search.distrust()
    with caplog.at_level(logging.WARNING):
        assert search.run()
        assert store_raw(store)
        search.distrust()
        assert search.run()
    assert caplog.text == ""


def test_object_of_another_length_is_lacking(search: ObjectSearch, store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    search.run()
    (data,) = [each for each in names(bucket) if each.endswith(".zst")]
    bucket.put(data, b"cut")
    search.distrust()
    assert search.run()
    assert [shelf.lacking for shelf in search.shelves] == [frozenset({FILE.name})]
    assert fresh(store).lacking == {str(FILE)}


def test_stream_whose_object_is_lost_is_lacking(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture
) -> None:
    assert store_raw(store)
    search.run()
    (data,) = [each for each in names(bucket) if each.endswith(".zst")]
    bucket.delete(data)
    search.distrust()
    with caplog.at_level(logging.WARNING):
        assert search.run()
        search.distrust()
        assert not search.run()
    assert caplog.text == ""  # its manifest is as the index has it
    assert files(search) == [str(FILE)]
    assert search.lacking == {str(FILE)}


# --- the index ----------------------------------------------------------------------------------------------------


class UnlistedBucket(MemoryBucket):
    """Refuses to list anything."""

    def __init__(self, bucket: MemoryBucket) -> None:
        super().__init__(least_part=0)
        self.objects = bucket.objects

    def entries(self, prefix: str) -> Iterator[BucketObject]:  # type: ignore[explicit-override]
        raise AssertionError(prefix)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:  # type: ignore[explicit-override]
        raise AssertionError(prefix)

    def folders(self) -> list[str]:  # type: ignore[explicit-override]
        raise AssertionError


def fresh(store: BucketStore) -> ObjectSearch:
    """Return the search of a process that starts now."""
    search = ObjectSearch(store, "alpha")
    search.run()
    return search


def test_index_is_made_by_the_first_look_and_then_nothing_is_listed(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, tmp_path: Path
) -> None:
    assert store_raw(store)
    search.run()
    there = store_in(UnlistedBucket(bucket), tmp_path)
    reader = fresh(there)
    assert reader.summaries == search.summaries
    store.remove(lambda: [FILE])
    assert reader.run()
    assert files(reader) == files(fresh(there)) == []
    assert store_raw(there)  # a whole push
    assert reader.run()
    assert reader.summaries == fresh(there).summaries != []
    assert not reader.run()


@pytest.mark.parametrize("spoilt", [b"", b"[]", b"{}", b'{"format": 1, "mark": "", "rows": null, "through": 0}'])
def test_index_that_is_spoilt_is_made_again(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, spoilt: bytes
) -> None:
    assert store_raw(store)
    search.run()
    bucket.put(keys.index_key("alpha"), spoilt)
    assert not search.run()
    assert files(search) == files(fresh(store)) == [str(FILE)]
    bucket.put(keys.index_key("alpha"), spoilt)
    store.remove(lambda: [FILE])
    assert search.run()
    assert files(search) == files(fresh(store)) == []


def test_index_that_is_gone_is_made_again(search: ObjectSearch, store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    search.run()
    for key in names(bucket, keys.STREAMS):
        bucket.delete(key)
    assert files(fresh(store)) == [str(FILE)]
    assert not search.run()
    assert names(bucket, keys.STREAMS) != []


@pytest.mark.parametrize("spoilt", [None, b"", b"spoilt"])
def test_rows_that_are_lost_or_spoilt_are_made_again(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, spoilt: bytes | None
) -> None:
    assert store_raw(store)
    search.run()
    (rows,) = {*names(bucket, keys.STREAMS)} - {keys.index_key("alpha")}
    bucket.delete(rows)
    if spoilt is not None:
        bucket.put(rows, spoilt)
    assert files(fresh(store)) == [str(FILE)]
    assert names(bucket, keys.STREAMS) != [rows]
    assert not search.run()


def test_index_of_a_later_version_is_an_error(search: ObjectSearch, store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    bucket.put(keys.index_key("alpha"), b'{"format": 2}')
    with pytest.raises(StoreError, match="has format 2, and this version of fullsendd reads format 1"):
        search.run()


def test_many_changes_are_kept_as_rows(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_search, "KEEP_AFTER", 2)
    assert store_raw(store)
    search.run()
    before = names(bucket, keys.STREAMS)
    for number in (1, 2):
        stream_index.note(bucket, [FILE.with_name(f"@{number}.zfs.zst")])
        search.run()
        assert (names(bucket, keys.STREAMS) == before) == (number == 1)
    assert store.index.look("alpha").changes == ()
    assert len(names(bucket, keys.STREAMS)) == 2
    assert files(fresh(store)) == [str(FILE)]


def test_index_that_cannot_be_written_is_no_error_of_a_question(
    search: ObjectSearch,
    store: BucketStore,
    bucket: MemoryBucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert store_raw(store)

    def put(key: str, _data: bytes, **_said: object) -> str | None:
        raise BucketError(f"{key}: is refused")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(bucket, "put", put)
        assert search.run()
    assert files(search) == [str(FILE)]
    assert "the index of its streams in s3://memory cannot be written" in caplog.text
    assert not search.run()
    assert store.index.look("alpha").rows is not None


def test_look_at_everything_that_finds_nothing_new_stores_nothing(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket
) -> None:
    assert store_raw(store)
    search.run()
    before = dict(bucket.objects)
    for each in (search, ObjectSearch(store, "alpha")):
        each.distrust()
        each.run()
        assert bucket.objects == before
    assert files(fresh(store)) == [str(FILE)]


def test_manifest_that_cannot_be_read_is_read_once_by_a_look_at_everything(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    bucket.put(manifests.key_of(FILE), b"spoilt")
    reads: list[str] = []
    real = bucket.get

    def get(key: str) -> Fetched | None:
        reads.append(key)
        return real(key)

    monkeypatch.setattr(bucket, "get", get)
    search.run()
    assert reads.count(manifests.key_of(FILE)) == 1
    assert len(search.problems) == 1


def test_stream_whose_manifest_was_not_found_once_is_found_by_the_next_look(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal leaves something in place of a manifest, so the answer was wrong."""
    assert store_raw(store)
    search.run()
    store.remove(lambda: [FILE])
    search.run()
    assert store_raw(store)
    real = bucket.get

    def get(key: str) -> Fetched | None:
        return None if key == manifests.key_of(FILE) else real(key)

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "get", get)
        patch.setattr(object_search, "KEEP_AFTER", 1)
        search.run()
        assert files(search) == []
    assert search.run()
    assert files(search) == files(fresh(store)) == [str(FILE)]


def test_change_while_everything_is_looked_at_is_not_lost(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process stores a stream behind the list of keys, before the rows are kept."""
    real = bucket.entries

    def entries(prefix: str) -> Iterator[BucketObject]:
        found = list(real(prefix))
        if prefix == "alpha/":
            monkeypatch.undo()
            assert store_raw(store)
        return iter(found)

    monkeypatch.setattr(bucket, "entries", entries)
    search.distrust()
    search.run()
    assert search.run()
    assert files(search) == files(fresh(store)) == [str(FILE)]


def test_manifest_that_cannot_be_read_is_a_problem(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket
) -> None:
    assert store_raw(store)
    search.run()
    sound = bucket.objects[manifests.key_of(FILE)]
    bucket.put(manifests.key_of(FILE), b"spoilt")
    search.distrust()
    assert search.run()
    assert files(search) == []
    for each in (search, fresh(store)):
        (problem,) = each.problems
        assert problem.path == manifests.key_of(FILE)
        assert "cannot be read" in problem.what
    bucket.objects[manifests.key_of(FILE)] = sound
    assert search.run()  # it is read each time
    assert (files(search), search.problems) == ([str(FILE)], [])
    assert fresh(store).problems == []


def test_bucket_that_cannot_be_reached_is_no_empty_one(
    search: ObjectSearch, store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_raw(store)
    search.run()

    def away(_key: str) -> Iterator[BucketObject]:
        raise BucketError("no answer")

    monkeypatch.setattr(bucket, "entries", away)
    search.distrust()
    with pytest.raises(BucketError):
        search.run()
    monkeypatch.undo()
    assert not search.run()
    assert files(search) == [str(FILE)]


def test_everything_is_looked_at_in_one_batch(search: ObjectSearch) -> None:
    search.run()
    assert search.sure
    assert list(search.batches()) == [["alpha"]]
