"""The whole terminal, as a program in a real pty has it. `top` on it: tests/end_to_end/test_top.py."""

from __future__ import annotations

import io
import os
import pty
import sys
import termios

import pytest
from tests.terminal import Picture

from fullsend_cli import screen as module
from fullsend_cli.screen import Screen, has_screen, size_of


class Fake(io.StringIO):
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


@pytest.mark.parametrize(("term", "found"), [("xterm", True), ("dumb", False), (None, False)])
def test_what_has_a_screen(monkeypatch: pytest.MonkeyPatch, term: str | None, found: bool) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert has_screen(Fake()) is found
    assert not has_screen(io.StringIO())
    assert not has_screen(None)


def test_a_terminal_of_unknown_size_has_the_usual_one() -> None:
    assert size_of(io.StringIO()) == (80, 24)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert size_of(terminal) == (80, 24)  # a new pty has 0 columns and 0 lines
    os.close(master)


def test_a_picture_replaces_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with Screen() as screen:
        screen.draw(["a long line", "another", "a third"])
        screen.draw(["short", "lines"])
        picture = Picture()
        picture.write(out.getvalue().replace("\n", "\r\n"))
        assert (picture.lines, picture.alternate) == (["short", "lines"], True)
        screen.draw([str(number) for number in range(100)])
        before = out.getvalue()
    picture = Picture()
    picture.write(before.replace("\n", "\r\n"))
    assert picture.lines == [str(number) for number in range(24)]
    picture.write(out.getvalue()[len(before) :])
    assert not picture.alternate
    assert not picture.cursor_hidden


def test_an_error_restores_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with (
        os.fdopen(slave, "r+b", buffering=0) as raw,
        io.TextIOWrapper(raw, encoding="utf-8", write_through=True) as terminal,
    ):
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(slave)

        def fail() -> None:
            with Screen() as screen:
                assert not termios.tcgetattr(slave)[3] & termios.ECHO
                screen.draw([])
                os.write(master, b"xq")
                assert screen.wait(50)
                assert not screen.wait(0)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert termios.tcgetattr(slave) == before
    os.close(master)


def test_a_signal_ends_the_block() -> None:
    with pytest.raises(SystemExit) as end:
        module._end(15, None)
    assert end.value.code == 143
