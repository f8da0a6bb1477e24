"""The daemon's own prune, once a day, and its notes of the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural
from fullsend_receiver.maintenance import clock
from fullsend_receiver.maintenance.clock import Clock, Reading
from fullsend_receiver.maintenance.prune import (
    ChainHeld,
    Judged,
    NothingGoes,
    Pruner,
    PruneRules,
    newest_reception,
)
from fullsend_receiver.maintenance.prune_records import read_try, write_try
from fullsend_receiver.maintenance.trash import expire_trash
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.workers import run_to_end

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks at the time.
_LOOK_EVERY: Final = 60.0


class _Abandoned(Exception):  # noqa: N818 - nobody sees it but this module
    """The daemon stops."""


class DailyPrune:
    """The prunes of one daemon."""

    def __init__(
        self, store: LocalStore, rules: PruneRules | None, at: time_of_day | None, clock_: Clock, thread: Executor
    ) -> None:
        """`rules`: None: nothing is ever deleted; `at`: local time, None: only commands prune; `thread`: one for it
        alone, since a prune of a large store takes minutes.
        """
        self._store = store
        self._rules = rules
        self._at = at
        self._clock = clock_
        self._thread = thread
        self._abandoned = threading.Event()
        self._noted: float | None = None  # seconds since the boot
        self._said = ""

    async def run(self, look_every: float = _LOOK_EVERY) -> None:
        """Note the clock and prune when it is time, until cancelled. A prune ends then with its batch."""
        try:
            while True:
                await run_to_end(self._thread, self.look)
                await asyncio.sleep(look_every)
        finally:
            self._abandoned.set()

    def abandon(self) -> None:
        """End a prune that is running, with its batch: the daemon stops."""
        self._abandoned.set()

    def look(self) -> None:
        """Note the clock and prune, if it is time for them. Blocks. Logs what goes wrong."""
        try:
            self._store.check_mounted()
        except StoreError:  # the daemon says so, once
            return
        try:
            now = self._clock.read()
            if self._noted is None or now.boottime - self._noted >= clock.NOTE_EVERY:
                self._noted = now.boottime
                self._note(now)
            if self._rules is not None and self._at is not None and self._is_due(self._at):
                self._prune(self._rules)
        except _Abandoned:
            log.info("the daily prune ends, since the daemon stops; it begins again with the next start")
        except Exception as error:  # noqa: BLE001 - a disk, or one file in the store, must not end the daemon
            log.warning("the daily prune has failed: %s: %s", type(error).__name__, error)

    def _note(self, now: Reading) -> None:
        try:
            wrong = clock.note(self._store.documents, now)
        except OSError as error:  # a disk without a free byte: the prune makes room
            log.warning("the clock cannot be noted: %s", error)
            return
        if wrong is not None:
            self._complain(f"nothing is pruned: {wrong}")

    def _is_due(self, at: time_of_day) -> bool:
        now = self._clock.read().wall
        last = read_try(self._store.documents)
        before = None if last is None else parse_time(last.at)
        if last is None or before is None:
            write_try(self._store.documents, now, None)  # the first one is at its time, not at the daemon's first start
            return False
        # A prune that was refused, or has failed, is tried again within the hour: a person may have done something.
        return is_due(now, before, at, again=last.refused is not None)

    def _prune(self, rules: PruneRules) -> None:
        store = self._store
        now = self._clock.read().wall
        refused: str | None = None
        try:
            pruner = Pruner(store, rules, now, self._between)
            refused = clock.objection(store.documents, self._clock.read(), newest_reception(pruner.catalogues))
            if refused is None:
                expire_trash(store, rules.undelete_within, now)
                refused = self._prune_all(pruner)
            else:
                self._complain(f"nothing is pruned: {refused}")
        except (FullsendError, OSError) as error:
            refused = f"it failed: {error}"
            self._complain(f"the daily prune has failed: {error}")
        write_try(store.documents, now, refused)

    def _prune_all(self, pruner: Pruner) -> str | None:
        """Prune all senders. Returns: the first error, if one of them failed."""
        failed: str | None = None
        dropped = freed = 0
        for sender in pruner.catalogues.senders():
            try:
                for event in pruner.prune(sender):
                    match event:
                        case Judged(dropped=True):
                            dropped += 1
                            freed += event.decision.stream.stored_bytes
                        case NothingGoes():
                            log.warning("%s/%s: nothing is pruned: %s", event.sender, event.dataset, event.why)
                        case ChainHeld() | Judged():
                            pass
            except (FullsendError, OSError) as error:
                log.error("%s: its prune has failed: %s", sender, error)  # noqa: TRY400 - where says nothing
                failed = failed or f"{sender}: {error}"
        log.info("pruned: %s dropped, %s freed", plural(dropped, "stream"), format_size(freed))
        return failed

    def _between(self) -> None:
        if self._abandoned.is_set():
            raise _Abandoned

    def _complain(self, what: str) -> None:
        """Log this once a day: it is tried again and again."""
        said = f"{format_time(self._clock.read().wall)[:10]} {what.partition(':')[0]}"
        if said != self._said:
            self._said = said
            log.error("%s", what)


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


#: Seconds until a prune that was refused is tried again.
_AGAIN: Final = 3600.0
