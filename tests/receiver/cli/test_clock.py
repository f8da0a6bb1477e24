"""`fullsendd clock`; what a prune makes of it is in test_prune.py."""

from __future__ import annotations

import time
from pathlib import PurePosixPath

import pytest
from tests.receiver.running import Receiver

DAY = 86400.0


def test_clock_that_jumps_is_shown_and_accepted(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _full, _incr = filled
    assert receiver.fullsendd("clock").stdout.startswith("ok       clock ")
    assert receiver.fullsendd("clock", "--accept").returncode == 0
    now = time.time()
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.time.time", lambda: now + 10 * DAY)
    done = receiver.fullsendd("clock")
    assert done.returncode == 1
    assert "problem  the clock says " in done.stdout
    assert "has jumped ahead" in done.stdout
    assert receiver.fullsendd("clock", "--accept").returncode == 0
    assert receiver.fullsendd("clock").returncode == 0


def test_clock_that_no_time_server_has_set_is_a_warning(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _full, _incr = filled
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.is_synchronised", lambda: False)
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.SYNC_WAIT", float("inf"))
    done = receiver.fullsendd("clock")
    assert done.returncode == 0
    ok, warning = done.stdout.splitlines()
    assert ok.startswith("ok       clock ")
    assert warning.startswith("warning  no time server has set the clock since this host's start, and it says 2")
    assert warning.endswith(": the daily prune waits")
    assert len(receiver.fullsendd("clock", "--accept").stdout.splitlines()) == 1
