"""Chunks of a stored stream, read ahead of the wire: while one is sent, a thread reads the next.

Limits (docs/operations.md adds them up): CHUNKS_AHEAD and FRAMES_HELD. A frame counts from reading it until the caller
asks for the next one: then the transport has it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator
from typing import Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.store.workers import Workers, uncancelled

#: Chunks that are read and wait until the one before them is sent.
CHUNKS_AHEAD: Final = 2
#: Bytes of frames, including the one being sent, at which reading pauses: three usual chunks of incompressible data.
#: One may be read just below it, so the maximum is a CHUNK_FRAME_MAX more. With frames that large, none is read ahead.
FRAMES_HELD: Final = 12 * limits.MIB


async def read_ahead(
    workers: Workers, chunks: Generator[Chunk, None, None], waits: StageWaits | None = None
) -> AsyncGenerator[Chunk, None]:
    """Yield these chunks, in order. `chunks` reads the disk, in a `disk` thread. `waits`: notes when it waits for the
    disk, and when it has no room.

    Raises: what `chunks` raises, after the chunks before it. However this is left, no thread reads any more then, and
    `chunks` is closed.
    """
    reader = _ReadAhead(workers, chunks, waits or StageWaits("disk"))
    reading = asyncio.create_task(reader.run(), name="read ahead")
    reading.add_done_callback(lambda _task: reader.read.set())
    try:
        while True:
            while not reader.ready and not reading.done():
                reader.read.clear()
                await reader.read.wait()
            if not reader.ready:
                reading.result()
                return
            chunk = reader.take()
            size = len(chunk.frame)
            yield chunk
            del chunk  # a reference during the wait for the next one would keep two in memory
            reader.release(size)
    finally:
        reading.cancel()
        await uncancelled(asyncio.wait([reading]))
        if not reading.cancelled():
            reading.exception()  # retrieved: it was raised, or the caller has left


class _ReadAhead:
    """Reads chunks until so many wait. `ready`: the waiting ones; `read`: set when there is one more."""

    def __init__(self, workers: Workers, chunks: Generator[Chunk, None, None], waits: StageWaits) -> None:
        self.ready: deque[Chunk] = deque()
        self.read = asyncio.Event()
        self._workers = workers
        self._chunks = chunks
        self._waits = waits
        self._held = 0  # bytes of frames
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Read all, then close the generator. Raises: what reading raises."""
        try:
            while True:
                while len(self.ready) >= CHUNKS_AHEAD or self._held >= FRAMES_HELD:
                    self._waits.head(None)
                    self._freed.clear()
                    await self._freed.wait()
                self._waits.head("disk")
                chunk = await self._workers.run_to_end(lambda: next(self._chunks, None))
                if chunk is None:
                    return
                self._held += len(chunk.frame)
                self.ready.append(chunk)
                del chunk
                self.read.set()
        finally:
            self._waits.head(None)
            await self._workers.run_to_end(self._chunks.close)

    def take(self) -> Chunk:
        """Return the next chunk to send; there must be one. `release` must follow."""
        self._freed.set()
        return self.ready.popleft()

    def release(self, size: int) -> None:
        """A frame of `size` bytes was sent."""
        self._held -= size
        self._freed.set()
