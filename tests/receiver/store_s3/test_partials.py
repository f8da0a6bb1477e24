from __future__ import annotations

import contextlib
import itertools
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver import crash
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
    manifest_for,
    names,
    store_in,
    store_raw,
)
from tests.receiver.helpers import SENDER, decode, take

from fullsend_protocol.format.manifest import Resumption
from fullsend_receiver.arrival.expiry import discard_old, find_partials
from fullsend_receiver.arrival.usage import find_beside
from fullsend_receiver.maintenance.leases import arriving_leases
from fullsend_receiver.store.api import unclaimed
from fullsend_receiver.store.journal import UploadProgress, make_line
from fullsend_receiver.store_s3 import commits, journals, keys, manifests, partials
from fullsend_receiver.store_s3.journals import UploadLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fullsend_receiver.store.api import UploadInfo
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


@pytest.mark.parametrize("newest", [False, True])
def test_damaged_upload_starts_over_and_the_others_go_on(
    store: BucketStore, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture, newest: bool
) -> None:
    """How far it is, the newest object tells. Where it resumes, all of them tell."""

    def look(upload: UploadInfo) -> object:
        return upload.journal if newest else upload.places

    arriving(store, 2).partial.close(keep=True)
    found = journal_of(bucket)
    assert found is not None
    bucket.put(keys.journal_key(KEY, found.open.generation, found.next - 1 if newest else 1), b"spoilt\n")
    assert list(store.uploads(look)) == []
    assert "the daemon will set it aside" in caplog.text
    assert names(bucket) != []
    with caplog.at_level(logging.ERROR):
        assert list(store.uploads(look, sets_aside=unclaimed)) == []
    assert "its stream starts over" in caplog.text
    assert store.reopen(KEY, at_resume_point=False) is None


@pytest.mark.parametrize("mine", [False, True])
def test_upload_that_a_session_has_begun_anew_is_not_set_aside(
    store: BucketStore, bucket: MemoryBucket, *, mine: bool
) -> None:
    """Between the look at a damaged one and the claim; or the session has the claim."""
    arriving(store, 2).partial.close(keep=True)
    bucket.put(names(bucket, ".partial/")[-2], b"spoilt")  # the last one is `open`

    @contextlib.contextmanager
    def claim(_key: str) -> Iterator[bool]:
        arriving(store, 1).partial.close(keep=True)
        yield mine

    assert list(store.uploads(lambda upload: upload.journal, sets_aside=claim)) == []
    ((key, said),) = store.uploads(lambda upload: upload.journal)
    assert (key, said.committing) == (KEY, None)


def test_upload_that_lacks_an_object_is_damaged(store: BucketStore, bucket: MemoryBucket) -> None:
    arriving(store).partial.close(keep=True)
    bucket.delete(names(bucket, ".partial/")[0])
    assert list(store.uploads(lambda upload: upload.journal)) == []
    assert [key for key, _opened in store.uploads(lambda upload: upload.opened)] == [KEY]


class CountingBucket:
    """A bucket that counts the requests that read a journal."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self.real = bucket
        self.counts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        if name in {"get", "read", "head", "entries"}:
            self.counts[name] += 1
        return getattr(self.real, name)


@pytest.mark.parametrize(
    ("look", "reads"),
    [
        (lambda store: arriving_leases(store, SENDER), 0),
        (lambda store: list(find_partials(store, "another")), 0),
        (find_beside, 2),
        (lambda store: discard_old(store, (), keep=1e9, most=None, damaged_keep=1e9), 2),
        (lambda store: store.under_way(), 1),
    ],
)
def test_look_at_a_slow_stream_does_not_read_its_whole_journal(
    bucket: MemoryBucket, tmp_path: Path, look: Callable[[BucketStore], object], reads: int
) -> None:
    """It has an object for each second."""
    counting = CountingBucket(bucket)
    store = store_in(counting, tmp_path)
    resumption = Resumption(how="reconnect", offset=0, at="2026-11-30T00:00:00Z")
    ingest = arriving(store, 1)
    for _ in range(5):
        ingest.partial.note_resumed(resumption)
    take(ingest, crash.chunks()[1:])
    ingest.partial.note_resumed(resumption)
    assert len(names(bucket, ".partial/")) > 8
    counting.counts.clear()
    look(store)
    assert counting.counts["read"] == reads
    assert counting.counts["get"] <= 2
    ingest.partial.close(keep=True)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_newest_objects_tell_what_the_whole_journal_tells(
    store: BucketStore, bucket: MemoryBucket, chunks: int, *, cut: bool
) -> None:
    ingest = arriving(store, chunks)
    ingest.partial.close(keep=True)
    if cut and chunks and (found := store.reopen(KEY, at_resume_point=True)) is not None:
        found[0].close(keep=True)
    whole = journal_of(bucket)
    assert whole is not None
    said = journals.summary(whole)
    ((_key, progress),) = store.uploads(lambda upload: upload.journal)
    assert progress == UploadProgress(said.offset, said.stored, None)


def test_commit_that_has_begun_is_told(store: BucketStore, bucket: MemoryBucket) -> None:
    ingest = arriving(store)
    sealed = ingest.partial.seal(ingest.chunks)
    found = journal_of(bucket)
    assert found is not None
    lines = commits.prepare(bucket, found.open, FILE, manifest_for(sealed), replaces=None, supersedes=None)
    assert lines is not None
    journals.JournalWriter(bucket, found.open, found.next).write(lines.lines)
    assert partials.committing(bucket) == {FILE} == store.under_way()
    ((_key, progress),) = store.uploads(lambda upload: upload.journal)
    assert progress == UploadProgress(len(RAW), journals.summary(found).stored, FILE)


@pytest.mark.parametrize("again", [False, True])
def test_upload_that_ends_behind_the_list_is_passed_over(
    store: BucketStore, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture, *, again: bool
) -> None:
    """So is one that takes its place: it has begun later."""
    ingest = arriving(store, 2)

    def look(upload: UploadInfo) -> object:
        ingest.partial.close(keep=False)
        if again:
            arriving(store, 1).partial.close(keep=True)
        return upload.opened

    assert list(store.uploads(look, sets_aside=unclaimed)) == []
    assert caplog.text == ""
    assert (names(bucket) != []) == again


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
