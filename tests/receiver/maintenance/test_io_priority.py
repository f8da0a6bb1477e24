from __future__ import annotations

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from fullsend_receiver.maintenance.io_priority import set_idle, step_back

#: ioprio_get(2) on x86-64.
_GET = 252


def _class() -> int:
    return int(ctypes.CDLL(None).syscall(_GET, 1, 0)) >> 13


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of the system call is that of x86-64")
def test_only_the_thread_that_asks_is_idle() -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(set_idle, True).result()
        assert (thread.submit(_class).result(), _class()) == (3, 0)
        assert thread.submit(set_idle, False).result()
        assert thread.submit(_class).result() == 0


def test_only_the_thread_that_steps_back_has_the_lowest_priority() -> None:
    before = _niceness()
    with ThreadPoolExecutor(1, initializer=step_back) as thread:
        assert (thread.submit(_niceness).result(), _niceness()) == (19, before)


def test_stepping_back_does_not_fail_for_a_process_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    step_back(process.pid)


def test_on_an_unknown_machine_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    uname = os.uname_result(("Linux", "host", "6", "1", "vax"))
    monkeypatch.setattr(os, "uname", lambda: uname)
    assert not set_idle(True)
