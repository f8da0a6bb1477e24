from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.buckets import (
    FILE,
    KEY,
    RAW,
    MemoryBucket,
    SteppedBucket,
    arriving,
    commit_all,
    content,
    journal_of,
    names,
    store_in,
    store_raw,
)
from tests.receiver.helpers import decode

from fullsend_receiver.store.journal import make_line
from fullsend_receiver.store_s3 import journals, keys, manifests, partials
from fullsend_receiver.store_s3.journals import UploadLost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_receiver.store_s3.bucket import BucketObject
    from fullsend_receiver.store_s3.journals import BucketJournal
    from fullsend_receiver.store_s3.stores import BucketStore


def test_discarded_upload_leaves_nothing(store: BucketStore, bucket: MemoryBucket) -> None:
    ingest = arriving(store, 2)
    assert bucket.uploads
    ingest.partial.close(keep=False)
    assert (names(bucket), bucket.uploads) == ([], {})


@pytest.mark.parametrize("chunks", [0, 2])
def test_last_arrival_is_at_least_the_beginning(store: BucketStore, bucket: MemoryBucket, chunks: int) -> None:
    """Otherwise an upload that has just begun looks like one that nothing was added to for decades."""
    ingest = arriving(store, chunks)
    ((_key, last),) = store.uploads(lambda upload: upload.last)
    assert last >= bucket.objects[keys.open_key(KEY)][2] > 0
    ingest.partial.close(keep=False)


def test_sealed_upload_that_is_discarded_leaves_nothing(store: BucketStore, bucket: MemoryBucket) -> None:
    ingest = arriving(store)
    ingest.partial.seal(ingest.chunks)
    ingest.partial.close(keep=False)
    assert (names(bucket), bucket.uploads) == ([], {})


def test_commit_leaves_the_stream_alone(store: BucketStore, bucket: MemoryBucket) -> None:
    assert store_raw(store)
    assert len([each for each in names(bucket) if not each.startswith(keys.STREAMS)]) == 3
    assert names(bucket, ".partial/") == []


def test_damaged_upload_starts_over_and_the_others_go_on(
    store: BucketStore, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture
) -> None:
    arriving(store, 2).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    bucket.put(keys.journal_key(KEY, found.open.generation, 1), b"spoilt\n")
    assert list(store.uploads(lambda upload: upload.journal)) == []
    assert "the daemon will set it aside" in caplog.text
    assert names(bucket) != []
    with caplog.at_level(logging.ERROR):
        assert list(store.uploads(lambda upload: upload.journal, sets_aside=True)) == []
    assert "its stream starts over" in caplog.text
    assert store.reopen(KEY, at_resume_point=False) is None


def test_sweep_spares_the_bytes_of_a_stream_whose_commit_had_begun(store: BucketStore, bucket: MemoryBucket) -> None:
    """The process dies as it cleans up, at each step."""
    ingest = arriving(store)
    ingest.partial.seal(ingest.chunks)
    found = journal_of(bucket)
    assert found is not None
    journals.JournalWriter(bucket, found.open, found.next).write([make_line({"stored": {"file": "x"}})])
    bucket.delete(keys.open_key(KEY))
    for each in names(bucket, keys.journal_prefix(KEY, found.open.generation)):
        partials.sweep(MemoryCopy(bucket), KEY, found.open.generation)
        assert bucket.get(found.open.data) is not None
        bucket.delete(each)


class MemoryCopy(MemoryBucket):
    """A bucket with the objects of another one. What is deleted in it is deleted there, but for journals."""

    def __init__(self, bucket: MemoryBucket) -> None:
        super().__init__(least_part=0)
        self.objects = bucket.objects

    def delete(self, key: str) -> bool:  # type: ignore[explicit-override]
        return not key.startswith(keys.PARTIAL) and super().delete(key)


