"""The process that copies beside the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.daemon import copy_process
from fullsend_receiver.daemon.copy_process import CopyProcess
from fullsend_receiver.maintenance.copy_records import CopyRecord, change_record, read_record
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

ID: Final = "0f"
#: Seconds between two looks.
SOON: Final = 0.01


@dataclass
class Daemon:
    """What a daemon has for its copies. `looks`: how often it has looked at the time."""

    store: LocalStore
    settings: CopySettings
    thread: ThreadPoolExecutor
    log: pytest.LogCaptureFixture
    looks: int = 0
    now: float = 1_795_521_600.0  # 2026-11-24T12:00:00Z

    def clock(self) -> float:
        self.looks += 1
        return self.now

    def copies(self, script: str) -> CopyProcess:
        command = [sys.executable, "-uc", f"import os, sys, time\n{script}"]
        return CopyProcess(self.store, self.settings, command, self.thread, self.clock)

    async def until(self, text: str, count: int = 1) -> None:
        """Wait until the log has a text so often."""
        while self.log.text.count(text) < count:
            await asyncio.sleep(SOON)

    async def until_noted(self) -> CopyRecord:
        """Wait until a run has ended."""
        while (found := self.record()).ok is None:
            await asyncio.sleep(SOON)
        return found

    async def looks_again(self) -> None:
        """Wait until it has looked at the time some times more."""
        before = self.looks
        while self.looks < before + 9:
            await asyncio.sleep(SOON)

    def record(self) -> CopyRecord:
        return read_record(self.store.documents, ID)


@pytest.fixture
def daemon(store: LocalStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Daemon]:
    caplog.set_level(logging.INFO)
    file = tmp_path / "offsite.toml"
    file.write_text(f'store = "/offsite"\nstore-id = "{ID}"\n', encoding="utf-8")
    with ThreadPoolExecutor(1) as thread:
        yield Daemon(store, CopySettings(to=file, every=3600.0), thread, caplog)


def noting(store: LocalStore, **said: Any) -> str:
    """A script that notes a run."""
    usual = {"format": 1, "since": "2026-11-01T00:00:00Z"}
    path = str(store.state / f"copied.{ID}.json")
    return f"open({path!r}, 'w').write({json.dumps(usual | said)!r})"


@contextlib.asynccontextmanager
async def running(copies: CopyProcess) -> AsyncIterator[None]:
    task = asyncio.create_task(copies.run(SOON))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_it_runs_when_it_is_time_and_logs_what_is_said(daemon: Daemon) -> None:
    done = noting(daemon.store, began="2026-11-24T12:00:00Z", ended="2026-11-24T12:00:00Z", ok=True)
    async with running(daemon.copies(f"print('x: copied')\n{done}")):
        await daemon.until_noted()
        await daemon.looks_again()
        assert daemon.log.text.count("copy: x: copied") == 1
        daemon.now += 3600
        await daemon.until("copy: x: copied", 2)
    assert "has failed" not in daemon.log.text


async def test_run_that_notes_its_own_failure_is_left_as_it_is(daemon: Daemon) -> None:
    failed = noting(daemon.store, began="2026-11-24T12:00:00Z", ended="2026-11-24T12:00:00Z", ok=False, why="no room")
    async with running(daemon.copies(f"{failed}\nprint('bye')\nsys.exit(1)")):
        await daemon.until_noted()
        await daemon.looks_again()
    assert daemon.record().why == "no room"
    assert "has failed" not in daemon.log.text  # the process has said so


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("os.kill(os.getpid(), 9)", "its process was killed by signal 9"),
        ("print('one'); print('o.toml: no such file', file=sys.stderr); sys.exit(2)", "o.toml: no such file"),
        ("sys.exit(3)", "its process has ended with 3"),
    ],
)
async def test_process_that_notes_nothing_has_failed(daemon: Daemon, script: str, why: str) -> None:
    async with running(daemon.copies(script)):
        found = await daemon.until_noted()
        await daemon.until(f"copy: has failed: {why}")
        await daemon.looks_again()
        assert daemon.log.text.count("has failed") == 1
        daemon.now += 3600
        await daemon.until(f"copy: has failed: {why}", 2)
    assert (found.ok, found.why, found.has_ended) == (False, why, True)


async def test_run_that_was_killed_has_failed(daemon: Daemon) -> None:
    began = noting(daemon.store, began="2026-11-24T11:00:00Z")
    async with running(daemon.copies(f"{began}\nos.kill(os.getpid(), 9)")):
        found = await daemon.until_noted()
    assert (found.began, found.why) == ("2026-11-24T11:00:00Z", "its process was killed by signal 9")


async def test_host_that_copies_is_left_alone(daemon: Daemon) -> None:
    copies = daemon.copies("print('busy'); sys.exit(4)")
    async with running(copies):
        while copies._busy_until < time.monotonic() + 3000:
            await asyncio.sleep(SOON)
    assert daemon.log.text.count("copy: busy") == 1
    assert daemon.record().ok is None


@pytest.mark.parametrize("within", [30.0, SOON])
async def test_the_daemon_s_end_ends_it(daemon: Daemon, within: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_process, "_END_WITHIN", within)
    note = daemon.store.root / "pid"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if within == SOON else ""
    async with running(daemon.copies(f"{deaf}open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(1000)")):
        while not (note.exists() and note.read_text()):
            await asyncio.sleep(SOON)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_new_settings_end_it_and_begin_it_again(daemon: Daemon) -> None:
    copies = daemon.copies("print('copying'); time.sleep(1000)")
    async with running(copies):
        await daemon.until("copy: copying")
        copies.change(daemon.settings)
        assert "receiver.toml has changed" not in daemon.log.text
        copies.change(daemon.settings.model_copy(update={"bwlimit": 1 << 20}))
        await daemon.until("copy: copying", 2)
        copies.change(None)
        await daemon.until("copy: has failed: its process was killed by signal 15", 2)
    assert daemon.log.text.count("copy: copying") == 2


async def test_file_of_the_other_store_that_is_wrong_is_said_once(daemon: Daemon) -> None:
    daemon.settings.to.write_text("stoer = 1", encoding="utf-8")
    async with running(daemon.copies("")):
        await daemon.until("unknown key 'stoer'")
        await daemon.looks_again()
    assert daemon.log.text.count("has failed") == 1


async def test_program_that_is_missing_is_said_once(daemon: Daemon) -> None:
    async with running(CopyProcess(daemon.store, daemon.settings, ["/no/such"], daemon.thread, daemon.clock)):
        await daemon.until("copy: has failed: FileNotFoundError")
        await daemon.looks_again()
    assert daemon.log.text.count("has failed") == 1


async def test_without_a_command_nothing_runs(daemon: Daemon) -> None:
    async with running(CopyProcess(daemon.store, daemon.settings, (), daemon.thread, daemon.clock)):
        await asyncio.sleep(0)
    assert daemon.looks == 0


def test_nothing_is_due_without_the_table_or_while_the_store_is_away(daemon: Daemon) -> None:
    assert daemon.copies("")._look() == ID
    assert CopyProcess(daemon.store, None, ("x",), daemon.thread)._look() is None
    away = LocalStore(daemon.store.root, "another")
    assert CopyProcess(away, daemon.settings, ("x",), daemon.thread)._look() is None
    assert daemon.log.text == ""


def test_since_when_a_daily_copy_is_wanted_is_noted(daemon: Daemon) -> None:
    daemon.settings = CopySettings(to=daemon.settings.to)
    assert daemon.copies("")._look() is None
    assert daemon.record().since == "2026-11-24T12:00:00Z"
    began = {"began": "2026-11-20T12:00:00Z", "ended": "2026-11-20T13:00:00Z", "ok": True}
    change_record(daemon.store.documents, ID, lambda record: record.model_copy(update=began))
    assert daemon.copies("")._look() == ID
