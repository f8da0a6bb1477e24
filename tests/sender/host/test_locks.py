from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.host import locks

CHILD = """
import sys
from fullsend_sender.host.locks import locks
with locks(sys.argv[1], sys.argv[2]) as locked:
    print(locked.take(sys.argv[3]), flush=True)
    sys.stdin.read()
"""


def child(folder: Path, guid: str, receiver: str = "nas") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, receiver, str(folder), guid]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def took(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline().strip() == "True"


def test_of_two_processes_one_gets_it(tmp_path: Path) -> None:
    largest = str((1 << 64) - 1)
    with child(tmp_path / "new", largest) as first:
        assert took(first)
        with locks.locks("nas", str(tmp_path / "new")) as locked:
            assert not locked.take(largest)
            assert locked.take("5")
        with locks.locks("other", str(tmp_path / "new")) as locked:
            assert locked.take(largest)
        first.kill()  # however it ends, its locks end too
        first.wait()
        with child(tmp_path / "new", largest) as second:
            assert took(second)


def test_a_lock_is_shared_or_tried(tmp_path: Path) -> None:
    with locks.locks("nas", str(tmp_path)) as locked, child(tmp_path, "5") as other:
        assert took(other)
        assert not locked.is_free("5")
        assert locked.is_free("6")
        with child(tmp_path, "6") as third:  # to have tried it takes nothing
            assert took(third)
            third.kill()
            third.wait()
        for shared in (True, False):
            locked.wait_for("6", shared=shared)
            with child(tmp_path, "6") as third:
                assert not took(third)
                third.kill()
                third.wait()
        other.kill()
        other.wait()
        assert locked.is_free("5")


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be opened"), locks.locks("nas", str(tmp_path / "file")):
        pass


def test_a_folder_of_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match="belongs to another user"), locks.locks("nas", str(tmp_path)):
        pass


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert locks.default_folder() == "/run/fullsend"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):  # which a session has, and cron has not
        monkeypatch.setenv(variable, "/run/user/1000")
        assert locks.default_folder() == "/tmp/fullsend-1000"


def test_a_job_that_still_runs_has_an_exit_code_of_its_own() -> None:
    assert locks.AlreadyRunning("x").exit_code is Exit.RUNNING
