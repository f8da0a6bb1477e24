from __future__ import annotations

import os
from pathlib import Path

import pytest

from fullsend_sender.host import durable


def test_new_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "fullsend" / "sender.toml"
    durable.replace(str(path), "text\n")
    assert path.read_text() == "text\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["sender.toml"]


def test_mode_and_link_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "real.toml", tmp_path / "link.toml"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    durable.replace(str(link), "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sender.toml"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        durable.replace(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["sender.toml"]


def test_both_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    genuine = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.path.isdir(os.readlink(f"/proc/self/fd/{descriptor}")))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    durable.replace(str(tmp_path / "file"), "text")
    assert synced == [False, True]
