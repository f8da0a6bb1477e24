"""The chunks that were sent and are not acknowledged yet: they are sent again after a reconnect."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits

if TYPE_CHECKING:
    from fullsend_sender.transfer.segments import Ready

#: Bytes of frames that are kept until they are acknowledged: a batch that the receiver makes durable at once (32 MiB),
#: and most of the next, so that the wire does not wait for a fast disk. 64 MiB were not faster in a measurement, and
#: would exceed the sender's 160 MiB together with the rest.
WINDOW: Final = 56 * limits.MIB


class Window:
    """The chunks between the last one acknowledged and the last one sent."""

    def __init__(self, limit: int = WINDOW) -> None:
        """`limit`: bytes of frames, above which `keep` waits; a single chunk may be larger."""
        self._limit = limit
        self._used = 0
        self._chunks: deque[Ready] = deque()
        self._freed = asyncio.Event()

    @property
    def unacknowledged(self) -> list[Ready]:
        """The chunks to send again after a reconnect, in order."""
        return [*self._chunks]

    async def keep(self, ready: Ready) -> None:
        """Keep a chunk until it is acknowledged. Returns as soon as there is room for it. If the caller is cancelled
        before, the chunk is kept all the same.
        """
        self._used += len(ready.chunk.frame)
        self._chunks.append(ready)
        while self._used > self._limit and len(self._chunks) > 1:
            self._freed.clear()
            await self._freed.wait()

    def acknowledge(self, offset: int) -> None:
        """Drop all chunks before this raw offset."""
        while self._chunks and self._chunks[0].chunk.raw_offset + self._chunks[0].chunk.raw_length <= offset:
            self._used -= len(self._chunks.popleft().chunk.frame)
        self._freed.set()
