from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from tests.receiver.helpers import (
    SENDER,
    long_stream,
    manifest_path,
    plant,
    read_manifest,
)

from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore

RAW = long_stream(1, tail=1)


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
