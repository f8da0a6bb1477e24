from __future__ import annotations

import contextlib
import itertools
import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import (
    FILE,
    MemoryBucket,
    SteppedBucket,
    arriving,
    manifest_for,
    names,
    store_in,
    store_raw,
)

from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.store.api import IndexState, Replaced, Supersedes
from fullsend_receiver.store_s3 import keys, stream_index
from fullsend_receiver.store_s3.stream_index import BucketStreamIndex, note

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fullsend_receiver.store_s3.stores import BucketStore

ONE, TWO = FILE, FILE.with_name("@two.zfs.zst")
BETA = PurePosixPath("beta", *FILE.parts[1:])


@pytest.fixture
def index(bucket: MemoryBucket) -> BucketStreamIndex:
    return BucketStreamIndex(bucket)


def test_changes_are_numbered_for_each_sender(index: BucketStreamIndex, bucket: MemoryBucket) -> None:
    assert index.look("alpha") == IndexState("alpha")
    note(bucket, [])
    assert names(bucket) == []
    note(bucket, [ONE, BETA, TWO])
    alpha = index.look("alpha")
    assert (alpha.changes, alpha.last, alpha.rows) == (((1, ONE), (2, TWO)), 2, None)
    assert index.look("beta").changes == ((1, BETA),)
    note(bucket, [ONE])
    again = index.look("alpha", alpha)
    assert (again.changes, again.mark) == (((2, TWO), (3, ONE)), alpha.mark)
    assert index.look("alpha", again) is again


def test_rows_are_kept_once_and_replace_the_former(index: BucketStreamIndex, bucket: MemoryBucket) -> None:
    note(bucket, [ONE])
    first = index.keep(index.look("alpha"), b"one")
    assert first is not None
    assert index.look("alpha") == first
    assert (index.rows(first), first.through, first.last, first.changes) == (b"one", 1, 1, ())
    note(bucket, [TWO])
    assert index.keep(first, b"without the second") is None
    state = index.look("alpha", first)
    assert (state.changes, index.rows(state)) == (((2, TWO),), b"one")
    second = index.keep(state, b"two")
    assert second is not None
    assert (index.rows(second), second.through) == (b"two", 2)
    assert index.rows(first) is None
    assert len(names(bucket, keys.STREAMS)) == 2


def test_rows_are_kept_where_nothing_was_noted(index: BucketStreamIndex) -> None:
    absent = index.look("alpha")
    kept = index.keep(absent, b"rows")
    assert kept is not None
    assert index.look("alpha") == kept
    assert kept.mark
    assert index.rows(absent) is None
    assert index.keep(absent, b"of another process") is None
    assert index.rows(kept) == b"rows"


def test_rows_that_a_dead_process_has_left_are_deleted_after_a_day(
    index: BucketStreamIndex, bucket: MemoryBucket
) -> None:
    for name in ("old", "new"):
        bucket.put(keys.index_key("alpha", name), b"rows")
    data, etag, at = bucket.objects[keys.index_key("alpha", "old")]
    bucket.objects[keys.index_key("alpha", "old")] = (data, etag, at - 90_000)
    assert index.keep(index.look("alpha"), b"rows") is not None
    assert keys.index_key("alpha", "new") in names(bucket)
    assert keys.index_key("alpha", "old") not in names(bucket)


@pytest.mark.parametrize(
    "write", [lambda bucket: note(bucket, [TWO]), lambda bucket: bucket.delete(keys.index_key("alpha"))]
)
def test_note_that_meets_another_change_is_repeated(
    bucket: MemoryBucket, write: Callable[[MemoryBucket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(stream_index, "pause", waited.append)
    note(bucket, [ONE])
    met: list[str] = []

    def step(name: str) -> None:
        if not met:
            met.append(name)
            write(bucket)

    note(SteppedBucket(bucket, step), [ONE])
    assert ONE in [file for _number, file in BucketStreamIndex(bucket).look("alpha").changes]
    assert waited == [1]


# --- whatever dies, a reader of the index finds what a look at everything finds -----------------------------------


class Killed(BaseException):
    """The process is dead."""


def mortal(bucket: MemoryBucket, home: Path, at: int) -> tuple[BucketStore, list[str]]:
    """Return a store whose process dies at its `at`-th request that changes something, and the requests it has made."""
    made: list[str] = []

    def step(name: str) -> None:
        made.append(name)
        if len(made) >= at:
            raise Killed

    return store_in(SteppedBucket(bucket, step), home), made


def commit(store: BucketStore) -> None:
    store_raw(store)


def commit_merged(store: BucketStore) -> None:
    upload = arriving(store).partial
    upload.commit(FILE, manifest_for(upload.seal(3)), None, Supersedes(lambda: [ONE_MORE], "trash"))


def commit_in_place(store: BucketStore) -> None:
    stamp = store.stamp(ONE_MORE)
    assert stamp is not None
    upload = arriving(store).partial
    upload.commit(ONE_MORE, manifest_for(upload.seal(3)), Replaced(stamp, "a chunk is bad"))


def remove(store: BucketStore) -> None:
    store.remove(lambda: [ONE_MORE])


def remove_to_trash(store: BucketStore) -> None:
    store.remove(lambda: [ONE_MORE], trash="trash")


def bring_back(store: BucketStore) -> None:
    remove_to_trash(store)
    store.bring_back(lambda: list(store.trashed()))


ONE_MORE = FILE.with_name("@earlier.zfs.zst")


@pytest.mark.parametrize("act", [commit, commit_merged, commit_in_place, remove, remove_to_trash, bring_back])
def test_index_is_true_after_a_death_at_any_step(
    tmp_path: Path, act: Callable[[BucketStore], None], caplog: pytest.LogCaptureFixture
) -> None:
    for at in itertools.count(1):
        bucket = MemoryBucket(least_part=0)
        store = store_in(bucket, tmp_path)
        upload = arriving(store).partial
        assert upload.commit(ONE_MORE, manifest_for(upload.seal(3)))
        reader = ObjectSearch(store, "alpha")
        assert reader.run()
        dying, made = mortal(bucket, tmp_path, at)
        with contextlib.suppress(Killed):
            act(dying)
        died = len(made) >= at
        again = store_in(bucket, tmp_path)
        again.recover()
        seen = ObjectSearch(again, "alpha")
        with caplog.at_level(logging.WARNING):
            seen.distrust()
            seen.run()
        assert "was wrong" not in caplog.text
        reader.run()
        assert reader.summaries == seen.summaries, (at, made)
        if not died:
            break
    assert at > 5
