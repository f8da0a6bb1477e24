"""The whole terminal for a picture that is drawn again and again: the alternate screen, keys without Enter.

However the block is left, also by SIGTERM, the terminal is as it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING, Final, Self

from fullsend_cli.output import writing_output
from fullsend_protocol.shared.columns import width_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType
    from typing import Any, TextIO

#: The alternate screen, without the cursor, and without wrapping; and back (xterm's control sequences).
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
#: Clears what is behind the cursor in its line; and on the whole screen.
_END_LINE: Final = "\x1b[K"
_END_SCREEN: Final = "\x1b[J"
#: Tenths of a second that a read waits for a key; the size of the terminal is compared as often.
_TICK: Final = 2
_QUIT: Final = frozenset(b"qQ")
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
#: termios: where the local modes and the special characters are.
_LFLAG: Final = 3
_CC: Final = 6


def has_screen(stream: TextIO | None) -> bool:
    """Whether this is a terminal with a screen."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def size_of(stream: TextIO) -> os.terminal_size:
    """Return columns and lines of a terminal."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return os.terminal_size((80, 24))
    # A terminal whose size nobody has set has 0.
    return os.terminal_size((found.columns or 80, found.lines or 24))


class Screen:
    """The terminal on stdout. Keys come from stdin, if that is a terminal, too; Ctrl-C is KeyboardInterrupt."""

    def __init__(self) -> None:
        """Changes nothing before the block is entered."""
        self._out = sys.stdout
        self._keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        self._modes: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._drawn = os.terminal_size((0, 0))

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, _end) for number in _ENDING}
        if self._keys >= 0:
            self._modes = termios.tcgetattr(self._keys)
            modes = termios.tcgetattr(self._keys)
            modes[_LFLAG] &= ~(termios.ECHO | termios.ICANON)
            modes[_CC][termios.VMIN], modes[_CC][termios.VTIME] = 0, _TICK
            # Ctrl-Z would leave the shell on the alternate screen.
            modes[_CC][termios.VSUSP] = b"\0"
            termios.tcsetattr(self._keys, termios.TCSADRAIN, modes)
        self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, termios.error):  # the terminal is gone
            if self._modes:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)
            self._out.write(_LEAVE)
            self._out.flush()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def size(self) -> os.terminal_size:
        """The present columns and lines."""
        return size_of(self._out)

    def draw(self, lines: Sequence[str]) -> None:
        """Draw a picture. `lines`: safe for a terminal; those that do not fit are left out. Raises: OutputFailed."""
        self._drawn = self.size
        shown = [f"{line}{_END_LINE}" for line in lines[: self._drawn.lines]]
        self._write(f"{_HOME}{chr(10).join(shown)}{_END_SCREEN}")

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the terminal has another size. Returns: whether the person wants to leave."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and self.size == self._drawn:
            if self._keys < 0:
                time.sleep(min(_TICK / 10, until - now))
                continue
            keys = os.read(self._keys, 64)
            if _QUIT.intersection(keys):
                return True
            if not keys and time.monotonic() - now < _TICK / 20:  # at its end, so that no read waits
                time.sleep(_TICK / 10)
        return False

    def _write(self, text: str) -> None:
        with writing_output():
            self._out.write(text)
            self._out.flush()


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave the block: the interpreter ends as if the signal had killed it."""
    raise SystemExit(128 + number)


def fit(text: str, columns: int) -> str:
    """Cut text to so many columns of a terminal; what is cut ends with `…`. `text`: safe for a terminal."""
    if width_of(text) <= columns:
        return text
    kept, used = "", 1  # the mark
    for character in text:
        used += width_of(character)
        if used > columns:
            break
        kept += character
    return f"{kept}…" if columns else ""
