from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.powercut import Disk

from fullsend_receiver.store import durable
from fullsend_receiver.store.durable import (
    ABSENT,
    locked,
    make_folders,
    replace_file,
    signature,
    sync_folder,
    sync_folders,
    write_all,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def after_power_cut(root: Path, work: Callable[[], None]) -> Path:
    """Do some work in a folder and cut the power right afterwards. Returns: a folder with what is sure to be left."""
    left = root.with_name(f"{root.name} after the power cut")
    with Disk(root, lambda _disk: None) as disk:
        work()
        disk.leave(left)
    return left


# --- writing ----------------------------------------------------------------------------------------------------


def test_all_is_written_however_little_the_kernel_takes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), bytes(range(100)))
        write_all(file.fileno(), memoryview(bytearray(b"a view")))
        write_all(file.fileno(), b"")
    assert (tmp_path / "file").read_bytes() == bytes(range(100)) + b"a view"


def test_written_file_has_its_mode_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"longer than the next")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_file(path, b"next", 0o640)
    assert path.read_bytes() == b"next"
    write_file(tmp_path / "other", b"", 0o640)
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o640


def test_written_bytes_survive_a_power_cut_once_the_name_is_synced(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()

    def work() -> None:
        write_file(root / "file", b"content")
        sync_folder(root)

    assert (after_power_cut(root, work) / "file").read_bytes() == b"content"


def test_signature_tells_a_file_from_the_one_that_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert signature(path) == ABSENT
    replace_file(path, b"one")
    first = signature(path)
    assert signature(path) == first != ABSENT
    replace_file(path, b"two")
    assert signature(path) != first


def test_replaced_file_survives_a_power_cut(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"old")
    left = after_power_cut(root, lambda: replace_file(root / "file", b"new"))
    assert [(path.name, path.read_bytes()) for path in left.iterdir()] == [("file", b"new")]


def test_file_that_is_being_replaced_is_the_old_one_or_the_new_one_at_any_power_cut(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"the old one")
    found = []

    def lights_out(disk: Disk) -> None:
        for seed in range(20):
            left = tmp_path / f"{disk.steps}.{seed}"
            disk.leave(left, seed=seed)
            found.append((left / "file").read_bytes())

    with Disk(root, lights_out) as disk:
        replace_file(root / "file", b"the new one, which is longer")
        disk.step()
    assert set(found) == {b"the old one", b"the new one, which is longer"}


def test_file_that_need_not_be_durable_is_replaced_without_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(_descriptor: int) -> None:
        pytest.fail("a sync")

    monkeypatch.setattr(os, "fsync", sync)
    replace_file(tmp_path / "file", b"new", durable=False)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_new_file_is_written_beside_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "beside"):
        (tmp_path / name).mkdir()
    seen: list[Path] = []
    real = durable.write_file

    def watched(path: Path, data: bytes, mode: int = 0o600, **named: Any) -> None:
        seen.append(path)
        real(path, data, mode, **named)

    monkeypatch.setattr(durable, "write_file", watched)
    replace_file(tmp_path / "here" / "file", b"new", beside=tmp_path / "beside")
    assert [path.parent.name for path in seen] == ["beside"]
    assert (tmp_path / "here" / "file").read_bytes() == b"new"
    assert not list((tmp_path / "beside").iterdir())


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_replacing_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fail(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "file", b"new")
    monkeypatch.undo()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


# --- folders ----------------------------------------------------------------------------------------------------


def test_folders_that_were_made_survive_a_power_cut(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "there").mkdir(parents=True)
    left = after_power_cut(root, lambda: make_folders(root / "there" / "a" / "b" / "c"))
    assert (left / "there" / "a" / "b" / "c").is_dir()


def test_made_folders_have_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    make_folders(tmp_path / "a" / "b", 0o700)
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_folder_that_is_there_may_be_made_again(tmp_path: Path) -> None:
    make_folders(tmp_path / "a")
    (tmp_path / "a" / "file").touch()
    make_folders(tmp_path / "a")
    assert (tmp_path / "a" / "file").exists()


def test_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        make_folders(tmp_path / "file" / "folder")


def test_folders_that_somebody_else_made_are_made_durable_to_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()

    def work() -> None:
        (root / "a" / "b" / "c").mkdir(parents=True)
        sync_folders(root / "a" / "b" / "c", root)

    assert (after_power_cut(root, work) / "a" / "b" / "c").is_dir()


def test_nothing_above_the_root_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    sync_folders(tmp_path / "root" / "a", tmp_path / "root")
    assert synced == [tmp_path / "root"]


# --- the lock ---------------------------------------------------------------------------------------------------


#: Takes the lock, says so, and holds it until its stdin ends.
HOLDER = """
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from fullsend_receiver.store.durable import locked

with locked(Path(sys.argv[1])):
    print("taken", flush=True)
    sys.stdin.read()
"""
#: Exits 0 where it gets the lock at once, 1 where somebody holds it.
TRIER = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        yield process


def is_free(path: Path) -> bool:
    return subprocess.run([sys.executable, "-c", TRIER, path], capture_output=True, check=False).returncode == 0


def test_lock_keeps_other_processes_out_until_it_is_left(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path):
        assert not is_free(path)
    with locked(path):
        assert not is_free(path)
    assert is_free(path)


def test_lock_waits_for_its_holder(tmp_path: Path) -> None:
    taken = threading.Event()

    def take() -> None:
        with locked(tmp_path / "lock"):
            taken.set()

    with holding(tmp_path / "lock") as holder:
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.is_set()
        holder.communicate()
        thread.join()
    assert taken.is_set()


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with holding(tmp_path / "lock") as holder:
        holder.kill()
    assert is_free(tmp_path / "lock")


def test_lock_is_left_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        raise RuntimeError
    with locked(tmp_path / "lock"):
        pass


def test_lock_on_a_read_only_file_system_is_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OSError, match="Read-only file system"):
        durable.open_lock(lock)
    lock.touch()
    with locked(lock):
        pass
    with durable.locked_now(lock, read_only=True) as first, durable.locked_now(lock, read_only=True) as second:
        assert (first, second) == (True, False)
    with pytest.raises(OSError, match="Read-only file system"), durable.locked_now(lock):
        pass


def test_error_of_a_replacement_names_the_file_and_not_its_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        durable.replace_file(tmp_path / "file", b"new")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "file"), None)
    assert str(caught.value).endswith("'")  # not: -> None
    assert list(tmp_path.iterdir()) == []


def test_lines_are_appended_behind_one_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert durable.append_lines(path, b"one\n") == (0, b"one\n")
    assert durable.append_lines(path, b"two\n", durable=False) == (4, b"two\n")
    path.write_bytes(b"one\ntw")
    assert durable.append_lines(path, b"three\n") == (6, b"\nthree\n")
    assert path.read_bytes() == b"one\ntw\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_sizes_and_folders_of_what_is_missing_are_none(tmp_path: Path) -> None:
    assert durable.size_of(tmp_path / "missing") == 0
    assert list(durable.folders_below(tmp_path / "missing")) == []
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"123")
    assert durable.size_of(tmp_path / "a" / "b" / "file") == 3
    found = dict(durable.folders_below(tmp_path))
    assert found == {tmp_path: [], tmp_path / "a": [], tmp_path / "a" / "b": ["file"]}
    with pytest.raises(NotADirectoryError):
        list(durable.folders_below(tmp_path / "a" / "b" / "file"))
