from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import pytest

from fullsend_receiver.maintenance import time_sync
from fullsend_receiver.maintenance.time_sync import is_synchronised, kernel_status

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def timesync(tmp_path: Path) -> Path:
    """The folder of a systemd-timesyncd that runs."""
    folder = tmp_path / "timesync"
    folder.mkdir()
    return folder


def kernel_says(monkeypatch: pytest.MonkeyPatch, status: int | None) -> None:
    monkeypatch.setattr(time_sync, "kernel_status", lambda: status)


@pytest.mark.parametrize(("status", "said"), [(0x40, False), (0x2041, False), (0x2001, True), (0, True)])
def test_kernel_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, said: bool) -> None:
    kernel_says(monkeypatch, status)
    assert is_synchronised(tmp_path / "none") is said


@pytest.mark.parametrize("status", [None, 0x40])
def test_file_of_timesyncd_says_it_where_the_kernel_does_not(
    monkeypatch: pytest.MonkeyPatch, timesync: Path, status: int | None
) -> None:
    """The kernel forgets it when no server has answered for some hours."""
    kernel_says(monkeypatch, status)
    assert is_synchronised(timesync) is False
    (timesync / "synchronized").touch()
    assert is_synchronised(timesync) is True


def test_where_nobody_says_it_it_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel_says(monkeypatch, None)
    assert is_synchronised(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert is_synchronised(tmp_path / "file" / "below") is None


def test_kernel_of_this_host_is_asked_and_nothing_is_changed() -> None:
    """Its library calls agree: adjtimex, and ntp_adjtime, which is the same by another name."""
    status = kernel_status()
    state = time_sync._Timex()
    if ctypes.CDLL(None).ntp_adjtime(ctypes.byref(state)) < 0:
        assert status is None
    else:
        assert status == state.status


@pytest.mark.parametrize("failing", ["refused", "missing"])
def test_process_that_may_not_ask_knows_nothing(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    class Library:
        if failing == "refused":

            def adjtimex(self, _state: Any) -> int:
                return -1

    monkeypatch.setattr("fullsend_receiver.maintenance.time_sync.ctypes.CDLL", lambda _name: Library())
    assert kernel_status() is None
