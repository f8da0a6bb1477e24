from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path

import pytest

from fullsend_receiver.store import fitness
from fullsend_receiver.store.api import ProbeFinding
from fullsend_receiver.store.errors import StoreError, StoreFull
from fullsend_receiver.store.fitness import require
from fullsend_receiver.store.local import LocalStore


def test_a_fit_store_is_fit_and_nothing_stays_of_the_trial(store: LocalStore) -> None:
    before = sorted(store.state.iterdir())
    store.check_fitness()
    assert sorted(store.state.iterdir()) == before


def test_a_store_that_is_full_of_data_is_as_fit_as_ever(store: LocalStore) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # not a byte can be written, as on a full disk
    try:
        store.check_fitness()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("what", ["touch", "rename"])
def test_a_store_without_room_for_a_name_is_full_and_not_unfit(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, what: str, number: int
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, what, fail)
    with pytest.raises(StoreFull, match=re.escape(f"{store.root}: is full ({os.strerror(number)}): free some space")):
        store.check_fitness()
    monkeypatch.undo()
    assert not list(store.state.glob(".[Pp]*"))


def test_a_file_system_that_folds_case_is_unfit(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.exists

    def folding(self: Path) -> bool:
        return real(self) or real(self.with_name(self.name.swapcase()))

    monkeypatch.setattr(Path, "exists", folding)
    with pytest.raises(StoreError, match="does not distinguish upper and lower case"):
        store.check_fitness()
    monkeypatch.undo()
    assert not list(store.state.glob(".[Pp]*"))


@pytest.mark.parametrize("what", ["rename", "fsync"])
def test_a_file_system_without_rename_or_folder_fsync_is_unfit(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(22, "Invalid argument")

    if what == "rename":
        monkeypatch.setattr(Path, "rename", fail)
    else:
        monkeypatch.setattr(fitness, "sync_folder", fail)
    with pytest.raises(StoreError, match="not fit for a store"):
        store.check_fitness()


def test_a_file_system_with_short_names_is_unfit(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pathconf", lambda _path, _name: 143)
    with pytest.raises(StoreError, match="names of 143 bytes"):
        store.check_fitness()


def test_place_that_lacks_what_a_store_needs_is_named() -> None:
    good = ProbeFinding("LIST", holds=True, needed=True)
    spared = ProbeFinding("Object Lock", holds=False, needed=False, says="none")
    require([good, spared], "s3://bucket")
    lacking = ProbeFinding("PUT If-Match", holds=False, needed=True, says="the condition is ignored")
    with pytest.raises(StoreError, match="s3://bucket: not fit for a store: PUT If-Match: the condition is ignored"):
        require([good, spared, lacking], "s3://bucket")
    with pytest.raises(StoreError, match="ListParts: it does not do that"):
        require([ProbeFinding("ListParts", holds=False, needed=True)], "s3://bucket")
