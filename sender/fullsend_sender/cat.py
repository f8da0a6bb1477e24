"""`fullsend cat`: brings one stored stream back, proven before it is written.

    event loop            threads               one thread                one thread's pace
    receive chunk  ---->  decode (parallel)  -> hash, compare, walk, write ----> pipe

At most READ_AHEAD bytes stand between the socket and the pipe. Beyond that we stop reading, and say so in heartbeats.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from fullsend_protocol import limits, messages
from fullsend_protocol.chunks import Decompressor
from fullsend_protocol.connection import Chunk, ChunkArriving
from fullsend_protocol.errors import ChunkError, FullsendError, StreamError
from fullsend_sender.pipes import Sink, Stopped
from fullsend_sender.proof import Proof

if TYPE_CHECKING:
    from fullsend_protocol.manifest import Manifest
    from fullsend_sender.link import Link
    from fullsend_sender.progress import Progress

#: Frames and raw bytes on their way. Room for one of the largest chunks, or for four to eight usual ones.
READ_AHEAD: Final = 2 * limits.CHUNK_MAX
#: Decoding outruns hashing and writing by far; two hide its delay.
_DECODERS: Final = 2


class Damaged(FullsendError):  # noqa: N818 - reads as what it says
    """What came back is not what was stored. The good bytes before it have been written."""


async def cat(link: Link, stream: str, fd: int, progress: Progress) -> Manifest:
    """Write the stored stream that `stream` names to the descriptor `fd`, and count it in `progress`.

    Returns: its manifest; every byte has been written and held against it. Raises: PeerError (NOT_FOUND, AMBIGUOUS,
    DAMAGED, ...), Damaged, BrokenPipeError (nobody reads `fd` any more), OSError, Unreachable, RemoteProtocolError.
    """
    await link.send(messages.Fetch(stream=stream))
    manifest = (await link.expect(messages.Sending)).manifest
    try:
        way_back = _WayBack(link, Proof(manifest), Sink(fd), progress)
        await way_back.run()
    except (ChunkError, StreamError) as error:
        raise Damaged(f"{manifest.dataset}@{manifest.snapshot}: what the receiver sent is damaged: {error}") from error
    return manifest


class _Room:
    """Bytes that may be on their way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._freed = asyncio.Event()

    def has(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._limit

    async def take(self, size: int) -> None:
        while not self.has(size):
            self._freed.clear()
            await self._freed.wait()
        self._used += size

    def give(self, size: int) -> None:
        self._used -= size
        self._freed.set()


class _WayBack:
    """One stream on its way from the link to the sink."""

    def __init__(self, link: Link, proof: Proof, sink: Sink, progress: Progress) -> None:
        self._link = link
        self._progress = progress
        self._proof = proof
        self._sink = sink
        self._room = _Room(READ_AHEAD)
        # Unbounded as a queue: what stands in it is paid for in _room. None: the end.
        self._queue: asyncio.Queue[tuple[Chunk, Future[bytes], int] | None] = asyncio.Queue()
        self._local = threading.local()
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._receive(), name="receive"), asyncio.create_task(self._write(), name="write")]
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._sink.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._sink.close()

    async def _receive(self) -> None:
        cost = 0
        while True:
            match await self._link.receive():
                case ChunkArriving(payload_length=payload_length, raw_length=raw_length):
                    cost = payload_length + raw_length
                    if self._room.has(cost):
                        await self._room.take(cost)
                    else:
                        with self._link.not_reading("output"):
                            await self._room.take(cost)
                case Chunk() as chunk:
                    future = self._decoders.submit(self._decode, chunk)
                    self._queue.put_nowait((chunk, future, cost))
                case messages.Done():
                    self._queue.put_nowait(None)
                    return
                case other:
                    raise self._link.unexpected(other)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while (item := await self._queue.get()) is not None:
            chunk, future, cost = item
            raw = await asyncio.wrap_future(future)
            await loop.run_in_executor(self._writer, self._prove_and_write, chunk, raw)
            self._progress.add(len(raw), len(chunk.frame))
            self._room.give(cost)
        self._proof.finish()

    def _decode(self, chunk: Chunk) -> bytes:
        decompressor: Decompressor | None = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = Decompressor()
        return decompressor.decompress(chunk.frame, chunk.raw_length)

    def _prove_and_write(self, chunk: Chunk, raw: bytes) -> None:
        self._proof.take(raw, chunk.sha256)
        try:
            self._sink.write(raw)
        except Stopped:
            raise asyncio.CancelledError from None
