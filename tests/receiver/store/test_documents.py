from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.store.durable import locked

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore


def test_document_is_a_file_of_the_state_folder_for_its_owner_alone(store: LocalStore) -> None:
    assert store.documents.put("notes.json", b"[]", if_match=None)
    assert (store.state / "notes.json").read_bytes() == b"[]"
    assert (store.state / "notes.json").stat().st_mode & 0o777 == 0o600


def test_document_is_replaced_under_the_lock_of_the_store(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    real = os.replace

    def replace(source: str, target: str) -> None:
        with store.lock.open("rb") as file, contextlib.suppress(BlockingIOError):
            held.append(True)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held[-1] = False
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    store.documents.put("notes.json", b"[]", if_match=None)
    assert held == [True]
    with locked(store.lock):  # and no longer
        pass


def test_document_that_cannot_be_read_is_no_missing_one(store: LocalStore) -> None:
    (store.state / "notes.json").mkdir()
    with pytest.raises(IsADirectoryError):
        store.documents.get("notes.json")
