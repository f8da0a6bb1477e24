"""How much all connections of a daemon read before the loop has its next turn.

The loop reads from every connection that has something before it does anything else. If the daemon was held up for a
while, 64 connections have some MiB each in the kernel, and decrypting all of them takes a tenth of a second. Neither a
heartbeat nor a question gets its turn meanwhile. So connections share what is read in one turn, and the others wait for
a later one, in order. The memory that a chunk is read into counts too: it is set to zero, which takes about as long.

If a peer ends without a word of TLS (it was killed), what waits in TLS is lost: half a MiB at most (uvloop).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes in one turn: some milliseconds. What waited counts twice, when it may read and as it is read.
TURN: Final = 8 << 20
#: Bytes that a connection reads at a time (SSL_READ_MAX_SIZE of uvloop).
_READ: Final = 256 << 10


class LoopTurns:
    """Counts what is read in a turn of the loop. For the loop's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Does nothing before something is read."""
        self._loop = loop
        self._taken = 0  # bytes in this turn
        self._next: asyncio.Handle | None = None
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def read(self, count: int) -> bool:
        """Count `count` bytes that were read. Returns: whether more may be read in this turn."""
        self._take(count)
        return self._taken < TURN

    def resume(self, call: Callable[[], None]) -> None:
        """Call `call` in a later turn, when a connection may read again."""
        self._waiting.append((_READ, call))
        self._take(0)

    async def make_room(self, count: int) -> None:
        """Return in a turn in which `count` bytes of memory may be made ready; at once, if that is this one."""
        if self._taken < TURN and not self._waiting:
            self._take(count)
            return
        turn = self._loop.create_future()
        self._waiting.append((count, lambda: None if turn.done() else turn.set_result(None)))
        self._take(0)
        await turn

    def _take(self, count: int) -> None:
        self._taken += count
        if self._next is None:
            self._next = self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn."""
        self._next = None
        self._taken = 0
        while self._waiting and self._taken < TURN:
            count, call = self._waiting.popleft()
            self._take(count)
            call()
