"""What is noted of copies in another store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from fullsend_receiver.access.copy_settings import CopyScope
from fullsend_receiver.maintenance.copy_records import (
    CopyRecord,
    change_left,
    change_record,
    note_failed,
    note_wanted,
    read_left,
    read_record,
)

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

ID: Final = "0f"
NOON: Final = 1_795_521_600.0  # 2026-11-24T12:00:00Z


def test_nothing_is_known_of_a_store_that_was_never_copied_into(store: LocalStore) -> None:
    found = read_record(store.documents, ID)
    assert found == CopyRecord()
    assert (found.has_ended, found.ok) == (True, None)
    assert read_left(store.documents, ID) == frozenset()


def test_since_when_copies_are_wanted_is_noted_once(store: LocalStore) -> None:
    found = note_wanted(store.documents, ID, CopyScope(), NOON)
    assert found.since == "2026-11-24T12:00:00Z"
    assert note_wanted(store.documents, ID, CopyScope(("alpha",)), NOON + 60) == found
    assert read_record(store.documents, "another") == CopyRecord()


def test_what_was_complete_tells_nothing_of_a_wider_scope(store: LocalStore) -> None:
    note_wanted(store.documents, ID, CopyScope(("alpha",)), NOON)
    change_record(
        store.documents, ID, lambda record: record.model_copy(update={"complete": "2026-11-24T12:30:00Z", "ok": True})
    )
    assert note_wanted(store.documents, ID, CopyScope(("alpha/tank",)), NOON).complete is not None
    found = note_wanted(store.documents, ID, CopyScope(), NOON + 3600)
    assert (found.since, found.complete, found.ok) == ("2026-11-24T13:00:00Z", None, True)


def test_run_that_said_nothing_has_failed(store: LocalStore) -> None:
    note_failed(store.documents, ID, "its process\x1b was killed", NOON)
    found = read_record(store.documents, ID)
    assert (found.began, found.ended, found.ok) == ("2026-11-24T12:00:00Z", "2026-11-24T12:00:00Z", False)
    assert found.why is not None
    assert "\x1b" not in found.why
    began = {"began": "2026-11-24T12:01:00Z", "ended": None}
    change_record(store.documents, ID, lambda record: record.model_copy(update=began))
    assert not read_record(store.documents, ID).has_ended
    note_failed(store.documents, ID, "again", NOON + 120)
    found = read_record(store.documents, ID)
    assert (found.began, found.ended, found.why) == ("2026-11-24T12:01:00Z", "2026-11-24T12:02:00Z", "again")


def test_streams_that_are_not_there_yet(store: LocalStore) -> None:
    change_left(store.documents, ID, add=["alpha/b", "alpha/a"])
    change_left(store.documents, ID, add=["alpha/c"], remove=["alpha/b", "alpha/x"])
    assert read_left(store.documents, ID) == {"alpha/a", "alpha/c"}
    before = store.documents.get(f"copy-left.{ID}.json")
    change_left(store.documents, ID, add=["alpha/c"], remove=["alpha/x"])
    assert store.documents.get(f"copy-left.{ID}.json") == before


@pytest.mark.parametrize("name", ["copied", "copy-left"])
def test_what_cannot_be_read_is_made_anew(store: LocalStore, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (store.state / f"{name}.{ID}.json").write_bytes(b"{")
    assert read_record(store.documents, ID) == CopyRecord()
    assert read_left(store.documents, ID) == frozenset()
    assert f".state/{name}.{ID}.json: cannot be read, and is made anew" in caplog.text
    change_left(store.documents, ID, add=["alpha/a"])
    assert read_left(store.documents, ID) == {"alpha/a"}
