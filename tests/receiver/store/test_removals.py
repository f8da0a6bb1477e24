from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

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
    store_stream,
)
from tests.receiver.powercut import Disk

from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store import removals
from fullsend_receiver.store.api import TrashedStream
from fullsend_receiver.store.errors import StoreError, StoreFull
from fullsend_receiver.store.local import LocalStore

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
        assert {path.name for path in store.state.iterdir()} == {"lock", "removing.spare"}
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
    """A prune is killed beside a running daemon, which completes it for the next push that has a base."""
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


# --- a full disk --------------------------------------------------------------------------------------------------


class Full:
    """A disk without room: what is written must have its place already, and no file or folder can be made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        real = os.open

        def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & os.O_CREAT and not os.path.lexists(path):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return real(path, flags, *rest, **named)

        def making(path: Any, *_rest: Any, **_named: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr(os, "open", opening)
        patch.setattr(os, "mkdir", making)


def test_full_disk_is_no_obstacle_where_the_spare_file_was_made_before(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.recover()
    files = [store_stream(store, sender, RAW) for sender in (SENDER, "beta")]
    sizes = {path.name: path.stat().st_blocks for path in store.state.iterdir()}
    with monkeypatch.context() as patch:
        Full(patch)
        assert store.remove(lambda: files[:1]) == files[:1]
        assert store.remove(lambda: files[1:]) == files[1:]
    assert check_listed(store) == []
    assert {path.name: path.stat().st_blocks for path in store.state.iterdir()} == sizes


def test_full_disk_without_the_spare_file_is_said_and_removes_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_stream(store, SENDER, RAW)
    with monkeypatch.context() as patch:
        Full(patch)
        with pytest.raises(StoreFull, match=r"is full .* no room even for the log of a removal"):
            store.remove(lambda: [file])
        assert store.recover() == []
    assert check_listed(store) == [str(file)]
    assert not log_of(store).exists()
    assert store.remove(lambda: [file]) == [file]


def test_trash_on_a_full_disk_leaves_the_stream_and_the_next_removal_can_begin(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.recover()
    file = store_stream(store, SENDER, RAW)
    with monkeypatch.context() as patch:
        Full(patch)
        with pytest.raises(OSError, match="No space left"):
            store.remove(lambda: [file], trash="t")
        assert check_listed(store) == [str(file)]
        assert store.remove(lambda: [file]) == [file]


@pytest.mark.parametrize("fails", ["manifest", "hash", "data"])
def test_trash_that_has_no_room_for_another_name_gives_all_back(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A folder of the trash grows with its names, and the disk has no room for that."""
    store.recover()
    files = [store_stream(store, sender, RAW) for sender in (SENDER, "beta")]
    suffix = {"manifest": ".json", "hash": ".sha256", "data": ".zst"}[fails]
    real = os.replace

    def replacing(source: Any, target: Any) -> None:
        if str(target).endswith(suffix) and "/trash/t/beta/" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replacing)
        with pytest.raises(OSError, match="No space left"):
            store.remove(lambda: files, trash="t")
    assert check_listed(store) == sorted(map(str, files))
    assert not log_of(store).exists()
    assert list(store.trashed()) == []


