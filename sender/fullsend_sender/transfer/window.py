"""The chunks that have been sent and are not acknowledged yet: what is sent again after a reconnect."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits

if TYPE_CHECKING:
    from fullsend_sender.transfer.segments import Ready

#: Bytes of frames that are kept until they are acknowledged: what the receiver makes durable in one go (32 MiB), and
#: most of the next, so that the wire does not wait for a disk that keeps up. 64 were measured to be no faster, and with
#: the rest are more than the sender's 160 MiB.
WINDOW: Final = 56 * limits.MIB


class Window:
    """The chunks between what was sent last and what was acknowledged last."""

    def __init__(self, limit: int = WINDOW) -> None:
        """`limit`: bytes of frames, to which one comes that waits for room; a single one may be larger."""
        self._limit = limit
        self._used = 0
        self._chunks: deque[Ready] = deque()
        self._freed = asyncio.Event()

    @property
    def unacknowledged(self) -> list[Ready]:
        """What is to be sent again after a reconnect, in order."""
        return [*self._chunks]

    async def keep(self, ready: Ready) -> None:
        """Keep a chunk until it is acknowledged. Returns as soon as there is room for it; it is kept also where we are
        cancelled before.
        """
        self._used += len(ready.chunk.frame)
        self._chunks.append(ready)
        while self._used > self._limit and len(self._chunks) > 1:
            self._freed.clear()
            await self._freed.wait()

    def acknowledge(self, offset: int) -> None:
        """Let go of all before this raw offset."""
        while self._chunks and self._chunks[0].chunk.raw_offset + self._chunks[0].chunk.raw_length <= offset:
            self._used -= len(self._chunks.popleft().chunk.frame)
        self._freed.set()
