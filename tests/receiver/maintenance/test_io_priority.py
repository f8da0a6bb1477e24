from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from fullsend_receiver.maintenance.io_priority import set_idle

#: ioprio_get(2) on x86-64.
_GET = 252


def _class() -> int:
    return int(ctypes.CDLL(None).syscall(_GET, 1, 0)) >> 13


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of the system call is that of x86-64")
def test_only_the_thread_that_asks_is_idle() -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(set_idle, True).result()
        assert (thread.submit(_class).result(), _class()) == (3, 0)
        assert thread.submit(set_idle, False).result()
        assert thread.submit(_class).result() == 0


def test_on_an_unknown_machine_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    uname = os.uname_result(("Linux", "host", "6", "1", "vax"))
    monkeypatch.setattr(os, "uname", lambda: uname)
    assert not set_idle(True)
