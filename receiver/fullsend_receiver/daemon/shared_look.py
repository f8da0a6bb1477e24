"""A look that many tasks want at the same time: one serves all of them.

A task is served only by a look that began after it asked. So those that ask while one runs share the next one, and 64
connections that come at once need two looks at the sender table. In a bucket each is a request, of which 64 in a row
took longer than a sender waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class SharedLook:
    """Looks once at a time. Not thread-safe: for the event loop."""

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        """`look`: what is shared."""
        self._look = look
        self._running = asyncio.Lock()
        self._asked = 0
        self._served = 0

    async def ask(self) -> None:
        """Return when a look has ended that began after this call. Raises: what the look raises, for the one task that
        called it; the others look again.
        """
        self._asked += 1
        mine = self._asked
        async with self._running:
            if self._served >= mine:
                return
            serves = self._asked
            await self._look()
            self._served = serves
