from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import time
from pathlib import Path

import pytest

from fullsend_cli.progress import CLEAR, Progress
from fullsend_protocol.shared.stages import StageWaits
from fullsend_sender.host.live import read_live
from fullsend_sender.transfer import progress as module
from fullsend_sender.transfer.progress import publishing, reporting

MIB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


async def test_live_line_is_drawn_and_stays_as_it_was_at_the_end() -> None:
    terminal = Terminal()
    progress = Progress(time.monotonic())
    async with reporting(progress, terminal, when="auto"):
        while "0 B" not in terminal.getvalue():
            await asyncio.sleep(0)
        progress.add(2048, 1024)
    *_before, last = terminal.getvalue().split("\r\x1b[K")
    assert re.fullmatch(r"2.0 KiB \d+:\d\d:\d\d \[.*B/s\] \[.*B/s avg\] 2.00x\n", last)


async def test_live_line_is_cleared_after_an_error() -> None:
    terminal = Terminal()
    with pytest.raises(ZeroDivisionError):
        async with reporting(Progress(time.monotonic()), terminal, when="auto"):
            raise ZeroDivisionError
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("when", ["never", "auto"])
async def test_off_a_terminal_there_is_silence(when: str) -> None:
    stream = io.StringIO()
    async with reporting(Progress(time.monotonic()), stream, when=when):  # type: ignore[arg-type]
        await asyncio.sleep(0)
    assert stream.getvalue() == ""


async def test_always_means_always_and_a_stream_that_breaks_breaks_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    async with reporting(Progress(time.monotonic()), stream, when="always"):
        await asyncio.sleep(0.01)
    with pytest.raises(BrokenPipeError):
        stream.close()


async def test_log_lines_off_a_terminal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "_LOG_EVERY", 0.001)
    caplog.set_level(logging.INFO, "fullsend.progress")
    progress = Progress(time.monotonic())
    progress.add(MIB, MIB)
    async with reporting(progress, io.StringIO(), when="auto"):
        while not caplog.records:
            await asyncio.sleep(0.001)
    assert "1.0 MiB" in caplog.records[0].getMessage()
    assert CLEAR not in caplog.records[0].getMessage()


async def test_a_transfer_is_published_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRITE_EVERY", 0.001)
    progress = Progress(time.monotonic(), 9, waits=StageWaits("source"))
    progress.stream = "tank/a@now"
    async with publishing(progress, "push", "nas", folder=str(tmp_path)):
        while not (found := list(read_live(str(tmp_path)))):
            await asyncio.sleep(0.001)
        assert [(each.activity, each.peer, each.what, each.away) for each in found] == [
            ("push", "nas", "tank/a@now", False)
        ]
        progress.waiting = True
        progress.add(5, 3)
        while not found or not found[0].away:
            found = list(read_live(str(tmp_path)))
            await asyncio.sleep(0.001)
        assert (found[0].raw_bytes, found[0].wire_bytes, set(found[0].waited)) == (5, 3, {"source"})
    assert os.listdir(tmp_path) == []


async def test_what_cannot_be_published_is_transferred_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WRITE_EVERY", 0.001)
    caplog.set_level(logging.DEBUG, "fullsend.progress")
    (tmp_path / "file").write_text("")
    async with publishing(Progress(time.monotonic()), "push", "nas", folder=str(tmp_path / "file" / "below")):
        while not caplog.records:
            await asyncio.sleep(0.001)
    assert "will not show this transfer" in caplog.text
