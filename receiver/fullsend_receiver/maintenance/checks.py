"""Checking stored streams beside all else: in a thread of its own, one after another, and what is found goes on record.

A stream that came in several segments has as many hashes, and none of the whole: nobody has read it from end to end. So
the daemon does, when it is stored (design section 5); `list` and `show` have that SHA-256 from then on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from fullsend_receiver.arrival.workers import Workers
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Stored
from fullsend_receiver.maintenance.scrub import scrub

log: Final = logging.getLogger("fullsendd")

_T = TypeVar("_T")


class Checks:
    """The checks of one daemon."""

    def __init__(self, catalogues: Catalogues, workers: Workers) -> None:
        """Nothing is read before `run` or `check`."""
        self._catalogues = catalogues
        self._workers = workers
        # Whose streams to look through; None: all, since a run before this one may have left some.
        self._senders: set[str | None] = {None}
        self._wanted = asyncio.Event()
        self._wanted.set()

    def wanted(self, sender: str) -> None:
        """A stream of this sender has been stored that came in several segments."""
        self._senders.add(sender)
        self._wanted.set()

    async def run(self) -> None:
        """Read what came in several segments and was not read since, now and whenever there is more. Never returns."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            senders, self._senders = self._senders, set()
            for sender in senders:
                try:
                    await self._read_again(sender)
                # Said to those who ask for it, too; the daemon stays for the others.
                except Exception as error:  # noqa: BLE001 - whatever one file in the store makes of it
                    log.warning("what came in several segments cannot be read again: %s", error)
                    self._senders.add(sender)  # with the next that is wanted

    async def _read_again(self, sender: str | None) -> None:
        senders = await self._on_disk(self._catalogues.senders) if sender is None else [sender]
        for each in senders:
            for stored in await self._catalogues.ask(self._workers.disk, each, lambda holdings: holdings.unread()):
                await self.check(stored)

    async def check(self, stored: Stored) -> Scrubbed | None:
        """Check one stream, and record what was found. Where we are cancelled, the thread that does it ends soon.

        Returns: what was found; None where the stream has been removed, of which nothing is recorded. Raises:
        FullsendError, OSError where nothing could be looked at.
        """
        abandoned = threading.Event()

        def between() -> None:
            if abandoned.is_set():
                raise asyncio.CancelledError

        try:
            result = await asyncio.get_running_loop().run_in_executor(
                self._workers.scrub, scrub, self._catalogues.store, stored, between
            )
        finally:
            abandoned.set()
        if result is None:
            log.info("%s: was removed before it could be checked", stored.file)
            return None
        try:
            await self._on_disk(lambda: self._catalogues.record(result))
        except OSError as error:  # a disk that is full wants checking most
            log.warning("%s: what was found cannot be recorded: %s", stored.file, error)
        if result.damage:
            log.error("%s: damaged: %s", stored.file, result.damage[0])
        return result

    async def _on_disk(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._workers.disk, work)
