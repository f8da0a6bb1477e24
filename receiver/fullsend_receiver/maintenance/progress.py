"""How far the daemon's own checks are, in memory: what is being read, how fast, and what is left.

The `scrub` thread says what it reads, and the event loop asks. Each value is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire.live import Activity, LiveTransfer
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
    """A check in the `scrub` thread. `before`: bytes that were read when it began there, at `since` (seconds);
    `waited`: seconds by stage until then; `number`: tells it from others.
    """

    check: StreamCheck
    stored_bytes: int
    asked_by: str | None
    what: str
    before: int
    since: float
    waited: Mapping[str, float]
    number: int


class ReadProgress:
    """The check in the `scrub` thread, and the rate of the daemon's own checks. One thread reads at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._begun: _Begun | None = None
        self._numbers = itertools.count(1)
        self._past = (0.0, 0.0)  # bytes and seconds of the daemon's own checks that have ended
        self._at = 0  # of the file, up to where its bytes are counted
        self.read_bytes = 0  # stored bytes that were read since the start, for the callers that have asked

    @contextlib.contextmanager
    def reading(
        self, check: StreamCheck, stored_bytes: int, asked_by: str | None = None, *, what: str = ""
    ) -> Iterator[None]:
        """Note, in the thread that runs a check, that it is running. `stored_bytes`: of the file; `asked_by`: the
        sender that waits for the result, None: the daemon checks by itself; `what`: DATASET@SNAPSHOT.
        """
        self._at = check.reading.stored_bytes
        check.waits.head("disk")
        self._begun = begun = _Begun(
            *(check, stored_bytes, asked_by, what, self._at, self._clock()),
            *(check.waits.seconds(), next(self._numbers)),
        )
        try:
            yield
        finally:
            self.count()
            read, seconds = self._sum(begun)
            self._past = (read / 2, seconds / 2) if seconds > _OF_LATE else (read, seconds)
            self._begun = None

    def count(self) -> None:
        """Count what was read since the last call, in the thread that runs a check."""
        if self._begun is not None:
            here = self._begun.check.reading.stored_bytes
            self.read_bytes += here - self._at if here >= self._at else here  # a second pass begins at its start again
            self._at = here

    @property
    def place(self) -> ReadPlace | None:
        """The place of the check that is running; None: none is."""
        begun = self._begun
        if begun is None:
            return None
        read = min(begun.check.reading.stored_bytes, begun.stored_bytes)
        return ReadPlace(str(begun.check.file), read, begun.stored_bytes, begun.asked_by)

    @property
    def live(self) -> LiveTransfer | None:
        """The check that is running, for `top`: its bytes are stored ones. None: none is."""
        begun = self._begun
        if begun is None:
            return None
        count = TransferCount(begun.since, begun.stored_bytes)
        # A second pass over a file begins at its start again.
        count.raw = count.wire = min(begun.check.reading.stored_bytes, begun.stored_bytes)
        count.before = min(begun.before, count.raw)
        activity: Activity = "scrub" if begun.asked_by is None else "verify"
        number, sender = f"{os.getpid()}.check.{begun.number}", begun.check.file.parts[0]
        live = LiveTransfer.of(number, activity, sender, begun.what or str(begun.check.file), count, self._clock())
        waited = begun.check.waits.seconds()
        return live.model_copy(
            update={"waited": {stage: max(0.0, waited[stage] - begun.waited.get(stage, 0.0)) for stage in waited}}
        )

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
