"""The daemon's own checks of stored streams, beside all other work, one at a time, in a thread of its own.

Each stream is checked every `scrub-every`, the one with the oldest check first (schedule.py). A stream that arrived in
several segments has a hash for each, and none of the whole stream. So it is read as soon as it is stored, before all
others; `list` and `show` have that SHA-256 from then on.

A check that a sender asks for goes first: the daemon's own one stops between two chunks, and continues afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from fullsend_protocol.shared.units import format_duration, format_time, plural
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import StoredStream
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import ScrubFinished, ScrubStopped
from fullsend_receiver.maintenance import checkpoints
from fullsend_receiver.maintenance.check_events import CheckCounts, report_check
from fullsend_receiver.maintenance.io_priority import set_idle
from fullsend_receiver.maintenance.pace import Pace
from fullsend_receiver.maintenance.progress import ReadPlace, ReadProgress, ScrubState, WorkLeft
from fullsend_receiver.maintenance.schedule import DUE_MAX, Due, Survey, is_too_early
from fullsend_receiver.maintenance.scrub import StreamCheck
from fullsend_receiver.maintenance.verify import Checked, Removed, Subject, Verifier
from fullsend_receiver.store.workers import Workers, run

log: Final = logging.getLogger("fullsendd")

#: Seconds between two surveys of the whole store, and while the scrub has stopped: a person may have asked for a check.
_SURVEY_EVERY: Final = 3600.0
_SURVEY_STOPPED: Final = 600.0
#: Seconds between two surveys where streams are checked all the time.
_SURVEY_LEAST: Final = 1.0
#: Seconds between two records of the place that a check has reached.
_CHECKPOINT_EVERY: Final = 60.0
#: Seconds without a check after a read error: at first, and at most. Each further one doubles them.
_PAUSE_FIRST: Final = 60.0
_PAUSE_MAX: Final = 3600.0


class _Interrupted(Exception):  # noqa: N818 - never leaves this module
    """The check stops between two chunks, so that another one can run."""


@dataclass(slots=True)
class _Round:
    """The checks of what was due at some moment. `began`: by the monotonic clock."""

    began: float
    counts: CheckCounts = field(default_factory=CheckCounts)


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """`every`: seconds after which a stream is checked again, 0: never; `rate`: bytes a second, 0: no limit."""

    every: float
    rate: int


class Checks:
    """The checks of one daemon."""

    def __init__(
        self, catalogues: Catalogues, workers: Workers, settings: ScrubSettings, *, now: Callable[[], float] = time.time
    ) -> None:
        """Reads nothing before `run` or `check`. `now`: the time of day, seconds since the epoch."""
        self._catalogues = catalogues
        self._store = catalogues.store
        self._workers = workers
        self._settings = settings
        self._now = now
        self._progress = ReadProgress()
        self._left: WorkLeft | None = None  # None: the store was not surveyed yet
        self._pace = Pace(settings.rate, lambda: workers.syncs.busy)
        self._unpaced = 0  # bytes that were read after the pace was last asked; of the `scrub` thread
        self._verifier = Verifier(catalogues.store, catalogues.record, self._dependents)
        # The senders whose streams to look through; None: all, because an earlier process may have left some.
        self._senders: set[str | None] = {None}
        self._later: set[str | None] = set()  # the same, of those that could not be read
        self._wanted = asyncio.Event()
        self._due: deque[Due] = deque()
        self._more = False  # more are due than these
        self._survey_at = self._resume_at = time.monotonic()  # no survey, and no check, before that
        self._pause = 0.0  # after the last read error, seconds
        self._stopped = False  # too much is damaged
        self._asked = 0  # checks that senders wait for
        self._round: _Round | None = None  # None: nothing that is due was checked since the last one
        self._nobody_asks = asyncio.Event()
        self._nobody_asks.set()
        self._interrupt = threading.Event()  # ends the daemon's own check between two chunks

    def change(self, settings: ScrubSettings) -> None:
        """Check by these settings from now on: find what is due, and read at the new rate."""
        self._settings = settings
        self._pace.change(settings.rate)
        self._stopped = self._stopped and bool(settings.every)
        self._survey_at = time.monotonic()
        self._due.clear()
        self._interrupt.set()  # a check that waits by the old rate continues at once
        self._wanted.set()

    @property
    def every(self) -> float:
        """Seconds after which a stream is checked again, 0: never by itself."""
        return self._settings.every

    @property
    def stopped(self) -> bool:
        """Whether so much is damaged that the daemon checks nothing by itself."""
        return self._stopped

    @property
    def place(self) -> ReadPlace | None:
        """The place of the check that is running; None: none is."""
        return self._progress.place

    @property
    def read_bytes(self) -> int:
        """Stored bytes that all checks have read since the daemon's start."""
        return self._progress.read_bytes

    @property
    def live(self) -> LiveTransfer | None:
        """The check that is running, for `top`; None: none is."""
        return self._progress.live

    def state(self) -> ScrubState:
        """Return what is being checked, and what is left."""
        place, left = self._progress.place, self._left
        by_itself = place is not None and place.asked_by is None
        if left is not None and place is not None and by_itself:
            left = left.less(0, place.read_bytes)
        wait = self._resume_at - time.monotonic()
        return ScrubState(
            every=self.every,
            limit=self._settings.rate,
            left=left,
            reading=place,
            rate=self._progress.rate,
            stopped=self._stopped,
            resumes=self._now() + wait if wait > 0 and self._due else None,
            busy=by_itself and self._workers.syncs.busy,
        )

    def wanted(self, sender: str) -> None:
        """A stream of this sender that arrived in several segments has been stored."""
        self._senders.add(sender)
        self._wanted.set()

    async def run(self) -> None:
        """Check streams that are due, now and later. Never returns."""
        while True:
            self._wanted.clear()
            wait = _SURVEY_EVERY
            try:
                if self.every and time.monotonic() >= self._survey_at:
                    await self._plan()
                if not self._stopped:
                    await self._read_segmented()
                if self.every:
                    wait = await self._check_next()
            # Senders that ask for a check get the error, too; the daemon must keep running for the others.
            except Exception as error:  # noqa: BLE001 - whatever one file in the store makes of it
                log.warning("stored streams cannot be checked at the moment: %s: %s", type(error).__name__, error)
                wait = _PAUSE_FIRST
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wanted.wait()
                self._senders |= self._later
                self._later.clear()

    async def check(self, stored: StoredStream) -> Checked | Removed:
        """Check one stream for a sender that waits for it, record and log the result. After a cancellation the thread
        ends soon. Raises: FullsendError, OSError if what builds on a damaged stream cannot be found out.
        """
        subject = Subject.of(stored)
        abandoned = threading.Event()

        def between() -> None:
            self._progress.count()
            if abandoned.is_set():
                raise asyncio.CancelledError

        def work() -> Checked | Removed:
            check = self._verifier.begin(subject)
            about = stored.summary
            with self._progress.reading(check, about.stored_bytes, about.sender, what=subject.name):
                return self._verifier.conclude(subject, check, check.run(between))

        self._asked += 1
        self._nobody_asks.clear()
        self._interrupt.set()
        try:
            found = await run(self._workers.scrub, work)
        finally:
            abandoned.set()
            self._asked -= 1
            if not self._asked:
                self._nobody_asks.set()
        self._report(found)
        return found

    # --- the daemon's own checks --------------------------------------------------------------------------------

    async def _read_segmented(self) -> None:
        """Read streams that arrived in several segments and were not read since."""
        senders, self._senders = self._senders, set()
        for sender in senders:
            try:
                names = await self._workers.run(self._catalogues.senders) if sender is None else [sender]
                for name in names:
                    for stored in await self._catalogues.ask(self._workers.disk, name, self._unread):
                        found = await self._check(stored)
                        self._not_due(stored.summary)
                        if _is_unread(found):
                            self._later.add(sender)
            # As in `run`.
            except Exception as error:  # noqa: BLE001 - whatever one file in the store makes of it
                log.warning("streams that arrived in several segments cannot be read: %s", error)
                self._later.add(sender)  # with the next stream that has arrived in several segments, or in an hour

    def _unread(self, holdings: Holdings) -> list[StoredStream]:
        now = self._now()
        found = holdings.unread()
        return [
            each for each in found if not is_too_early(self._catalogues.checked(each.file, each.summary.received), now)
        ]

    async def _check_next(self) -> float:
        """Check the next stream that is due. Returns: seconds until there may be another one."""
        now = time.monotonic()
        if self._due and now < self._resume_at:
            return self._resume_at - now
        if not self._due:
            return self._survey_at - now
        about = self._due.popleft().stream
        if self._round is None:
            self._round = _Round(time.monotonic())
        found = await self._check(StoredStream(self._store, about))
        self._count_checked(about)
        if isinstance(found, Checked):
            self._round.counts.add(found)
        if not self._due and not self._more:
            self._finish_round(self._round)
        if _is_unread(found):
            # The disk may be away: then it is useless to try all other streams.
            self._pause = min(_PAUSE_MAX, 2 * self._pause or _PAUSE_FIRST)
            self._resume_at = time.monotonic() + self._pause
        else:
            self._pause = 0.0
        if (isinstance(found, Checked) and found.result.damage) or (self._more and not self._due):
            self._survey_at = time.monotonic()
        return 0.0

    def _finish_round(self, done: _Round) -> None:
        """All that was due is checked: say so."""
        self._round = None
        counts, seconds = done.counts, time.monotonic() - done.began
        unread = f", {counts.unreadable} could not be read" if counts.unreadable else ""
        text = (
            f"the scrub has checked all that was due: {plural(counts.streams, 'stream')} in"
            f" {format_duration(seconds)}: {counts.damaged} damaged{unread}"
        )
        emit(ScrubFinished(text=text, **asdict(counts), seconds=round(seconds, 1)))

    def _not_due(self, about: Summary) -> None:
        """A stream was checked before its turn: it is not read twice."""
        for each in [each for each in self._due if each.file == about.path]:
            self._due.remove(each)
            self._count_checked(about)
            if self._more and not self._due:
                self._survey_at = time.monotonic()

    def _count_checked(self, about: Summary) -> None:
        if self._left is not None:
            self._left = self._left.less(1, about.stored_bytes)

    async def _plan(self) -> None:
        """Find what is due, and whether there is too much damage."""
        standing = await self._survey()
        if standing.every != self.every:  # the settings have changed meanwhile
            return
        due = standing.due
        self._report_standing(standing)
        self._stopped = standing.stopped
        self._due = deque(() if standing.stopped else due)
        self._more = len(self._due) == DUE_MAX
        self._left = WorkLeft.of(standing)
        wait = _SURVEY_STOPPED if standing.stopped else _SURVEY_EVERY
        self._survey_at = time.monotonic() + min(wait, max(self.every, _SURVEY_LEAST))

    async def _survey(self) -> Survey:
        standing = Survey(now=self._now(), every=self.every)

        def look(holdings: Holdings) -> None:
            for part in holdings.parts():
                for stored in part.streams:
                    standing.add(stored.summary, part.checked(stored))

        for sender in await self._workers.run(self._catalogues.senders):
            try:
                holdings = await self._catalogues.ask(self._workers.disk, sender, lambda holdings: holdings)
                await self._workers.run(functools.partial(look, holdings))  # questions about the sender do not wait
            except Exception as error:  # noqa: BLE001 - the streams of the others are still checked
                log.warning("what is stored of %s cannot be read, so it is not checked: %s", sender, error)
        return standing

    async def _check(self, stored: StoredStream) -> Checked | Removed:
        """Check one stream, from where an earlier process has stopped; record and log the result. Checks that senders
        ask for come in between. After a cancellation the thread ends soon.
        """
        subject = Subject.of(stored)
        keep = min(checkpoints.KEEP, self.every or checkpoints.KEEP)
        begun = await self._workers.run(lambda: checkpoints.resumed(self._store, subject.file, subject.received, keep))
        check, since = begun or (self._verifier.begin(subject), format_time(self._now()))
        if begun is not None:
            log.info("%s: its check continues at chunk %d", subject.file, check.reading.chunks)
        abandoned = threading.Event()
        try:
            while True:
                await self._nobody_asks.wait()
                self._interrupt.clear()
                try:
                    found = await run(self._workers.scrub, lambda: self._work(stored, check, since, abandoned))
                    break
                except _Interrupted:
                    continue
        finally:
            abandoned.set()
            self._interrupt.set()
        self._report(found)
        return found

    def _work(
        self, stored: StoredStream, check: StreamCheck, since: str, abandoned: threading.Event
    ) -> Checked | Removed:
        """Check a stream, in the `scrub` thread. `abandoned`: nobody waits for the result any more."""
        subject = Subject.of(stored)
        read = check.reading.stored_bytes - self._unpaced
        recorded = time.monotonic()

        def between() -> None:
            nonlocal read, recorded
            self._progress.count()
            here = check.reading.stored_bytes
            check.waits.head("limit")
            self._pace.keep(max(0, here - read), self._interrupt)
            read = here
            now = time.monotonic()
            if abandoned.is_set() or now - recorded > _CHECKPOINT_EVERY:
                self._record_place(check, since)
                recorded = now
            if abandoned.is_set():
                raise asyncio.CancelledError
            if self._interrupt.is_set():
                raise _Interrupted

        set_idle(True)
        try:
            with self._progress.reading(check, stored.summary.stored_bytes, what=subject.name):
                result = check.run(between)
        finally:
            set_idle(False)
            self._unpaced = max(0, check.reading.stored_bytes - read)
        if result is not None and result.unreadable is not None:
            self._record_place(check, since)  # the next try begins with what could not be read
        else:
            try:
                checkpoints.clear(self._store)
            except OSError as error:
                log.warning("%s: the place of its check is still recorded: %s", subject.file, error)
        return self._verifier.conclude(subject, check, result)

    def _record_place(self, check: StreamCheck, since: str) -> None:
        try:
            checkpoints.write(self._store, check, since)
        except OSError as error:
            log.warning("%s: the place of its check cannot be recorded: %s", check.file, error)

    # --- messages -----------------------------------------------------------------------------------------------

    def _report(self, found: Checked | Removed) -> None:
        if isinstance(found, Removed):
            log.info("%s: was removed before it could be checked", found.subject.file)
            return
        file = found.subject.file
        for line in found.passing:
            log.warning("%s: was wrong once, and right when it was read again from the disk: %s", file, line)
        if found.unrecorded is not None:
            log.warning("%s: the result cannot be recorded: %s", file, found.unrecorded)
        report_check(found, self._store.disk)

    def _report_standing(self, standing: Survey) -> None:
        if standing.stopped and not self._stopped:
            text = (
                f"the scrub stops: {standing.unasked} streams are damaged, such as {standing.named_damaged[0]}; check"
                f" the memory and the cables of this host and the disk {self._store.disk}, then run `fullsendd verify`:"
                " the scrub resumes after it"
            )
            emit(ScrubStopped(text=text, damaged=standing.unasked), logging.ERROR)
        elif standing.behind:
            oldest = "-" if standing.oldest is None else format_time(standing.oldest)
            log.warning("the scrub is behind: one stream was last checked, or received, at %s", oldest)

    def _dependents(self, subject: Subject) -> list[str]:
        """Return the files that build on a stream."""
        file = subject.file
        holdings = self._catalogues.current(file.parts[0])
        stored = holdings.around(file=file).at(file)
        return [] if stored is None else [str(each.file) for each in holdings.dependents(stored)]


def _is_unread(found: Checked | Removed) -> bool:
    return isinstance(found, Checked) and found.result.unreadable is not None
