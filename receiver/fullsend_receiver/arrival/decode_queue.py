"""Chunks of one stream between the wire and the disk: decoded in parallel, returned in the order of arrival.

    event loop          cpu threads              the stream's writing task, and cpu threads
    claim, put  ----->  decode (parallel)  --->  get (in order), check ---> write, release

A chunk for which that task waits is not decoded ahead: the thread that checks it decodes it, while its bytes are in the
processor's cache. If the wire is slower than the threads, that is every chunk.

Limits (docs/operations.md adds them up): CHUNK_ROOM bytes and CHUNKS_HELD chunks, with few processors fewer. A chunk
counts from `claim`, before its first byte is read from the wire, until `release`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared import limits
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.wire.connection import Chunk, ChunkArriving

#: Frame and raw bytes of all chunks in memory for one stream. The largest possible chunk (20 MiB raw, incompressible)
#: fits once; of usual ones (4 MiB raw, at most as much in the frame) CHUNKS_HELD fit.
CHUNK_ROOM: Final = 2 * limits.CHUNK_MAX + 2 * limits.MIB
#: Chunks in memory for one stream where there are four processors or more: one arriving, two being decoded, one being
#: checked, one being written. Of 4 MiB, decoding takes up to 3.3 ms, checking 2.4 and writing 1.6 to 4.0. So two decode
#: as fast as one checks, and more would only wait.
CHUNKS_HELD: Final = 5
#: ... and with one or two processors.
_CHUNKS_HELD_LEAST: Final = 3


def chunks_held(processors: int) -> int:
    """Return how many chunks of one stream may be in memory: one that arrives, and one for each processor."""
    return max(_CHUNKS_HELD_LEAST, min(CHUNKS_HELD, processors + 1))


@dataclass(frozen=True, slots=True)
class Arrived:
    """A chunk that is next in order. `arriving`: its announcement; `decoded`: its raw bytes, None: not decoded yet."""

    arriving: ChunkArriving
    chunk: Chunk
    decoded: bytes | None

    def raw(self) -> bytes:
        """Return the raw bytes. In a thread. Raises: ChunkError."""
        return decode_chunk(self.chunk) if self.decoded is None else self.decoded


class DecodeQueue:
    """The chunks of one stream that have arrived and are not written yet. Not thread-safe: for the event loop."""

    def __init__(self, cpu: Executor, processors: int | None = None) -> None:
        """`cpu`: the threads that decode; `processors`: how many they have, None: as many as this process may use."""
        self._cpu = cpu
        self._most = chunks_held(len(os.sched_getaffinity(0)) if processors is None else processors)
        self._held = 0  # bytes
        self._count = 0  # chunks
        self._freed = asyncio.Event()
        self._queue: deque[tuple[ChunkArriving, Chunk, asyncio.Future[bytes] | None]] = deque()
        self._wanted = False  # `get` waits for the next one
        self._put = asyncio.Event()  # a chunk was put, or no more will come
        self._ended = False
        self._stopped = False

    def has_room(self, arriving: ChunkArriving) -> bool:
        """Whether `claim` would not wait. It never waits if no chunk is in memory."""
        return self._count == 0 or (self._count < self._most and self._held + _size(arriving) <= CHUNK_ROOM)

    async def claim(self, arriving: ChunkArriving) -> None:
        """Wait until there is room for this chunk, and count it. A cancelled call has claimed nothing."""
        while not self.has_room(arriving):
            self._freed.clear()
            await self._freed.wait()
        self._count += 1
        self._held += _size(arriving)

    def put(self, arriving: ChunkArriving, chunk: Chunk) -> None:
        """Queue a claimed chunk, and begin to decode it if it has to wait."""
        decoding = None
        if not self._wanted:
            decoding = asyncio.get_running_loop().run_in_executor(self._cpu, decode_chunk, chunk)
        self._wanted = False
        self._queue.append((arriving, chunk, decoding))
        self._put.set()

    def end(self) -> None:
        """No more chunks will be put: `get` returns None after the last one. May be repeated."""
        self._ended = True
        self._put.set()

    def stop(self) -> None:
        """Let `get` return None from now on, whatever waits or may still come."""
        self._stopped = True
        self._put.set()

    async def get(self) -> Arrived | None:
        """Return the next chunk, in order; None after the last one. Raises: ChunkError if it cannot be decoded.

        For one task, which must not be cancelled.
        """
        while not (self._queue or self._stopped or self._ended):
            self._put.clear()
            self._wanted = True
            await self._put.wait()
        if self._stopped or not self._queue:
            return None
        arriving, chunk, decoding = self._queue[0]
        if decoding is not None:
            await asyncio.wait([decoding])
        self._queue.popleft()
        return Arrived(arriving, chunk, None if decoding is None else decoding.result())

    def release(self, arriving: ChunkArriving) -> None:
        """Release the room of a chunk: it is written, and its bytes are no longer needed."""
        self._count -= 1
        self._held -= _size(arriving)
        self._freed.set()

    async def close(self) -> None:
        """Drop the chunks that `get` has not returned. Returns when no thread is decoding any of them."""
        while self._queue:
            _arriving, _chunk, decoding = self._queue.popleft()
            if decoding is not None:
                await asyncio.wait([decoding])
                decoding.exception()  # retrieved, not raised: the stream has ended


def decode_chunk(chunk: Chunk) -> bytes:
    """Return a chunk's raw bytes. Thread-safe. Raises: ChunkError if the frame is not allowed or not whole."""
    return Decompressor().decompress(chunk.frame, chunk.raw_length)


def _size(arriving: ChunkArriving) -> int:
    return arriving.payload_length + arriving.raw_length
