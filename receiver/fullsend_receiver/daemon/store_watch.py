"""Watches the store's disk: whether it is there and can be written to, and how full it is. Logs each change once.

The daemon continues without its disk: requests fail one by one, with the reason, until the disk is back.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from enum import Enum
from typing import Final, NamedTuple, Protocol

from fullsend_receiver.arrival.bounds import Fill
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import StoreAway, StoreBack
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError, disk_error
from fullsend_receiver.store.workers import run

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks at how full it is.
_FILLS_EVERY: Final = 60.0
#: A warning ends when so much less is used than where it began.
_SLACK: Final = 0.01


class DiskState(Enum):
    """The state of the store's disk."""

    WELL = "well"
    READ_ONLY = "read-only"
    AWAY = "away"  # not mounted, or it cannot be read


class Reopener(Protocol):
    """Has files of the store open."""

    async def release(self) -> None:
        """The store cannot be read. Close its files: an open file keeps a disk from being unmounted and repaired."""

    async def reopen(self, *, writable: bool) -> bool:
        """The store can be read again, or be written to again (`writable`). Returns: False if this must be tried again.

        Raises: StoreError if another daemon serves it by now.
        """


class _Seen(NamedTuple):
    state: DiskState
    why: str = ""


class StoreWatch:
    """Looks at the store at intervals."""

    def __init__(self, store: Store, room: Room, warn_at: float, threads: Executor, reopener: Reopener) -> None:
        """`threads`: in which the disk is read."""
        self._store = store
        self._room = room
        self._threads = threads
        self._reopener = reopener
        self._seen = _Seen(DiskState.WELL)
        self._suspect = False  # a write has failed because the disk is read-only
        self._warnings = FillWarnings(warn_at)

    async def run(self) -> None:
        """Look until cancelled. Raises: as `Reopener.reopen`."""
        while True:
            passed = 0.0
            while passed < _FILLS_EVERY:
                await self.look()
                await asyncio.sleep(self._store.capabilities.look_every)
                passed += self._store.capabilities.look_every
            await self.look_at_fills()

    def suspect_read_only(self) -> None:
        """A write has failed because the disk is read-only: find out by writing, until that succeeds."""
        self._suspect = True

    def warn_from(self, share: float) -> None:
        """Warn from this used share on. See `FillWarnings`."""
        self._warnings.share = share

    async def look(self) -> None:
        """Look at the state, and log it if it has changed. Raises: as `Reopener.reopen`."""
        seen = await run(self._threads, self._probe)
        if seen.state is self._seen.state:
            return
        if seen.state is DiskState.AWAY:
            text = f"{seen.why}; nothing is served until it is back"
            emit(StoreAway(text=text, state="away", why=seen.why), logging.ERROR)
            await self._reopener.release()
        elif not await self._reopener.reopen(writable=seen.state is DiskState.WELL):
            return
        elif seen.state is DiskState.READ_ONLY:
            text = f"{seen.why}; until then the store can be read, and pushes are refused"
            emit(StoreAway(text=text, state="read-only", why=seen.why), logging.ERROR)
        else:
            emit(StoreBack(text="the store's disk is back, and can be written to"), logging.WARNING)
        self._seen = seen

    async def look_at_fills(self) -> None:
        """Look how full it is, and log what has crossed the limit."""
        try:
            fills = await self._room.fills()
        except (StoreError, OSError):  # `look` says why
            return
        self._warnings.note(fills)

    def _probe(self) -> _Seen:
        try:
            self._store.check_mounted()
            if self._store.is_read_only(by_writing=self._suspect):
                return _Seen(DiskState.READ_ONLY, "the store's disk is mounted read-only: remount it")
        except StoreError as error:
            return _Seen(DiskState.AWAY, str(error))
        except OSError as error:
            return _Seen(DiskState.AWAY, str(disk_error(error)))
        self._suspect = False
        return _Seen(DiskState.WELL)


class FillWarnings:
    """Logs once when something becomes so full, and once when it is not any more."""

    def __init__(self, share: float) -> None:
        """`share`: the used share from which on there is a warning."""
        self.share = share
        self._above: set[str] = set()

    def note(self, fills: list[Fill]) -> None:
        """Log what has changed. `fills`: all that there are."""
        self._above &= {fill.what for fill in fills}  # a quota that is gone warns anew if it comes back
        for fill in fills:
            if fill.what not in self._above and fill.is_above(self.share):
                self._above.add(fill.what)
                log.warning("%s: free space soon, or pushes will be refused (warn-at)", fill)
            elif fill.what in self._above and not fill.is_above(self.share - _SLACK):
                self._above.remove(fill.what)
                log.info("%s: below warn-at again", fill)
