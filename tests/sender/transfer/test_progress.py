from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import time

import pytest

from fullsend_sender.transfer import progress as module
from fullsend_sender.transfer.progress import CLEAR, Progress, reporting

GIB = 1 << 30
MIB = 1 << 20
NOON = 1_795_417_089.0


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_everything_there_is_to_say_fits_into_80_columns() -> None:
    progress = Progress(100.0, size=200 * GIB)
    for second in range(1, 64):
        progress.add(200 * MIB, 83 * MIB)
        progress.fields(100.0 + second, NOON)
    line = progress.line(163.0, NOON, 80)
    end = time.strftime("%H:%M:%S", time.gmtime(NOON + (200 * GIB - 63 * 200 * MIB) / (200 * MIB)))
    assert line == f"12.3 GiB 0:01:03 [200 MiB/s] [200 MiB/s avg] 2.41x 6% ETA 0:16:01 ({end})"
    assert len(line) < 80


def test_a_receiver_that_is_away_is_said_instead_of_the_rate() -> None:
    progress = Progress(0.0)
    progress.add(MIB, MIB)
    progress.waiting = True
    assert progress.fields(1.0, NOON)[2:4] == ["[receiver away]", "[1.0 MiB/s avg]"]
    progress.waiting = False
    assert progress.fields(1.0, NOON)[2] == "[1.0 MiB/s]"


def test_what_is_not_sent_again_counts_as_done() -> None:
    progress = Progress(0.0, size=4 * MIB)
    progress.add(2 * MIB, 0)
    assert progress.fields(1.0, NOON)[4].startswith("50%")
    assert not any(field.endswith("x") for field in progress.fields(1.0, NOON))  # no ratio of nothing


def test_a_narrow_terminal_gets_whole_fields_only() -> None:
    progress = Progress(0.0)
    progress.add(MIB, MIB)
    assert progress.line(1.0, NOON, 30) == "1.0 MiB 0:00:01 [1.0 MiB/s]"
    assert progress.line(1.0, NOON, 27) == "1.0 MiB 0:00:01"
    assert progress.line(1.0, NOON, 3) == ""


def test_nothing_yet() -> None:
    assert Progress(5.0).line(5.0, NOON, 80) == "0 B 0:00:00 [0 B/s] [0 B/s avg]"


def test_current_rate_is_that_of_the_last_seconds() -> None:
    progress = Progress(0.0)
    progress.add(100 * MIB, 100 * MIB)
    progress.fields(10.0, NOON)
    for second in range(11, 21):
        progress.add(MIB, MIB)
        fields = progress.fields(float(second), NOON)
    assert fields[2:4] == ["[1.0 MiB/s]", "[5.5 MiB/s avg]"]


def test_an_estimate_that_was_too_low_ends_in_neither_more_than_all_nor_a_negative_time() -> None:
    progress = Progress(0.0, size=MIB)
    progress.add(2 * MIB, MIB)
    assert progress.fields(1.0, NOON)[4:] == ["2.00x", "99%"]


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


def test_it_is_all_there_only_when_the_receipt_has_come() -> None:
    progress = Progress(0.0, size=100)
    progress.add(100, 50)
    assert "99%" in progress.line(1.0, 0.0, 200)
    progress.done = True
    assert "100%" in progress.line(1.0, 0.0, 200)


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