def test_removal_that_a_file_resists_leaves_what_is_whole(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file is immutable (`chattr +i`): the other streams must not be doomed for as long as it is."""
    store.recover()
    files = [store_stream(store, sender, RAW) for sender in (SENDER, "beta", "gamma")]
    with monkeypatch.context() as patch:
        _resist(patch, manifest_path(store, files[1]))
        with pytest.raises(PermissionError):
            store.remove(lambda: files)
        assert store.under_way() == {files[0]}
        store.wait_for_removals()
        assert store.remove(lambda: files[2:]) == files[2:]
    assert check_listed(store) == [str(files[1])]
    assert f"{files[0]}: its removal was interrupted and is complete now" in caplog.text
    store.recover()
    assert check_listed(store) == [str(files[1])]


def test_removal_that_cannot_be_completed_is_an_error_for_who_needs_a_stream_of_it(
    store: LocalStore, crasher: Crasher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left_by_a_kill(store, crasher, 1, "unlink")
    with monkeypatch.context() as patch:

        def read_only(path: Any, *_arguments: Any, **_named: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        for name in ("unlink", "replace"):
            patch.setattr(os, name, read_only)
        with pytest.raises(OSError, match="Read-only"):
            store.wait_for_removals()
    store.wait_for_removals()
    assert check_listed(store) == []
    file = left_by_a_kill(store, crasher, 2, "unlink")
    with monkeypatch.context() as patch:
        _resist(patch, store.root / file)
        store.wait_for_removals()  # it is no stream any more
    assert "a removal was interrupted, and cannot be completed: " in caplog.text


def _resist(patch: pytest.MonkeyPatch, resisting: Path) -> None:
    """Have a file resist its removal."""
    real = os.unlink

    def unlink(path: Any, **named: Any) -> None:
        if os.fspath(path) == os.fspath(resisting):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        real(path, **named)

    patch.setattr(os, "unlink", unlink)


def test_log_has_as_many_streams_as_its_file_has_room_for(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "_SPARE_SIZE", 600)
    files = [plant(store, f"s{number}", number) for number in range(1, 8)]
    seen: list[int] = []
    real = removals._write

    def write(store: Any, said: Any) -> None:
        seen.append(len(said.entries))
        assert len(said.encode()) <= 600
        real(store, said)

    monkeypatch.setattr(removals, "_write", write)
    assert store.remove(lambda: files) == files
    assert sum(seen) == 7
    assert len(seen) > 2


# --- the trash ----------------------------------------------------------------------------------------------------


def in_trash(store: LocalStore) -> list[str]:
    """Check that what is in the trash is whole. Returns: its files."""
    found = []
    for each in store.trashed():
        path = store.trash_folder / each.folder / each.file
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        assert store.trashed_manifest(each).file_sha256 == sha256
        assert path.with_name(path.name + ".sha256").read_text(encoding="ascii") == f"{sha256}  {path.name}\n"
        assert each.size == path.stat().st_size
        found.append(str(each.file))
    return sorted(found)


def test_what_is_in_the_trash_is_not_stored_and_comes_back_as_it_was(store: LocalStore) -> None:
    file = store_stream(store, SENDER, RAW)
    before = {path: data for path, data in everything(store.root).items() if path.startswith(SENDER)}
    assert store.remove(lambda: [file], trash="t") == [file]
    catalogue = read_catalogue(store)
    assert (catalogue.streams, catalogue.problems, list(store.objects()), store.has(file)) == ([], [], [], False)
    assert in_trash(store) == [str(file)]
    assert store.trash_bytes() == sum(len(data) for data in before.values() if data)
    assert store.bring_back(lambda: list(store.trashed())) == [file]
    assert {path: data for path, data in everything(store.root).items() if path.startswith(SENDER)} == before
    assert check_listed(store) == [str(file)]
    assert list(store.trash_folder.iterdir()) == []
    assert store.bring_back(lambda: [TrashedStream("t", file, 1)]) == []


def test_stream_whose_name_is_taken_stays_in_the_trash(store: LocalStore) -> None:
    file = store_stream(store, SENDER, RAW)
    store.remove(lambda: [file], trash="t")
    store_stream(store, SENDER, RAW)
    there = store.stamp(file)
    assert store.bring_back(lambda: list(store.trashed())) == []
    assert store.stamp(file) == there
    assert in_trash(store) == [str(file)]
    assert not log_of(store).exists()
    # Nor does it take the place of a `.zst` without manifest, which may be the only copy.
    manifest_path(store, file).unlink()
    (store.root / file).write_bytes(b"another")
    assert store.bring_back(lambda: list(store.trashed())) == []
    assert (store.root / file).read_bytes() == b"another"
    assert in_trash(store) == [str(file)]


def test_stream_that_was_dropped_twice_is_in_the_trash_twice(store: LocalStore) -> None:
    for folder in ("a", "b"):
        file = store_stream(store, SENDER, RAW)
        store.remove(lambda: [file], trash=folder)  # noqa: B023 - called at once
    assert [each.folder for each in store.trashed()] == ["a", "b"]
    assert store.empty_trash(lambda folder: folder == "a") == ["a"]
    assert [each.folder for each in store.trashed()] == ["b"]
    assert store.empty_trash(lambda _folder: True) == ["b"]
    assert store.trash_bytes() == 0


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["to_trash", "back"])
def test_kill_at_any_call_of_the_trash_leaves_each_stream_in_one_place(
    swift_path: Path, crasher: Crasher, scenario: str
) -> None:
    seen: set[tuple[bool, bool]] = set()
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        files = [store_stream(store, sender, RAW) for sender in (SENDER, "beta")]
        if scenario == "back":
            store.remove(lambda: files, trash="t")  # noqa: B023 - called at once
        outcome = crasher.run(scenario, store.root, *map(str, files), at=at)
        logged = log_of(store).exists()
        for file in files:
            there = names_beside(store, file)
            assert logged or there in (WHOLE, set())
            assert ".json" not in there or there == WHOLE
        assert read_catalogue(store).problems == []

        LocalStore(store.root).recover()

        listed = check_listed(store)
        assert sorted([*listed, *in_trash(store)]) == sorted(map(str, files))
        assert listed in (sorted(map(str, files)), [])
        assert not log_of(store).exists()
        seen.add((logged, bool(listed)))
        shutil.rmtree(store.root)
        if not outcome.killed:
            break
    assert outcome.told == tuple(map(str, files))
    assert (True, scenario == "back") in seen
    assert (False, scenario != "back") in seen


def test_kill_at_any_call_of_emptying_the_trash_leaves_what_the_next_time_deletes(
    swift_path: Path, crasher: Crasher
) -> None:
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        file = store_stream(store, SENDER, RAW)
        store.remove(lambda: [file], trash="t")  # noqa: B023 - called at once
        outcome = crasher.run("empty", store.root, at=at)
        LocalStore(store.root).recover()
        store.empty_trash(lambda _folder: True)
        assert list(store.trash_folder.iterdir()) == []
        assert check_listed(store) == []
        shutil.rmtree(store.root)
        if not outcome.killed:
            break


@pytest.mark.parametrize("back", [False, True])
def test_power_cut_at_any_moment_of_the_trash_loses_no_stream(swift_path: Path, back: bool) -> None:
    store = make_store(swift_path)
    store.recover()
    file = store_stream(store, SENDER, RAW)
    if back:
        store.remove(lambda: [file], trash="t")
    found: list[LocalStore] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(8):
            found.append(LocalStore(swift_path / f"{disk.steps}.{draw}"))
            disk.leave(found[-1].root, seed=100 * disk.steps + draw if draw else None)

    with Disk(store.root, lights_out) as disk:
        if back:
            assert store.bring_back(lambda: list(store.trashed())) == [file]
        else:
            assert store.remove(lambda: [file], trash="t") == [file]
        disk.step()
    for left in found:
        check_listed(left)
        left.recover()
        assert [*check_listed(left), *in_trash(left)], left.root
        assert not log_of(left).exists()


def test_version_that_does_not_know_the_trash_deletes_nothing(store: LocalStore) -> None:
    """It knows format 1 alone, and leaves a log of another format."""
    file = store_stream(store, SENDER, RAW)
    said: list[int] = []
    real = removals._finish

    def finish(store: Any) -> Any:
        if log_of(store).exists():
            said.append(json.loads(log_of(store).read_bytes())["format"])
        return real(store)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removals, "_finish", finish)
        store.remove(lambda: [file], trash="t")
        store.bring_back(lambda: list(store.trashed()))
        store.remove(lambda: [file])
    assert said == [2, 2, 1]


@pytest.mark.parametrize("trash", ['""', '".."', '"a/b"', "1", "null"])
def test_log_that_leads_out_of_the_trash_is_not_acted_upon(store: LocalStore, trash: str) -> None:
    file = plant(store, "s1", 1)
    stamp = list(store.stamp(file) or ())
    entry = f'{{"file": "{file}", "manifest": {stamp}, "trash": {trash}}}'
    log_of(store).write_text(f'{{"format": 2, "back": false, "streams": [{entry}]}}', encoding="ascii")
    store.recover()
    assert names_beside(store, file) == WHOLE
    assert log_of(store).exists()
