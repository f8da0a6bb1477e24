"""The daemon's own prune: once a day, and early where a push needs room. And its notes of the clock."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Final

from fullsend_protocol.shared.errors import describe
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import PruneFailed, PruneFinished
from fullsend_receiver.maintenance import clock
from fullsend_receiver.maintenance.clock import Clock
from fullsend_receiver.maintenance.locked_total import LockedTotal
from fullsend_receiver.maintenance.plans import PruneRules
from fullsend_receiver.maintenance.prune import (
    ChainHeld,
    Judged,
    MergePlanned,
    NothingGoes,
    Pruner,
    newest_reception,
)
from fullsend_receiver.maintenance.prune_records import read_try, write_try
from fullsend_receiver.maintenance.trash import empty_merged, expire_trash
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.workers import run_to_end

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks at the time.
_LOOK_EVERY: Final = 60.0
#: Seconds between two sweeps of what a bucket keeps of removed and replaced objects. Each lists them all.
_SWEEP_EVERY: Final = 86400.0
#: Seconds until a prune that was refused is tried again.
_AGAIN: Final = 3600.0
#: Seconds after an early prune that freed nothing, before the next one: it plans for all streams.
_EARLY_AGAIN: Final = 600.0


class _Abandoned(Exception):  # noqa: N818 - nobody sees it but this module
    """A prune ends with its batch. The message says why."""


@dataclass(slots=True)
class _PruneTotals:
    """What a prune has done so far. `freed`: stored bytes; `failed`: by sender, the error that has ended its prune;
    `locked`: what it had to leave.
    """

    dropped: int = 0
    freed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    locked: LockedTotal = field(default_factory=LockedTotal)

    @property
    def line(self) -> str:
        """What was done, in words."""
        return f"pruned: {plural(self.dropped, 'stream')} dropped, {format_size(self.freed)} freed"

    def finish(self, why: str, text: str) -> None:
        """Say what was done. `why`: of the event; `text`: the line."""
        emit(
            PruneFinished(
                text=f"{text}; {self.locked.line}" if self.locked.line else text,
                why=why,
                dropped=self.dropped,
                freed_bytes=self.freed,
                failed=sorted(self.failed),
                locked=self.locked.streams,
                locked_until=self.locked.end,
            )
        )


class DailyPrune:
    """The prunes of one daemon."""

    def __init__(
        self,
        store: Store,
        rules: PruneRules | None,
        at: time_of_day | None,
        clock_: Clock,
        thread: Executor,
        *,
        pruned: Callable[[], None] = lambda: None,
    ) -> None:
        """`rules`: None: nothing is ever deleted; `at`: local time, None: only commands prune; `thread`: one for it
        alone, since a prune of a large store takes minutes; `pruned`: is called on the event loop after each one.
        """
        self._store = store
        self._rules = rules
        self._at = at
        self._clock = clock_
        self._thread = thread
        self._pruned = pruned
        self._abandoned = threading.Event()
        self._noted: float | None = None  # seconds since the boot
        self._swept: float | None = None  # the same
        # By sender, None: of all, the last early prune, in seconds since the boot.
        self._freed_nothing: dict[str | None, float] = {}
        self._failed: float | None = None  # the last daily prune, in seconds since the boot
        self._said = ""
        self._waits = False  # for a time server

    async def run(self, look_every: float = _LOOK_EVERY) -> None:
        """Note the clock and prune when it is time, until cancelled. A prune ends then with its batch."""
        try:
            while True:
                if await run_to_end(self._thread, self.look):
                    self._pruned()
                await asyncio.sleep(look_every)
        finally:
            self._abandoned.set()

    def abandon(self) -> None:
        """End a prune that is running, with its batch: the daemon stops."""
        self._abandoned.set()

    def change(self, rules: PruneRules | None, at: time_of_day | None) -> None:
        """Prune by this from now on, see `__init__`. A prune that is running by other rules ends with its batch, and
        begins again by these.
        """
        self._rules = rules
        self._at = at
        self._freed_nothing.clear()
        self._failed = None

    async def make_room(self, wanted: int, sender: str | None, *, early: bool = True) -> int:
        """Delete what waits in the trash since it was merged. If there is nothing, and the policy allows it, drop what
        it does not keep, before the daily prune. That keeps all that the daily prune would keep.

        `wanted`: bytes; it ends with the sender whose streams free them. `sender`: whose streams, None: of all
        senders, by name; `early`: whether the policy allows it. Returns: bytes that are free now and were not; what is
        dropped and waits in the trash does not count. Logs what goes wrong.
        """
        return await run_to_end(self._thread, lambda: self._make_room(wanted, sender, early=early))

    def look(self) -> bool:
        """Note the clock and prune, if it is time for them. Blocks. Logs what goes wrong.

        Returns: whether it has pruned, at least of some senders.
        """
        try:
            self._store.check_mounted()
        except StoreError:  # the daemon says so, once
            return False
        try:
            now = self._clock.read()
            if self._noted is None or now.boottime - self._noted >= clock.NOTE_EVERY:
                self._noted = now.boottime
                self._note()
            if self._swept is None or now.boottime - self._swept >= _SWEEP_EVERY:
                self._swept = now.boottime
                self._sweep()
            rules, at = self._rules, self._at
            lately = self._failed is not None and 0 <= now.boottime - self._failed < _AGAIN
            if rules is not None and at is not None and not lately and self._is_due(at) and self._may_begin():
                return self._prune(rules)
        except _Abandoned as why:
            log.info("the daily prune ends, since %s", why)
        except Exception as error:  # noqa: BLE001 - a disk, or one file in the store, must not end the daemon
            self._failed = self._clock.read().boottime  # this may be all that is known of it: the disk may be read-only
            what = f"{type(error).__name__}: {error}"
            emit(PruneFailed(text=f"the daily prune has failed: {what}", sender="", why=what), logging.WARNING)
        return False

    def _note(self) -> None:
        try:
            wrong = clock.note(self._store.documents, self._clock, lambda: newest_reception(Catalogues(self._store)))
        except Exception as error:  # noqa: BLE001 - the prune makes room on a disk without a free byte, and tells the rest
            log.warning("the clock cannot be noted: %s", describe(error))
            return
        if wrong is not None and clock.waits_for(self._store.documents, self._clock.read()) is None:
            self._complain(f"nothing is pruned: {wrong}")

    def _sweep(self) -> None:
        """Delete the versions that a bucket keeps, as soon as it can: without them a daemon would run as well."""
        try:
            kept = self._store.kept_versions(sweep=True)
        except StoreError as error:
            log.warning("what the bucket keeps of removed objects cannot be deleted: %s", error)
            return
        if kept.count:
            size = format_size(kept.stored_bytes)
            log.info("the bucket keeps %s of removed objects, %s: locked, or without the right", kept.count, size)

    def _is_due(self, at: time_of_day) -> bool:
        now = self._clock.read().wall
        last = read_try(self._store.documents)
        before = None if last is None else parse_time(last.at)
        if last is None or before is None:
            write_try(self._store.documents, now, None)  # the first one is at its time, not at the daemon's first start
            return False
        # A prune that was refused, or has failed, is tried again within the hour: a person may have done something.
        return is_due(now, before, at, again=last.refused is not None)

    def _may_begin(self) -> bool:
        """Whether a daily prune that is due may begin, or waits for a time server. Each is logged once."""
        why = clock.waits_for(self._store.documents, self._clock.read())
        if why is not None and not self._waits:
            hours = clock.SYNC_WAIT / 3600
            log.warning("the daily prune waits: %s; it begins when one has, or after %g hours without one", why, hours)
        elif why is None and self._waits:
            log.info("the daily prune waits no longer for a time server")
        self._waits = why is not None
        return why is None

    def _make_room(self, wanted: int, sender: str | None, *, early: bool) -> int:
        try:
            freed = empty_merged(self._store)
        except OSError as error:
            log.warning("the trash cannot be emptied: %s", error)
            freed = 0
        rules, began = self._rules, self._clock.read().boottime
        before = [self._freed_nothing[each] for each in (None, sender) if each in self._freed_nothing]
        lately = any(0 <= began - each < _EARLY_AGAIN for each in before)
        if freed or not early or rules is None or rules.undelete_within or lately:
            return freed  # if it is not enough, this is called again
        done = _PruneTotals()
        try:
            pruner, refused = self._begin(rules)
            if refused is not None:
                return 0
            self._prune_senders(pruner, pruner.catalogues.senders() if sender is None else [sender], done, wanted)
        except _Abandoned as why:
            log.info("the early prune ends, since %s", why)
        except Exception as error:  # noqa: BLE001 - the push is refused then, and nothing else
            log.warning("the early prune has failed: %s: %s", type(error).__name__, error)
        if not done.freed and rules is self._rules:
            self._freed_nothing[sender] = began
        text = f"pruned early, for a push: {format_size(done.freed)} freed of {format_size(wanted)} wanted"
        done.finish("early", text)
        return done.freed

    def _prune(self, rules: PruneRules) -> bool:
        refused: str | None = None
        trash: str | None = None
        done = _PruneTotals()
        now = self._clock.read().wall
        try:
            pruner, refused = self._begin(rules)
            if refused is None:
                trash = self._expire_trash(rules, pruner.now)
                self._prune_senders(pruner, pruner.catalogues.senders(), done)
                done.finish("daily", done.line)
                refused = next((f"{sender}: {why}" for sender, why in done.failed.items()), None)
        except _Abandoned:
            raise
        except Exception as error:  # noqa: BLE001 - it must be known wherever somebody looks, whatever it is
            refused = f"it failed: {describe(error)}"
            done.failed.clear()  # it failed for all
            self._complain(f"the daily prune has failed: {describe(error)}")
        write_try(self._store.documents, now, refused, done.failed, trash)
        return refused is None or bool(done.failed)

    def _expire_trash(self, rules: PruneRules, now: float) -> str | None:
        """Delete what has waited in the trash for long. Returns: why some of it is still there, None: none is. Streams
        are pruned all the same: otherwise the disk would fill.
        """
        try:
            expire_trash(self._store, rules.undelete_within, now, undelete_merged=rules.undelete_merged)
        except OSError as error:
            why = f"the trash cannot be deleted: {error}"
            self._complain(why)
            return why
        return None

    def _begin(self, rules: PruneRules) -> tuple[Pruner, str | None]:
        """Return a prune that has not begun, and why it must not, by the clock; None: it may. That is logged."""
        now = self._clock.read()
        pruner = Pruner(self._store, rules, now.wall, lambda: self._between(rules))
        refused = clock.objection_now(self._store.documents, self._clock, lambda: newest_reception(pruner.catalogues))
        if refused is not None:
            self._complain(f"nothing is pruned: {refused}")
        return pruner, refused

    def _prune_senders(
        self, pruner: Pruner, senders: Iterable[str], done: _PruneTotals, wanted: float = math.inf
    ) -> None:
        """Prune these senders, and note in `done` what was done. `wanted`: the freed bytes after which no other sender
        is pruned. If one of them fails, the others are still pruned.
        """
        for sender in senders:
            try:
                for event in pruner.prune(sender):
                    match event:
                        case Judged(dropped=True):
                            done.dropped += 1
                            done.freed += event.decision.stream.stored_bytes
                        case NothingGoes():
                            log.warning("%s/%s: nothing is pruned: %s", event.sender, event.dataset, event.why)
                        case Judged():
                            done.locked.add(event)
                        case ChainHeld() | MergePlanned():
                            pass
            except _Abandoned:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is in the store of one sender
                text = f"{sender}: its prune has failed: {describe(error)}"
                emit(PruneFailed(text=text, sender=sender, why=describe(error)), logging.ERROR)
                done.failed[sender] = describe(error)
            if done.freed >= wanted:
                return

    def _between(self, rules: PruneRules) -> None:
        if self._abandoned.is_set():
            raise _Abandoned("the daemon stops; it begins again with the next start")
        if rules is not self._rules:
            raise _Abandoned("receiver.toml has changed")

    def _complain(self, what: str) -> None:
        """Log this once a day: it is tried again and again."""
        said = f"{format_time(self._clock.read().wall)[:10]} {what.partition(':')[0]}"
        if said != self._said:
            self._said = said
            emit(PruneFailed(text=what, sender="", why=what), logging.ERROR)


def is_due(
    now: float, before: float, at: time_of_day, *, again: bool, local: Callable[[float], datetime] | None = None
) -> bool:
    """Whether it is time for the daily prune. `now`, `before`: this moment and the last prune, in seconds since the
    epoch; `at`: local time; `again`: the last one was refused; `local`: makes a local time of a moment.
    """
    to_local = local or datetime.fromtimestamp
    here = to_local(now)
    due = here.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    if due > here:
        due -= timedelta(days=1)
    if before > now:  # the clock was set back
        return True
    return to_local(before) < due or (again and now - before >= _AGAIN)
