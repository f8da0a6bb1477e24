"""Chunks of one stream between the wire and the disk: decoded in parallel, given out in the order in which they came.

    event loop          cpu threads              the stream's admitting task
    claim, put  ----->  decode (parallel)  --->  get (in order), check and write, release

Bounds (docs/operations.md adds them up): CHUNK_ROOM bytes and CHUNKS_HELD chunks. A chunk counts from `claim`, before
its first byte is taken from the wire, until `release`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared import limits
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.wire.connection import Chunk, ChunkArriving

#: Frame and raw bytes of all chunks held for one stream. The largest possible chunk (20 MiB raw, incompressible)
#: fits once; of usual ones (4 MiB raw, 2 MiB frame) CHUNKS_HELD do.
CHUNK_ROOM: Final = 2 * limits.CHUNK_MAX + 2 * limits.MIB
#: Chunks held for one stream: one arriving, one being decoded, one being checked and written. Decoding takes no longer
#: than checking and writing (of 4 MiB: 0.4 to 2.8 ms, and 2.4 to 3.5 for the hashes alone), so more would only wait.
CHUNKS_HELD: Final = 3


@dataclass(frozen=True, slots=True)
class Decoded:
    """A chunk and its raw bytes. `arriving`: how it was announced."""

    arriving: ChunkArriving
    chunk: Chunk
    raw: bytes


class DecodeQueue:
    """The chunks of one stream that have arrived and are not written yet. For the event loop alone."""

    def __init__(self, cpu: Executor) -> None:
        """`cpu`: decodes."""
        self._cpu = cpu
        self._held = 0  # bytes
        self._count = 0  # chunks
        self._freed = asyncio.Event()
        self._queue: deque[tuple[ChunkArriving, Chunk, asyncio.Future[bytes]]] = deque()
        self._put = asyncio.Event()  # ... or no more will come
        self._ended = False

    def has_room(self, arriving: ChunkArriving) -> bool:
        """Whether `claim` would not wait. It never waits where nothing is held."""
        return self._count == 0 or (self._count < CHUNKS_HELD and self._held + _size(arriving) <= CHUNK_ROOM)

    async def claim(self, arriving: ChunkArriving) -> None:
        """Wait until there is room for this chunk, and count it. A caller that is cancelled has claimed nothing."""
        while not self.has_room(arriving):
            self._freed.clear()
            await self._freed.wait()
        self._count += 1
        self._held += _size(arriving)

    def put(self, arriving: ChunkArriving, chunk: Chunk) -> None:
        """Begin to decode a chunk that was claimed."""
        decoding = asyncio.get_running_loop().run_in_executor(self._cpu, decode_chunk, chunk)
        self._queue.append((arriving, chunk, decoding))
        self._put.set()

    def end(self) -> None:
        """No more chunks will be put: `get` returns None after the last one. May be repeated."""
        self._ended = True
        self._put.set()

    async def get(self) -> Decoded | None:
        """Return the next chunk, in order; None after the last one. Raises: ChunkError where it does not decode.

        For one task, which is not cancelled.
        """
        while not self._queue:
            if self._ended:
                return None
            self._put.clear()
            await self._put.wait()
        arriving, chunk, decoding = self._queue[0]
        await asyncio.wait([decoding])
        self._queue.popleft()
        return Decoded(arriving, chunk, decoding.result())

    def release(self, arriving: ChunkArriving) -> None:
        """Let the room of a chunk go: it is written, and its bytes are no longer needed."""
        self._count -= 1
        self._held -= _size(arriving)
        self._freed.set()

    async def close(self) -> None:
        """Drop what `get` has not given out. Returns when no thread decodes any of it."""
        while self._queue:
            _arriving, _chunk, decoding = self._queue.popleft()
            await asyncio.wait([decoding])
            decoding.exception()  # that the stream has ended is what counts


def decode_chunk(chunk: Chunk) -> bytes:
    """Return a chunk's raw bytes. Safe for threads. Raises: ChunkError where the frame is not allowed or not whole."""
    return Decompressor().decompress(chunk.frame, chunk.raw_length)


def _size(arriving: ChunkArriving) -> int:
    return arriving.payload_length + arriving.raw_length
