"""One line on a terminal that shows how far something is; in a pipe or a file nothing.

Progress   counts, and makes the line; the caller passes the time
LiveLine   draws the line on a stream
showing    draws it at intervals, from a thread, for work that blocks
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TextIO

from fullsend_protocol.shared.stages import Recently, StageWaits, TransferCount
from fullsend_protocol.shared.units import format_duration, format_size, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

When = Literal["auto", "always", "never"]

#: Seconds over which the current rate is computed: a chunk is 4 MiB, and a slow connection needs a while for one.
_WINDOW: Final = 5.0
#: Seconds between two updates of the live line.
REDRAW: Final = 0.25
#: Moves the cursor to the start of the line, and clears the line.
CLEAR: Final = "\r\x1b[K"
#: Characters of a stream's name on the line, which has 80.
_LABEL: Final = 24


class Progress(TransferCount):
    """Counts what something has done, and makes the line. `done`: all of it is done; `waiting`: for a receiver that is
    away; `label`: what is being done, as the line says it, "": it does not; `stream`: DATASET@SNAPSHOT, "": not known;
    `names_limit`: whether the line names the stage that limits it.
    """

    def __init__(
        self,
        now: float,
        size: int | None = None,
        label: str = "",
        *,
        noun: str = "",
        waits: StageWaits | None = None,
        within: Progress | None = None,
    ) -> None:
        """`now`: seconds, of any monotonic clock; `size`: what is expected, None: unknown; `noun`: of what is counted,
        "" means bytes; `within`: counts the same, as one of several transfers.
        """
        super().__init__(now, size, waits)
        self.done = False
        self.label = label
        self.stream = ""
        self.names_limit = False
        self._waiting = False
        self._noun = noun
        self._within = within
        self._parts: list[StageWaits] = [] if waits is None else [waits]
        if within is not None:
            within.expect(size)
            within.measure(*self._parts)
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])
        self._recently = Recently(now)

    def restart(self, now: float) -> None:
        """Begin now; nothing was counted yet. What was waited for before counts no longer."""
        self.began = now
        self._samples = deque([(now, 0)])
        self._recently = Recently(now)
        if self.waits is not None:
            self.waits.restart()

    @property
    def waiting(self) -> bool:
        return self._waiting

    @waiting.setter
    def waiting(self, waiting: bool) -> None:
        self._waiting = waiting
        if self._within is not None:
            self._within.waiting = waiting

    def add(self, raw: int, wire: int) -> None:  # type: ignore[explicit-override]  # as below
        """Count a chunk."""
        super().add(raw, wire)
        if self._within is not None:
            self._within.add(raw, wire)

    def skip(self, raw: int) -> None:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
        """Count raw bytes that were there before, and take no time."""
        super().skip(raw)
        if self._within is not None:
            self._within.skip(raw)

    def expect(self, size: int | None) -> None:
        """Expect `size` more; None: unknown."""
        if size is not None:
            self.size = (self.size or 0) + size

    def measure(self, *waits: StageWaits) -> None:
        """Measure what another part of it waits for, too."""
        self._parts += waits

    def elapsed(self, now: float) -> float:
        """Return seconds since the start."""
        return now - self.began

    def waited(self) -> dict[str, float]:  # type: ignore[explicit-override]
        """Return the seconds waited for each stage; of several transfers, all of them together."""
        found: dict[str, float] = {}
        for waits in self._parts:
            for stage, seconds in waits.seconds().items():
                found[stage] = found.get(stage, 0.0) + seconds
        return found

    def fields(self, now: float, wall: float) -> list[str]:
        """Return the fields of the line, in order. `now`: as before; `wall`: seconds since the epoch."""
        self._samples.append((now, self.raw))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW:  # noqa: PLR2004 - two make a rate
            self._samples.popleft()
        then, before = self._samples[0]
        average = (self.raw - self.before) / self.elapsed(now) if self.elapsed(now) > 0 else 0.0
        current = (self.raw - before) / (now - then) if now > then else 0.0
        fields = [
            *([self.label] if self.label else []),
            self._amount(self.raw),
            format_duration(self.elapsed(now)),
            "[receiver away]" if self.waiting else f"[{self._rate(current)}]",
            f"[{self._rate(average)} avg]",
            *self._limit(now),
        ]
        if self.wire:
            fields.append(f"{self.raw / self.wire:.2f}x")
        if self.size:
            # It is an estimate: `zfs send -nP` is a little wrong, and --size may be.
            fields.append(f"{min(100 if self.done else 99, 100 * self.raw // self.size)}%")
            if average and self.raw < self.size:
                left = (self.size - self.raw) / average
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

    def _limit(self, now: float) -> list[str]:
        if not (self.names_limit and self._parts):
            return []
        self._recently.add(now, self.raw, self.waited())
        return [f"[limit: {self._recently.limit or 'unknown'}]"]

    def _amount(self, amount: int) -> str:
        return plural(amount, self._noun) if self._noun else format_size(amount)

    def _rate(self, rate: float) -> str:
        return f"{rate:.1f}/s" if self._noun else format_rate(rate)


def format_rate(rate: float) -> str:
    """Return bytes a second with three digits, so that the whole line fits into 80 columns: `201 MiB/s`."""
    number, unit = format_size(rate).split()
    return f"{float(number):.0f} {unit}/s" if len(number) > len("99.9") else f"{number} {unit}/s"


def short_label(name: str) -> str:
    """Return a stream's name for the line, safe for a terminal; of a long one the end."""
    safe = printable(name)
    return safe if len(safe) <= _LABEL else f"…{safe[1 - _LABEL :]}"


