"""`fullsendd undelete`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.receiver.helpers import plant
from tests.receiver.running import Receiver

from fullsend_receiver.store.local import LocalStore


@pytest.fixture
def store(receiver: Receiver) -> LocalStore:
    """A chain of three; the last two are in the trash."""
    store = LocalStore(receiver.store)
    files = [plant(store, f"s{guid}", guid, guid - 1 or None) for guid in (1, 2, 3)]
    store.remove(lambda: files[:0:-1], trash="20261127T033000Z-00000000")
    return store


def test_undelete_without_a_name_lists_the_trash(receiver: Receiver, store: LocalStore) -> None:
    done = receiver.fullsendd("undelete")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "dropped 2026-11-27T03:30:00Z  alpha/tank/data@s2  7 B",
        "dropped 2026-11-27T03:30:00Z  alpha/tank/data@s3  7 B",
    ]
    assert "2 streams in the trash, 14 B" in done.stderr
    (row, _other) = map(json.loads, receiver.fullsendd("undelete", "--json").stdout.splitlines())
    assert (row["sender"], row["dataset"], row["snapshot"], row["guid"]) == ("alpha", "tank/data", "s2", "2")
    assert (row["dropped"], row["stored_bytes"], row["base_guid"]) == ("2026-11-27T03:30:00Z", 7, "1")


def test_undelete_brings_a_snapshot_back_with_its_bases_and_pins_it(receiver: Receiver, store: LocalStore) -> None:
    done = receiver.fullsendd("undelete", "alpha/tank/data@s3")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["back", "back"]
    rows = receiver.listed()
    assert [(row["snapshot"], row["restorable"]) for row in rows] == [("s1", True), ("s2", True), ("s3", True)]
    assert [row["pinned"] is None for row in rows] == [True, True, False]
    assert rows[2]["pinned"]["note"] == "came back from the trash"
    assert receiver.fullsendd("undelete").stdout == ""


def test_undelete_of_a_dataset_as_json(receiver: Receiver, store: LocalStore) -> None:
    done = receiver.fullsendd("undelete", "alpha/tank/data", "--json")
    assert [json.loads(line)["file"].count("@s") for line in done.stdout.splitlines()] == [1, 1]


@pytest.mark.parametrize("what", ["alpha", "alpha/tank/daat", "alpha/tank/data@s1", "../x", "beta/tank/data"])
def test_undelete_of_what_is_not_there_is_a_mistake(receiver: Receiver, store: LocalStore, what: str) -> None:
    done = receiver.fullsendd("undelete", what)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_undelete_says_what_stays_and_what_has_no_base(receiver: Receiver, store: LocalStore) -> None:
    plant(store, "s2", 2, 1)
    done = receiver.fullsendd("undelete", "alpha/tank/data@s2")
    assert done.returncode == 1
    assert "stays in the trash: it is stored again" in done.stderr
    store.remove(lambda: [each.file for each in store.objects()])
    store.empty_trash(lambda _folder: False)
    done = receiver.fullsendd("undelete", "alpha/tank/data@s2")
    assert done.returncode == 1
    assert "its base guid:1 is neither stored nor in the trash" in done.stderr


def test_undelete_of_what_cannot_be_restored_all_the_same_says_so(receiver: Receiver) -> None:
    """The snapshot on which it builds is stored, but not as a raw stream."""
    store = LocalStore(receiver.store)
    plant(store, "s1", 1)
    raw: dict[str, Any] = {"stream_class": "raw", "flags": "w"}
    files = [plant(store, "s1", 1, **raw), plant(store, "s2", 2, 1, **raw)]
    store.remove(lambda: files[::-1], trash="20261127T033000Z-00000000")
    store.empty_trash(lambda _folder: False)
    (store.trash_folder / "20261127T033000Z-00000000" / files[0]).unlink()
    done = receiver.fullsendd("undelete", "alpha/tank/data@s2")
    assert [row["restorable"] for row in receiver.listed()] == [True, False]
    assert done.returncode == 1
    assert f"{files[1]}: is stored again, and cannot be restored" in done.stderr
