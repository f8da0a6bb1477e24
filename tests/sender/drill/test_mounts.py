from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fullsend_sender.drill import mounts
from fullsend_sender.drill.mounts import CannotMount, mounted


def failure(folder: Path) -> str:
    """What is said of a snapshot that does not exist; its thread is gone afterwards."""

    def mount() -> str:
        with pytest.raises(CannotMount) as caught, mounted(["tank/none@none"]):
            pass
        return str(caught.value)

    with ThreadPoolExecutor(1) as thread:
        said = thread.submit(mount).result()
    assert list(folder.iterdir()) == []
    return said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mounts, "default_folder", lambda: str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_what_cannot_be_mounted_is_said_and_leaves_nothing(folder: Path) -> None:
    """Without root, or without ZFS: tests/zfs mounts for real."""
    before = os.readlink("/proc/self/ns/mnt")
    assert failure(folder).startswith(("a private mount namespace needs root", "mount tank/none@none: "))
    assert os.readlink("/proc/self/ns/mnt") == before


def test_a_program_that_is_missing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_enter_namespace", lambda _libc: None)
    monkeypatch.setattr(mounts, "search_path", lambda: "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert failure(folder) == "mount tank/none@none: No such file or directory"


def test_a_mount_that_did_nothing_is_no_mount(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two empty folders are equal."""
    program = folder.parent / "bin" / "mount"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setattr(mounts, "_enter_namespace", lambda _libc: None)
    monkeypatch.setattr(mounts, "search_path", lambda: str(program.parent))
    monkeypatch.setenv("PATH", str(program.parent))
    assert failure(folder) == "mount tank/none@none: nothing is mounted, although `mount` reports success"