def is_live(stream: TextIO | None, when: When) -> bool:
    """Whether there is a line on this stream. `when`: "auto": on a terminal."""
    return stream is not None and (when == "always" or (when == "auto" and stream.isatty()))


class LiveLine:
    """Draws the line of a Progress. Thread-safe. `live`: whether there is one."""

    def __init__(self, stream: TextIO | None, when: When = "auto") -> None:
        self.live: Final = is_live(stream, when)
        self._stream = stream
        self._lock = threading.Lock()

    def draw(self, progress: Progress, *, end: str = "") -> None:
        """Draw the line anew. Raises: OSError if the terminal is lost."""
        if self.live and self._stream is not None:
            line = progress.line(time.monotonic(), time.time(), _columns(self._stream))
            with self._lock:
                self._write(f"{CLEAR}{line}{end}")

    def clear(self) -> None:
        """Clear the line. Raises: OSError."""
        if self.live:
            with self._lock:
                self._write(CLEAR)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for results: the line is cleared, and not drawn before the block is left."""
        with self._lock:
            if self.live:
                with contextlib.suppress(OSError):  # a lost terminal is not a failure of the work
                    self._write(CLEAR)
            yield

    def _write(self, text: str) -> None:
        assert self._stream is not None  # noqa: S101 - for mypy: otherwise it is not live
        self._stream.write(text)
        self._stream.flush()


@contextlib.contextmanager
def showing(progress: Progress, stream: TextIO | None, when: When = "auto") -> Iterator[LiveLine]:
    """Show the progress of work that blocks on `stream` (stderr), until the block is left; then the line is cleared."""
    line = LiveLine(stream, when)
    ended = threading.Event()

    def draw() -> None:
        with contextlib.suppress(OSError, ValueError):  # a lost or closed terminal is not a failure of the work
            while not ended.wait(REDRAW):
                line.draw(progress)

    thread = threading.Thread(target=draw, name="progress", daemon=True)
    if line.live:
        thread.start()
    try:
        yield line
    finally:
        ended.set()
        if line.live:
            thread.join()
            with contextlib.suppress(OSError, ValueError):
                line.clear()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
