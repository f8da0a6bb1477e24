"""A terminal for tests: a program runs in a real pty, and what it writes becomes what a person would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tests.programs import PATIENCE, environment

#: Becomes a program whose controlling terminal is that of its stderr, so that Ctrl-C reaches it. Not a `preexec_fn`:
#: between fork and exec, Python may wait for ever for a lock of a thread that the fork does not have.
_WITH_TERMINAL: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
#: Control sequences (ECMA-48): parameters, and the final character.
_SEQUENCE: Final = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Picture:
    """What is on the screen. Knows what fullsend writes, and fails at anything else."""

    def __init__(self) -> None:
        self.alternate = self.cursor_hidden = False
        self.colours: set[str] = set()
        self.raw = ""
        self._screens: dict[bool, list[str]] = {False: [""], True: [""]}
        self._line = self._column = 0
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        """The lines of the present screen, without spaces at their ends."""
        return [line.rstrip() for line in self._screens[self.alternate]]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def write(self, text: str) -> None:
        """A program has written this."""
        self.raw += text
        text, self._rest = self._rest + text, ""
        while text:
            if text[0] == "\x1b":
                match = _SEQUENCE.match(text)
                if match is None:
                    assert len(text) < 16, f"no control sequence that is known here: {text[:16]!r}"
                    self._rest = text
                    return
                self._control(match[1], match[2])
                text = text[match.end() :]
                continue
            self._character(text[0])
            text = text[1:]

    def _character(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._line += 1
        else:
            assert character.isprintable(), f"{character!r} reached the terminal"
            self._put(self._now.ljust(self._column)[: self._column] + character + self._now[self._column + 1 :])
            self._column += 1

    @property
    def _now(self) -> str:
        screen = self._screens[self.alternate]
        screen += [""] * (self._line + 1 - len(screen))
        return screen[self._line]

    def _put(self, line: str) -> None:
        assert self._now is not None
        self._screens[self.alternate][self._line] = line

    def _control(self, parameters: str, final: str) -> None:
        match parameters, final:
            case "?1049", "h" | "l":
                self.alternate = final == "h"
                self._line = self._column = 0
            case "?25", "h" | "l":
                self.cursor_hidden = final == "l"
            case "?7", "h" | "l":
                pass
            case "", "H":
                self._line = self._column = 0
            case "", "K":
                self._put(self._now[: self._column])
            case "", "J":
                self._put(self._now[: self._column])
                del self._screens[self.alternate][self._line + 1 :]
            case _, "m":
                self.colours.add(parameters)
            case _:
                raise AssertionError(f"unexpected control sequence {parameters!r} {final!r}")


class Running:
    """A program in a pty. `picture`: what it shows; `process`: it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, modes: list[Any]) -> None:
        self.picture = Picture()
        self.process = process
        self.master = master
        self.modes: Final = modes  # of the terminal before it began

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def see(self, condition: Callable[[Picture], bool], what: str = "") -> Picture:
        """Wait until the picture is like this."""
        until = time.monotonic() + PATIENCE
        while not condition(self.picture):
            assert time.monotonic() < until, f"not seen: {what}\n{self.picture.text}"
            if not self._take(0.05) and self.process.poll() is not None and not self._take(0.05):
                assert condition(self.picture), f"it has ended: {what}\n{self.picture.text}"
        return self.picture

    def wait(self) -> int:
        """Read to the end. Returns: the exit code."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it does not end\n{self.picture.text}"
            self._take(0.05)
        while self._take(0.05):
            pass
        return self.process.wait()

    def _take(self, seconds: float) -> bool:
        """Take what it writes within so many seconds. Returns: whether there was something."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.picture.write(data.decode(errors="replace"))
        return bool(data)


@contextlib.contextmanager
def terminal(
    module: str,
    *arguments: str,
    program: str = "",
    env: Mapping[str, str],
    columns: int = 100,
    lines: int = 24,
    stdin: bool = True,
    stdout: bool = True,
) -> Iterator[Running]:
    """Run `python -m MODULE ARGUMENTS` in a pty. `program`: Python text to run before it; `stdin`, `stdout`: whether
    they are the terminal, as stderr always is; otherwise /dev/null.
    """
    begin = ["-c", f"{program}\nfrom {module}.cli.main import main\nimport sys\nsys.exit(main())"] if program else []
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    modes = termios.tcgetattr(master)
    try:
        with open(os.devnull, "r+b") as nothing:
            process = subprocess.Popen(
                [*(sys.executable, "-S", "-c", _WITH_TERMINAL), sys.executable, *(begin or ["-m", module]), *arguments],
                stdin=slave if stdin else nothing,
                stdout=slave if stdout else nothing,
                stderr=slave,
                env=environment(**{"TERM": "xterm-256color", **env}),
                start_new_session=True,
            )
        running = Running(process, master, modes)
        try:
            yield running
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(slave)
        os.close(master)
