"""Claims partials for a thread that deletes them, so that no session begins one of them meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from fullsend_receiver.daemon.session import SharedState


class Claims:
    """The claims of threads, beside the event loop on which sessions run."""

    def __init__(self, shared: SharedState, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: it runs until each claim has ended."""
        self._shared = shared
        self._loop = loop

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Claim a partial, from a thread of a sweep: a `Claim`. A session that wants it waits, and no other one. Yields
        False also if its stream has arrived since the sweep began.
        """
        is_mine = asyncio.run_coroutine_threadsafe(self._begin(key), self._loop).result()
        try:
            yield is_mine
        finally:
            if is_mine:
                self._loop.call_soon_threadsafe(self._end, key)

    async def _begin(self, key: str) -> bool:
        shared = self._shared
        async with shared.sweeping:
            if key in shared.begun:  # also if it has ended again: what the thread knows of it is of before
                return False
            shared.deleting[key] = asyncio.Event()
            return True

    def _end(self, key: str) -> None:
        self._shared.deleting.pop(key).set()
