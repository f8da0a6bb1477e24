"""The progress of a transfer: one live line on a terminal, otherwise a log line every 10 s, or nothing.

`Progress` counts and computes; the caller passes the time. `reporting` has the clock and the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TextIO

from fullsend_protocol.shared.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_log: Final = logging.getLogger("fullsend.progress")

#: Seconds over which the current rate is computed: a chunk is 4 MiB, and a slow connection needs a while for one.
_WINDOW: Final = 5.0
#: Seconds between two updates of the live line, and between two log lines.
_REDRAW: Final = 0.25
_LOG_EVERY: Final = 10.0
#: Moves the cursor to the start of the line, and clears the line.
CLEAR: Final = "\r\x1b[K"


class Progress:
    """Counts the raw bytes of a transfer, and its bytes on the wire."""

    def __init__(self, now: float, size: int | None = None, label: str = "") -> None:
        """`now`: seconds, of any monotonic clock; `size`: expected raw bytes, if known; `label`: the stream's name."""
        self.raw = 0
        self.wire = 0
        self.done = False  # the receipt has arrived
        self.waiting = False  # for a receiver that is away
        self._size = size
        self._label = label
        self._started = now
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def add(self, raw: int, wire: int) -> None:
        """Count a chunk."""
        self.raw += raw
        self.wire += wire

    def expect(self, size: int | None) -> None:
        """Expect `size` more raw bytes; None: unknown."""
        if size is not None:
            self._size = (self._size or 0) + size

    def elapsed(self, now: float) -> float:
        """Return seconds since the start."""
        return now - self._started

    def fields(self, now: float, wall: float) -> list[str]:
        """Return the fields of the line, in order. `now`: as before; `wall`: seconds since the epoch."""
        self._samples.append((now, self.raw))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW:  # noqa: PLR2004 - two make a rate
            self._samples.popleft()
        then, before = self._samples[0]
        average = self.raw / self.elapsed(now) if self.elapsed(now) > 0 else 0.0
        current = (self.raw - before) / (now - then) if now > then else 0.0
        fields = [
            *([self._label] if self._label else []),
            format_size(self.raw),
            format_duration(self.elapsed(now)),
            "[receiver away]" if self.waiting else f"[{_rate(current)}]",
            f"[{_rate(average)} avg]",
        ]
        if self.wire:
            fields.append(f"{self.raw / self.wire:.2f}x")
        if self._size:
            # It is an estimate: `zfs send -nP` is a little wrong, and --size may be.
            fields.append(f"{min(100 if self.done else 99, 100 * self.raw // self._size)}%")
            if average and self.raw < self._size:
                left = (self._size - self.raw) / average
                end = time.strftime("%H:%M:%S", time.localtime(wall + left))
                fields.append(f"ETA {format_duration(left)} ({end})")
        return fields

    def line(self, now: float, wall: float, columns: int) -> str:
        """Return as many fields as fit into a line of `columns`, without the last column: there it would wrap."""
        line = ""
        for field in self.fields(now, wall):
            longer = f"{line} {field}" if line else field
            if len(longer) >= columns:
                break
            line = longer
        return line


@contextlib.asynccontextmanager
async def reporting(
    progress: Progress, stream: TextIO, *, when: Literal["auto", "always", "never"]
) -> AsyncGenerator[None]:
    """Show a transfer's progress on `stream` (stderr) until the block is left.

    `auto`: live on a terminal; otherwise log lines, which -v shows. The live line stays at the end; after an error it
    is cleared.
    """
    live = when == "always" or (when == "auto" and stream.isatty())
    if when == "never":
        yield
        return
    task = asyncio.create_task(_draw(progress, stream) if live else _note(progress), name="progress")
    last = ""
    try:
        yield
        last = f"{_picture(progress, stream)}\n"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if live:
            with contextlib.suppress(OSError):  # a lost terminal is not a failure of the transfer
                stream.write(last or CLEAR)
                stream.flush()


async def _draw(progress: Progress, stream: TextIO) -> None:
    while True:
        stream.write(_picture(progress, stream))
        stream.flush()
        await asyncio.sleep(_REDRAW)


def _picture(progress: Progress, stream: TextIO) -> str:
    """Return the present live line, after the text that clears the last one."""
    return CLEAR + progress.line(time.monotonic(), time.time(), _columns(stream))


async def _note(progress: Progress) -> None:
    while True:
        await asyncio.sleep(_LOG_EVERY)
        _log.info("%s", " ".join(progress.fields(time.monotonic(), time.time())))


def _rate(rate: float) -> str:
    """Return bytes a second with three digits, so that the whole line fits into 80 columns: `201 MiB/s`."""
    number, unit = format_size(rate).split()
    return f"{float(number):.0f} {unit}/s" if len(number) > len("99.9") else f"{number} {unit}/s"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