@pytest.mark.parametrize("before", [1, 2, 3])
def test_sweep_spares_the_bytes_of_a_stream_whose_journal_its_host_is_deleting(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """One host has committed, and deletes `before` objects of the journal. Another one reads one. The first one goes
    on.
    """

    def stop(each: str) -> None:
        if each == "delete" and next(steps) == before:
            raise StoppedError

    steps = itertools.count()
    ingest = arriving(store_of(store, SteppedBucket(bucket, stop)))
    found = journal_of(bucket)
    assert found is not None
    with pytest.raises(StoppedError):
        commit_all(ingest)
    assert store.has(FILE)
    left = names(bucket, keys.journal_prefix(KEY, found.open.generation))
    assert left
    real = bucket.read

    def read(key: str, start: int, size: int) -> bytes:
        data = real(key, start, size)
        for each in left:
            bucket.delete(each)
        return data

    monkeypatch.setattr(bucket, "read", read)
    other.recover()
    assert decode(content(store)) == RAW
    assert names(bucket, ".partial/") == []


def test_sweep_spares_bytes_if_the_newest_object_cannot_be_read(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    """It may have been the line of a commit."""
    ingest = arriving(store)
    ingest.partial.seal(ingest.chunks)
    ingest.partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    bucket.delete(keys.open_key(KEY))
    bucket.put(names(bucket, ".partial/")[-1], b"spoilt")
    other.recover()
    assert bucket.get(found.open.data) is not None
    assert names(bucket, ".partial/") == []


def test_line_of_a_commit_stays_until_all_before_it_is_deleted(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host stalls behind that line. Another one completes the commit, and dies as it deletes the journal."""
    ingest = arriving(store)
    real = bucket.head

    def head(key: str) -> BucketObject | None:
        if any(b'{"stored":' in data for data, *_rest in bucket.objects.values()):
            monkeypatch.setattr(bucket, "head", real)
            there = journal_of(bucket)
            assert there is not None
            manifests_put(bucket, there)
            bucket.delete(keys.open_key(KEY))
        return real(key)

    monkeypatch.setattr(bucket, "head", head)
    with pytest.raises(UploadLost):
        commit_all(ingest)
    ingest.partial.close(keep=False)
    assert names(bucket, ".partial/") != []
    other.recover()
    assert decode(content(store)) == RAW
    assert names(bucket, ".partial/") == []


def manifests_put(bucket: MemoryBucket, found: BucketJournal) -> None:
    """Store the stream of a journal whose commit has begun, and do no more."""
    assert found.stored is not None
    said = manifests.stream_bytes(found.stored["manifest"], found.open.data, None)
    bucket.put(manifests.key_of(found.stored["file"]), said, if_absent=True)


class StoppedError(Exception):
    """The process is stopped here."""


def store_of(store: BucketStore, bucket: Any) -> BucketStore:
    """Return the same store through another client."""
    return store_in(bucket, store.home)


def test_upload_that_ends_while_it_is_read_is_no_damage(
    store: BucketStore, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = arriving(store, 2)
    real = bucket.entries
    once: list[None] = []

    def entries(prefix: str) -> Iterator[BucketObject]:
        found = list(real(prefix))
        if len(prefix) > len(keys.PARTIAL) + len(KEY) + 1 and not once:
            once.append(None)
            ingest.partial.close(keep=False)
            return iter(found[1:])
        return iter(found)

    monkeypatch.setattr(bucket, "entries", entries)
    assert partials.examined(bucket, KEY, sets_aside=True) is None
    assert once
    assert caplog.text == ""


def test_upload_whose_first_object_is_spoilt_starts_over(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture
) -> None:
    arriving(store, 2).partial.close(keep=True)
    bucket.put(keys.open_key(KEY), b"spoilt")
    assert store_raw(other)
    assert "its stream starts over" in caplog.text
    other.recover()
    assert names(bucket, ".partial/") == []
    assert bucket.uploads == {}
    assert len([each for each in names(bucket) if not each.startswith(keys.STREAMS)]) == 3
