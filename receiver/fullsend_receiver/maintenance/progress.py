"""How far the daemon's own checks are, in memory: what is being read, how fast, and what is left.

The `scrub` thread says what it reads, and the event loop asks. Each value is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from fullsend_receiver.maintenance.schedule import Survey
from fullsend_receiver.maintenance.scrub import StreamCheck

#: Seconds of reading that tell a rate.
_LEAST: Final = 1.0
#: Seconds of reading after which older ones count half.
_OF_LATE: Final = 600.0


@dataclass(frozen=True, slots=True)
class ReadPlace:
    """The place of a check. `file`: the stream's `.zst`, relative to the store; `read_bytes`: how much was read of its
    `stored_bytes`; `asked_by`: the sender that waits for the result, None: the daemon checks by itself.
    """

    file: str
    read_bytes: int
    stored_bytes: int
    asked_by: str | None


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """What the last survey of the store has found, less what was checked since. `next_due`: when the next stream is
    due, seconds since the epoch, None: one is due, nothing is stored, or unknown.
    """

    streams: int
    stored_bytes: int
    due_streams: int
    due_bytes: int
    next_due: float | None

    @classmethod
    def of(cls, standing: Survey) -> WorkLeft:
        """Return what a survey has found."""
        numbers = (standing.streams, standing.stored_bytes, standing.due_streams, standing.due_bytes)
        return cls(*numbers, standing.next_due)

    def less(self, streams: int, stored_bytes: int) -> WorkLeft:
        """Return what is left after so many more were checked."""
        due_streams, due_bytes = max(0, self.due_streams - streams), max(0, self.due_bytes - stored_bytes)
        return WorkLeft(self.streams, self.stored_bytes, due_streams, due_bytes, self.next_due)


@dataclass(frozen=True, slots=True)
class ScrubState:
    """What the daemon's own checks do. `every`: seconds after which a stream is checked again, 0: never by itself;
    `limit`: bytes a second, 0: none. `left`: None: the store was not surveyed yet; without what was read of the stream
    that is being checked. `rate`: bytes a second of late, None: unknown. `stopped`: too much is damaged; `resumes`:
    after a read error nothing is read before that time, seconds since the epoch; `busy`: nothing is read because
    arriving streams need the disk.
    """

    every: float
    limit: int
    left: WorkLeft | None
    reading: ReadPlace | None
    rate: float | None
    stopped: bool
    resumes: float | None
    busy: bool


@dataclass(frozen=True, slots=True)
class _Begun:
    """A check in the `scrub` thread. `before`: bytes that were read when it began there, at `since` (seconds)."""

    check: StreamCheck
    stored_bytes: int
    asked_by: str | None
    before: int
    since: float


class ReadProgress:
    """The check in the `scrub` thread, and the rate of the daemon's own checks. One thread reads at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._begun: _Begun | None = None
        self._past = (0.0, 0.0)  # bytes and seconds of the daemon's own checks that have ended

    @contextlib.contextmanager
    def reading(self, check: StreamCheck, stored_bytes: int, asked_by: str | None = None) -> Iterator[None]:
        """Note, in the thread that runs a check, that it is running. `stored_bytes`: of the file; `asked_by`: the
        sender that waits for the result, None: the daemon checks by itself.
        """
        self._begun = begun = _Begun(check, stored_bytes, asked_by, check.reading.stored_bytes, self._clock())
        try:
            yield
        finally:
            read, seconds = self._sum(begun)
            self._past = (read / 2, seconds / 2) if seconds > _OF_LATE else (read, seconds)
            self._begun = None

    @property
    def place(self) -> ReadPlace | None:
        """The place of the check that is running; None: none is."""
        begun = self._begun
        if begun is None:
            return None
        read = min(begun.check.reading.stored_bytes, begun.stored_bytes)
        return ReadPlace(str(begun.check.file), read, begun.stored_bytes, begun.asked_by)

    @property
    def rate(self) -> float | None:
        """Bytes a second that the daemon's own checks have read of late; None: too few to tell."""
        read, seconds = self._sum(self._begun)
        return read / seconds if read and seconds >= _LEAST else None

    def _sum(self, begun: _Begun | None) -> tuple[float, float]:
        """Return bytes and seconds of the daemon's own checks, with the one that is running."""
        read, seconds = self._past
        if begun is None or begun.asked_by is not None:
            return read, seconds
        # A second pass over a file begins at its start again.
        return read + max(0, begun.check.reading.stored_bytes - begun.before), seconds + self._clock() - begun.since
