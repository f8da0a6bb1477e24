"""What the kernel tells of the store's folders, and where it does not."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import logging
import os
import termios
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.catalogue import inotify
from fullsend_receiver.catalogue.inotify import ITSELF, Watch, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def folder(swift_path: Path) -> Path:
    """The folder `top` in a root of its own."""
    (swift_path / "top").mkdir()
    return swift_path / "top"


@pytest.fixture
def watch(folder: Path) -> Watch:
    watch = Watch(Watcher(folder.parent))
    assert watch.add("top", folder.stat().st_dev)
    return watch


def test_nothing_is_told_where_nothing_happens(watch: Watch, folder: Path) -> None:
    (folder.parent / "beside").touch()
    list(folder.iterdir())
    changes = watch.take()
    assert (changes.everything, changes.names) == (False, {})


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"more"),
        lambda path: os.truncate(path, 1),
        os.utime,
        lambda path: path.chmod(0o600),
        lambda path: path.unlink(),
        lambda path: path.rename(path.parent.parent / "away"),
        lambda path: (path.parent.parent / "other").rename(path),
    ],
)
def test_change_of_a_file_is_told_once(folder: Path, watch: Watch, change: Callable[[Path], object]) -> None:
    path = folder / "größe"
    path.write_bytes(b"some")
    (folder.parent / "other").touch()
    watch.take()
    change(path)
    changes = watch.take()
    assert (changes.everything, changes.names) == (False, {"top": {"größe"}})
    assert watch.take().names == {}


def test_new_file_and_new_folder_are_told(folder: Path, watch: Watch) -> None:
    (folder / "file").touch()
    (folder / "below").mkdir()
    os.chmod(folder / "below", 0o700)  # the folder tells it, if it is watched
    assert watch.take().names == {"top": {"file", "below"}}
    folder.chmod(0o700)
    assert watch.take().names == {"top": {ITSELF}}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "below").rmdir(),
        lambda folder: (folder / "below").rename(folder.parent / "away"),
        lambda folder: folder.rename(folder.parent / "away"),
    ],
)
def test_folder_that_goes_changes_everything(folder: Path, watch: Watch, change: Callable[[Path], object]) -> None:
    (folder / "below").mkdir()
    watch.take()
    change(folder)
    assert watch.take().everything
    assert not watch.take().everything


def test_each_is_told_of_its_own_folders(folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    watcher = Watcher(folder.parent)
    mine, theirs = Watch(watcher), Watch(watcher)
    device = folder.stat().st_dev
    assert mine.add("top", device)
    assert mine.add("top", device)
    assert theirs.add("other", device)
    assert not theirs.add("top", device)
    (folder / "a").touch()
    (other / "b").touch()
    assert theirs.take().names == {"other": {"b"}}
    assert mine.take().names == {"top": {"a"}}
    mine.begin()
    (folder / "c").touch()
    assert mine.take().names == {}
    assert theirs.add("top", device)


def test_end_of_many_watches_takes_no_more_than_the_kernel_keeps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells the end of each. With more folders than it keeps, each look at everything led to another one."""
    watcher = Watcher(folder.parent)
    mine, theirs = Watch(watcher), Watch(watcher)
    device = folder.stat().st_dev
    for number in range(2500):
        (folder / str(number)).mkdir()
        assert mine.add(f"top/{number}", device)
    assert theirs.add("top", device)
    queued = array("i", [0])
    most = 0
    remove = watcher._library.inotify_rm_watch

    def watched(descriptor: int, number: int) -> int:
        nonlocal most
        fcntl.ioctl(descriptor, termios.FIONREAD, queued)
        most = max(most, queued[0])
        return int(remove(descriptor, number))

    (folder / "file").touch()
    monkeypatch.setattr(watcher._library, "inotify_rm_watch", watched)
    mine.begin()
    assert 0 < most <= 1024 * 16  # bytes of an event without a name
    assert theirs.take().names == {"top": {"file"}}


def test_folder_that_is_not_there_is_not_watched(watch: Watch, folder: Path) -> None:
    assert not watch.add("missing", folder.stat().st_dev)
    (folder / "file").touch()
    assert not watch.add("top/file", folder.stat().st_dev)


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "9p", "cifs", "zfs", ""])
def test_file_system_that_changes_otherwise_is_not_watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(inotify, "file_system", lambda _path: kind)
    assert not Watch(Watcher(folder.parent)).add("top", folder.stat().st_dev)


def test_another_set_of_mounts_changes_everything(folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = watch._watcher
    monkeypatch.setattr(watcher._mounts, "changed", lambda: True)
    monkeypatch.setattr(inotify, "file_system", lambda _path: "nfs4")
    assert watch.take().everything
    # The device may be another one by now.
    assert not watch.add("top", folder.stat().st_dev)


def test_kernel_that_tells_nothing_is_named_and_no_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Library:
        """A C library whose kernel has no descriptor left."""

        def inotify_init1(self, _flags: int) -> int:
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_arguments, **_named: Library())
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EMFILE)
    watch = Watch(Watcher(folder.parent))
    assert not watch.add("top", folder.stat().st_dev)
    assert not watch.take().everything
    watch.begin()
    assert "each question examines it: Too many open files" in caplog.text


def test_too_many_folders_are_said_once(folder: Path, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    watcher = watch._watcher
    with caplog.at_level(logging.WARNING):
        for number in (errno.ENOENT, errno.ENOSPC, errno.ENOSPC):
            watcher._complain(number)
    assert caplog.text.count("fs.inotify.max_user_watches") == 1
    assert folder.is_dir()


def test_descriptors_are_closed_with_their_watcher(folder: Path) -> None:
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        watch = Watch(Watcher(folder.parent))
        watch.add("top", folder.stat().st_dev)
        assert len(os.listdir("/proc/self/fd")) == before + 2  # of inotify, and of the table of mounts
        del watch
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()
