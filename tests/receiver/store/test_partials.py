from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.arriving import (
    KEY,
    RAW,
    begun,
    flip,
    journal_of,
    lose_sector,
    of_raw,
    reopened,
)
from tests.receiver.helpers import (
    SENDER,
    ingest_stream,
    push_of,
    resume,
)

from fullsend_receiver.store.api import unclaimed
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store.partials import (
    committing,
    discard,
    journal_entries,
    survey,
)
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_whose_commit_is_under_way_is_known_beside_a_damaged_journal(spoilt: LocalStore) -> None:
    before = of_raw(spoilt)
    assert committing(spoilt) == set()
    assert of_raw(spoilt) == before  # it only reads


def test_damaged_partial_that_cannot_be_set_aside_either_is_left(
    spoilt: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(path: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "rename", rename)
    assert len(recover(spoilt)) == 1
    assert of_raw(spoilt) == {f"{KEY}.data", f"{KEY}.journal"}
    assert "it cannot be set aside: [Errno 30] Read-only file system: " in caplog.text


def test_what_somebody_has_open_is_not_set_aside_beneath_him(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    begun(store)
    ingest = resume(store, SENDER, RAW)
    flip(journal_of(store))
    assert list(survey(store, lambda upload: upload.journal, sets_aside=unclaimed)) == []
    assert of_raw(store) == {f"{KEY}.data", f"{KEY}.journal"}
    assert "it is arriving now" in caplog.text
    ingest.partial.close(keep=True)


def test_partial_that_a_session_has_is_not_set_aside(spoilt: LocalStore) -> None:
    before = of_raw(spoilt)
    said = survey(spoilt, lambda upload: upload.journal, sets_aside=lambda _key: contextlib.nullcontext(False))
    assert len(list(said)) == 1
    assert of_raw(spoilt) == before


def test_partial_that_a_session_has_begun_anew_is_not_set_aside(store: LocalStore) -> None:
    """Between the look at a damaged one and the claim."""
    begun(store)
    flip(journal_of(store))

    @contextlib.contextmanager
    def claim(_key: str) -> Iterator[bool]:
        store.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
        yield True

    ((key, said),) = survey(store, lambda upload: upload.journal, sets_aside=claim)
    assert (key, said.offset) == (KEY, None)
    assert {f"{KEY}.data", f"{KEY}.journal"} <= of_raw(store)


def test_system_that_is_short_of_something_costs_no_partial(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store)
    lose_sector(journal_of(store), monkeypatch, errno.EMFILE)
    for using in (
        committing,
        lambda store: store.begin(KEY, open_offer(SENDER, push_of(RAW))),
        lambda store: store.reopen(KEY, at_resume_point=False),
    ):
        with pytest.raises(OSError, match="Too many open files"):
            using(store)
    assert recover(store) == []
    monkeypatch.undo()
    assert reopened(store)


def test_what_may_not_be_read_is_left_as_it_is_and_costs_nobody_else_anything(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(store)
    before = of_raw(store)
    lose_sector(journal_of(store), monkeypatch, errno.EACCES)
    assert committing(store) == set()
    assert recover(store) == []
    assert f"partial {KEY}: cannot be examined: [Errno 13] Permission denied" in caplog.text
    with pytest.raises(PermissionError):
        store.reopen(KEY, at_resume_point=False)
    assert of_raw(store) == before
    monkeypatch.undo()
    assert reopened(store)


def test_journal_entries_are_those_of_the_durable_chunks(store: LocalStore) -> None:
    ingest = ingest_stream(store, SENDER, RAW)
    entries = list(journal_entries(store, KEY))
    ingest.partial.close(keep=True)
    assert [entry.raw_length for entry in entries] == [chunk.raw_length for chunk in crash.chunks()]
    assert [entry.stored_length for entry in entries] == [len(chunk.frame) for chunk in crash.chunks()]
    assert [entry.sha256 for entry in entries] == [chunk.sha256 for chunk in crash.chunks()]
    assert [entry.starts_segment for entry in entries] == [True, False, False]
    assert [entry.ends_at_resume_point for entry in entries] == [True, True, False]
    assert [entry.first_key for entry in entries] == [(1, 0), (1, 4 << 20), (2, 0)]


def test_discarded_partial_is_gone(store: LocalStore) -> None:
    begun(store)
    discard(store, KEY)
    discard(store, KEY)  # nothing left to delete: fine too
    assert not list(store.partial.iterdir())
