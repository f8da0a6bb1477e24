"""Looks at all of the store at intervals, and hands each overview to what shows it: the log, metrics, a report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, Protocol

from fullsend_protocol.shared.errors import describe
from fullsend_protocol.shared.units import format_duration
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DaemonAnswers, DaemonSilent
from fullsend_receiver.monitor.overview import Overview
from fullsend_receiver.store.errors import StoreMissing
from fullsend_receiver.store.workers import run

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks. docs/operations.md promises it.
EVERY: Final = 60.0

#: Seconds that a look may take before somebody is told: one at a large store takes some. docs/monitoring/alerts.yml has
#: the same.
_PATIENCE: Final = 900.0

#: Looks that fail, one after the other, before anybody is told: a remount takes a moment.
_FAILURES: Final = 5

#: Takes each overview, in the thread that has made it. What it raises is logged once, and stops no other.
Consumer = Callable[[Overview], None]


class Surveys(Protocol):
    """Makes overviews."""

    def take(self) -> Overview:
        """Return how all is now. Blocks. Raises: FullsendError, OSError if the store cannot be read."""

    def close(self) -> None:
        """Write what is not written yet. Blocks."""


class Monitoring:
    """The looks of one daemon."""

    def __init__(
        self,
        surveys: Surveys,
        thread: Executor,
        consumers: Sequence[Consumer],
        failed: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """`thread`: one for it alone, since a look at a large store takes seconds; `failed`: takes, in that thread, why
        look after look fails: without it only the log would say that nothing is watched any more.
        """
        self._surveys = surveys
        self._thread = thread
        self._consumers = consumers
        self._failed = failed
        self._failures = 0
        self._complaints: dict[object, str] = {}  # what was logged of each consumer, and of the surveys

    async def run(self, every: float = EVERY, *, patience: float = _PATIENCE) -> None:
        """Look at once, and then every `every` seconds, until cancelled. A look that is running has an end: its thread
        is not waited for here. `patience`: seconds after which an event says that a look has not ended.
        """
        try:
            while True:
                await self._look_in_thread(patience)
                await asyncio.sleep(every)
        finally:
            self._thread.submit(self._close)

    async def _look_in_thread(self, patience: float) -> None:
        """Look once. A disk that never answers keeps the thread, and then only this can say so."""
        looking = asyncio.create_task(run(self._thread, self.look))
        try:
            done, _ = await asyncio.wait([looking], timeout=patience)
            if not done:
                text = (
                    f"for {format_duration(patience)} the daemon waits for an answer while it looks at its store, so"
                    " nobody is told of what is late or damaged: does the disk of the store answer, and those of"
                    " metrics-file and report-file?"
                )
                emit(DaemonSilent(text=text, seconds=round(patience, 1)), logging.ERROR)
                await asyncio.wait([looking])
                emit(DaemonAnswers(text="the daemon looks at its store again"), logging.WARNING)
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        looking.result()

    def look(self) -> None:
        """Take an overview, and hand it on. Blocks. Logs what goes wrong, once."""
        try:
            overview = self._surveys.take()
        except Exception as error:  # noqa: BLE001 - a disk, or one file in the store, must not end the daemon
            why = f"the store cannot be surveyed: {describe(error)}"
            self._complain(self._surveys, why)
            self._tell(error, why)
            return
        self._failures = 0
        self._calm(self._surveys, "the store is surveyed again")
        for consumer in self._consumers:
            try:
                consumer(overview)
            except Exception as error:  # noqa: BLE001 - what one of them cannot write, the others can
                self._complain(consumer, f"{_name(consumer)}: {describe(error)}")
            else:
                self._calm(consumer, f"{_name(consumer)}: works again")

    def _tell(self, error: Exception, why: str) -> None:
        """Tell that look after look fails. Of a store that is away `DaemonWatch` tells: nothing can be noted in it."""
        self._failures += 1
        if self._failures < _FAILURES or isinstance(error, StoreMissing):
            return
        try:
            self._failed(f"{why}: nobody is told of what is late or damaged")
        except Exception as fault:  # noqa: BLE001 - as above; it is tried again
            self._complain(self._failed, f"{_name(self._failed)}: {describe(fault)}")

    def _close(self) -> None:
        try:
            self._surveys.close()
        except Exception as error:  # noqa: BLE001 - it is learnt again
            log.debug("what was learnt is not written: %s", describe(error))

    def _complain(self, who: object, what: str) -> None:
        if self._complaints.get(who) != what:
            log.warning("%s", what)
        self._complaints[who] = what

    def _calm(self, who: object, what: str) -> None:
        if self._complaints.pop(who, None) is not None:
            log.info("%s", what)


def _name(consumer: Consumer | Callable[[str], None]) -> str:
    """Return what names a consumer in the log: its class, or its function."""
    owner = getattr(consumer, "__self__", None)
    return type(owner).__name__ if owner is not None else getattr(consumer, "__name__", "a consumer")
