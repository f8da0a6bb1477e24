from __future__ import annotations

import os
import sys

import pytest

from fullsend_cli.output import ResultOutput, flush_output, write_line
from fullsend_protocol.shared.errors import OutputFailed


def test_a_full_stdout_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8", buffering=4096) as full:
        monkeypatch.setattr(sys, "stdout", full)
        write_line("kept in the buffer")
        with pytest.raises(OutputFailed, match=r"^stdout cannot be written: No space left on device$"):
            flush_output()
        with pytest.raises(OutputFailed, match=r"^stdout cannot be written"):
            write_line("now", flush=True)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed


def test_a_closed_stdout_is_named_where_there_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    flush_output()
    with pytest.raises(OutputFailed, match=r"^stdout is closed"):
        write_line("x")


def test_a_reader_that_has_gone_is_no_failure_of_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8", buffering=4096) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(BrokenPipeError):
            write_line("x", flush=True)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())  # so that it can be closed


def test_a_line_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    write_line("x", flush=True)
    assert capsys.readouterr().out == "x\n"


def test_a_result_that_cannot_be_printed_is_told_at_the_end() -> None:
    shown: list[int] = []

    def show(number: int) -> None:
        if number:
            raise OutputFailed(f"no room for {number}")
        shown.append(number)

    output = ResultOutput(show)
    output(0)
    output.check()
    for number in (1, 2, 0):
        output(number)
    with pytest.raises(OutputFailed, match="for 1"):
        output.check()
    assert shown == [0, 0]
