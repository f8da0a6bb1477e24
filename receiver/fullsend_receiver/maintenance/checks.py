"""Checks stored streams beside all other work, one after another, in a thread of its own.

A stream that arrived in several segments has a hash for each, and none of the whole stream. So the daemon reads it from
end to end once it is stored; `list` and `show` have that SHA-256 from then on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Final

from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import StoredStream
from fullsend_receiver.maintenance.verify import Checked, Removed, Subject, Verifier
from fullsend_receiver.store.workers import Workers, run

log: Final = logging.getLogger("fullsendd")


class Checks:
    """The checks of one daemon."""

    def __init__(self, catalogues: Catalogues, workers: Workers) -> None:
        """Reads nothing before `run` or `check`."""
        self._catalogues = catalogues
        self._workers = workers
        self._verifier = Verifier(catalogues.store, catalogues.record, self._dependents)
        # The senders whose streams to look through; None: all, because an earlier process may have left some.
        self._senders: set[str | None] = {None}
        self._wanted = asyncio.Event()
        self._wanted.set()

    def wanted(self, sender: str) -> None:
        """A stream of this sender that arrived in several segments has been stored."""
        self._senders.add(sender)
        self._wanted.set()

    async def run(self) -> None:
        """Read streams that arrived in several segments and were not read since, now and later. Never returns."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            senders, self._senders = self._senders, set()
            for sender in senders:
                try:
                    await self._read_again(sender)
                # Senders that ask for a check get the error, too; the daemon must keep running for the others.
                except Exception as error:  # noqa: BLE001 - whatever one file in the store makes of it
                    log.warning("streams that arrived in several segments cannot be read: %s", error)
                    self._senders.add(sender)  # retried with the next stream

    async def _read_again(self, sender: str | None) -> None:
        senders = await self._workers.run(self._catalogues.senders) if sender is None else [sender]
        for each in senders:
            for stored in await self._catalogues.ask(self._workers.disk, each, lambda holdings: holdings.unread()):
                await self.check(stored)

    async def check(self, stored: StoredStream) -> Checked | Removed:
        """Check one stream, record and log the result. After a cancellation the thread ends soon.

        Raises: FullsendError, OSError if nothing could be read.
        """
        abandoned = threading.Event()

        def between() -> None:
            if abandoned.is_set():
                raise asyncio.CancelledError

        try:
            found = await run(self._workers.scrub, lambda: self._verifier.check(Subject.of(stored), between))
        finally:
            abandoned.set()
        if isinstance(found, Removed):
            log.info("%s: was removed before it could be checked", stored.file)
            return found
        if found.unrecorded is not None:
            log.warning("%s: the result cannot be recorded: %s", stored.file, found.unrecorded)
        if found.result.damage:
            log.error("%s: damaged: %s", stored.file, found.result.damage[0])
        return found

    def _dependents(self, subject: Subject) -> list[str]:
        """Return the files that build on a stream."""
        file = subject.file
        holdings = self._catalogues.current(file.parts[0])
        stored = holdings.around(file=file).at(file)
        return [] if stored is None else [str(each.file) for each in holdings.dependents(stored)]
