from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.folders import DurableFolders, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_receiver.store.local import LocalStore


def test_folder_is_made_with_those_above_it(store: LocalStore) -> None:
    folder = store.root / "alpha" / "tank" / "data"
    make_folder(store, folder)
    make_folder(store, folder)
    assert folder.is_dir()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the folders that are synced."""
    found: list[str] = []

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_folders_are_synced_once_by_a_process_if_a_manifest_shows_that_they_are_durable(
    store: LocalStore, synced: list[str]
) -> None:
    folder = store.root / "alpha" / "tank"
    (folder / "child.json").mkdir(parents=True)
    durable = DurableFolders()
    for _ in range(2):  # no stream is stored: another process may just be making the folders
        durable.ensure(folder, store.root)
        assert synced == ["alpha", "store"]
        synced.clear()
    (folder / "@now.zfs.zst.json").touch()
    durable.ensure(folder, store.root)
    assert not synced
    DurableFolders().ensure(folder, store.root)  # another process: a person may have copied them here just now
    assert synced == ["alpha", "store"]


def test_folders_that_are_others_by_now_are_synced_again(store: LocalStore, synced: list[str]) -> None:
    folder = store.root / "alpha" / "tank"
    folder.mkdir(parents=True)
    (folder / "@now.zfs.zst.json").touch()
    durable = DurableFolders()
    durable.ensure(folder, store.root)
    shutil.copytree(folder.parent, store.root / "copy")
    folder.parent.rename(store.root / "old")
    (store.root / "copy").rename(folder.parent)
    synced.clear()
    durable.ensure(folder, store.root)
    assert synced == ["alpha", "store"]


def test_only_so_many_folders_are_remembered(store: LocalStore, synced: list[str]) -> None:
    durable = DurableFolders(most=2)
    folders = [store.root / "alpha" / name for name in "abc"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "@now.zfs.zst.json").touch()
        durable.ensure(folder, store.root)
    synced.clear()
    durable.ensure(folders[2], store.root)
    assert not synced
    durable.ensure(folders[0], store.root)
    assert synced


def test_folder_on_another_file_system_is_refused(store: LocalStore) -> None:
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == store.root.stat().st_dev:
            pytest.skip("the tests' own folder is on /dev/shm, too")
        (store.root / "alpha").symlink_to(elsewhere)
        with pytest.raises(StoreError, match="a store must be one file system"):
            make_folder(store, store.root / "alpha")
