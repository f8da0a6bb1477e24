from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    everything,
    hash_path,
    long_stream,
    make_store,
    manifest_path,
    plant,
    read_manifest,
    store_stream,
)
from tests.receiver.powercut import Disk

from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.objects import LocalBlob

if TYPE_CHECKING:
    from tests.receiver.crash import Crasher

RAW = long_stream(1, tail=1)


def log_of(store: LocalStore) -> Path:
    return store.state / "removing.json"


def names_beside(store: LocalStore, file: PurePosixPath) -> set[str]:
    """The suffixes of what there is of a stream."""
    folder = (store.root / file).parent
    return {path.name.removeprefix(file.name) for path in folder.iterdir()} if folder.exists() else set()


WHOLE = {"", ".json", ".sha256"}


# --- manifests --------------------------------------------------------------------------------------------------


def test_manifest_is_read_whole(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    assert store.manifest(file) == read_manifest(store, file)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_manifest_that_is_none_is_said_to_be_unreadable(store: LocalStore, content: bytes) -> None:
    file = plant(store, "s1", 1)
    manifest_path(store, file).write_bytes(content)
    with pytest.raises(StoreError, match=r"full\.zfs\.zst\.json: cannot be read: "):
        store.manifest(file)


def test_manifest_that_is_missing_is_said_to_be_unreadable(store: LocalStore) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.manifest(PurePosixPath("alpha/tank/@s.zfs.zst"))


# --- what is listed ---------------------------------------------------------------------------------------------


def test_nothing_behind_a_symbolic_link_is_listed(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    (store.root / SENDER / "elsewhere").symlink_to(store.root / SENDER / "tank")
    assert [each.file for each in store.objects()] == [file]


def test_folder_that_cannot_be_read_is_an_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(store, "s1", 1)
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("tank"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        list(store.objects())


def test_file_that_is_open_is_read_though_it_is_removed(store: LocalStore) -> None:
    path = store.root / plant(store, "s1", 1)
    blob = LocalBlob(path)
    path.unlink()
    assert blob.read(0, 100) == b"no data"
    blob.close()


# --- removing ---------------------------------------------------------------------------------------------------


def left_by_a_kill(store: LocalStore, crasher: Crasher, at: int, call: str | None = None) -> PurePosixPath:
    """Store a stream, and kill its removal."""
    file = store_stream(store, SENDER, RAW)
    assert crasher.run("remove", store.root, str(file), at=at, call=call).killed
    return file


def test_kill_at_any_call_of_a_removal_leaves_what_the_next_start_completes(swift_path: Path, crasher: Crasher) -> None:
    seen = set()
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        files = [store_stream(store, sender, RAW) for sender in (SENDER, "beta")]
        outcome = crasher.run("remove", store.root, *map(str, files), at=at)
        assert outcome.call != "rename"
        seen.add(outcome.call)
        logged = log_of(store).exists()
        for file in files:
            there = names_beside(store, file)
            assert there in (WHOLE, {"", ".sha256"}, {""}, set())
            assert logged or there in (WHOLE, set())
        # What is amid its removal is no fault.
        assert read_catalogue(store).problems == []

        LocalStore(store.root).recover()

        assert check_listed(store) in (sorted(map(str, files)), [])
        assert not (logged and check_listed(store))
        assert {path.name for path in store.state.iterdir()} == {"lock"}
        there_now = everything(store.root)
        LocalStore(store.root).recover()
        assert everything(store.root) == there_now
        shutil.rmtree(store.root)
        if not outcome.killed:
            break
    assert outcome.told == tuple(map(str, files))
    assert {"unlink", "fsync", "replace"} <= seen


def test_power_cut_at_any_moment_of_a_removal_leaves_all_of_a_stream_or_what_the_next_start_removes(
    swift_path: Path,
) -> None:
    store = make_store(swift_path)
    file = store_stream(store, SENDER, RAW)
    found: list[LocalStore] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(8):
            found.append(LocalStore(swift_path / f"{disk.steps}.{draw}"))
            disk.leave(found[-1].root, seed=100 * disk.steps + draw if draw else None)

    with Disk(store.root, lights_out) as disk:
        assert store.remove(lambda: [file]) == [file]
        disk.step()
        disk.leave(swift_path / "left")
    for left in found:
        check_listed(left)
        left.recover()
        assert names_beside(left, file) in (WHOLE, set())
        assert not log_of(left).exists()
    assert names_beside(LocalStore(swift_path / "left"), file) == set()


def test_removal_that_was_cut_short_is_completed_by_the_next_removal(store: LocalStore, crasher: Crasher) -> None:
    file = left_by_a_kill(store, crasher, 2, "unlink")
    assert names_beside(store, file) == {"", ".sha256"}
    assert store.remove(list) == []
    assert names_beside(store, file) == set()


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_stream_that_is_stored_again_outlives_a_removal_that_was_cut_short(
    store: LocalStore, crasher: Crasher, at: int
) -> None:
    """A prune is killed beside a running daemon, which looks at the log at its next start only."""
    file = left_by_a_kill(store, crasher, at, "unlink")
    before = names_beside(store, file)
    if before == WHOLE:
        for path in (store.root / file, hash_path(store, file), manifest_path(store, file)):
            path.unlink()  # by hand
    elif before:
        with pytest.raises(StoreError, match="exists without its manifest"):
            store_stream(store, SENDER, RAW)
        return
    assert store_stream(store, SENDER, RAW) == file
    assert LocalStore(store.root).recover() == []
    assert check_listed(store) == [str(file)]


def test_commit_that_was_cut_short_outlives_a_removal_that_was(store: LocalStore, crasher: Crasher) -> None:
    file = PurePosixPath("alpha/tank/data/@now.1122334455667788.full.zfs.zst")
    crasher.run("push", store.root, at=3, call="rename")
    assert names_beside(store, file) == {"", ".sha256"}
    entry = {"file": str(file), "manifest": [1, 2, 3]}
    log_of(store).write_text(json.dumps({"format": 1, "streams": [entry]}), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fullsend_receiver.store.recovery.complete", refuse)
        store.recover()
    assert names_beside(store, file) == {"", ".sha256"}
    store.recover()
    assert check_listed(store) == [str(file)]


def refuse(*_arguments: object) -> bool:
    raise StoreError("not now")


def test_stream_whose_data_are_lost_is_removed(store: LocalStore, crasher: Crasher) -> None:
    for at in (1, 2, 3, 0):
        file = store_stream(store, SENDER, RAW)
        (store.root / file).unlink()
        crasher.run("remove", store.root, str(file), at=at, call="unlink")
        assert names_beside(store, file) == ({".json", ".sha256"}, {".json"}, set(), set())[at - 1]
        store.recover()
        assert names_beside(store, file) == set()
        assert not log_of(store).exists()


def test_what_has_no_manifest_is_not_removed(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    manifest_path(store, file).unlink()
    assert store.remove(lambda: [file]) == []
    assert names_beside(store, file) == {"", ".sha256"}


def test_log_with_keys_that_are_not_known_is_acted_upon(store: LocalStore, crasher: Crasher) -> None:
    file = left_by_a_kill(store, crasher, 1, "unlink")
    said = json.loads(log_of(store).read_bytes())
    said["later"] = 1
    said["streams"][0]["later"] = 1
    log_of(store).write_text(json.dumps(said), encoding="ascii")
    assert store.recover() == [f"{file}: its removal was interrupted and is complete now"]
    assert names_beside(store, file) == set()


@pytest.mark.parametrize(
    "said",
    [
        '{"format": 2, "streams": []}',
        "{}",
        "[]",
        "",
        '{"format": 1, "streams": [1]}',
        '{"format": 1, "streams": [{"file": "a", "manifest": "b"}]}',
    ],
)
def test_log_that_is_not_understood_stays_and_nothing_is_removed(
    store: LocalStore, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = plant(store, "s1", 1)
    log_of(store).write_text(said, encoding="ascii")
    with caplog.at_level(logging.ERROR):
        assert store.recover() == []
    assert "is not in the form that this version of fullsendd writes, so nothing is removed" in caplog.text
    with pytest.raises(StoreError, match="nothing is removed"):
        store.remove(lambda: [file])
    assert store.under_way() == set()
    assert log_of(store).read_text(encoding="ascii") == said
    assert names_beside(store, file) == WHOLE


def test_stream_whose_folder_somebody_has_removed_costs_the_removal_nothing(
    store: LocalStore, crasher: Crasher
) -> None:
    file = left_by_a_kill(store, crasher, 1, "unlink")
    shutil.rmtree(store.root / SENDER)
    assert store.recover() == []
    assert not log_of(store).exists()
    assert store.remove(lambda: [file]) == []


def test_crash_knows_the_calls_of_a_removal() -> None:
    assert {"unlink", "replace", "fsync"} <= set(crash.CALLS)
