"""`fullsend cat`: writes one stored stream, and proves each byte before it is written.

    event loop            threads               one thread               another thread
    receive chunk  ---->  decode (parallel)  -> hash, compare, walk ---> write to the pipe

At most READ_AHEAD bytes are between the socket and the pipe. Beyond that cat stops reading, and heartbeats say so.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.proof import Proof
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, FullsendError, StreamError
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, ChunkArriving
from fullsend_sender.host.options import RETRY_FOR
from fullsend_sender.transfer.link import DEFAULT_TIMEOUTS, Timeouts, connect
from fullsend_sender.transfer.pipes import PipeStopped, Sink
from fullsend_sender.transfer.retry import RetryTimer, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from fullsend_cli.progress import Progress
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_protocol.stream.checksums import Piece
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.restore.onto_base import OntoBase
    from fullsend_sender.restore.resume import Rest
    from fullsend_sender.restore.salvage import Salvage
    from fullsend_sender.transfer.link import Link

#: Frames and raw bytes in flight. Room for one of the largest chunks, or for four to eight usual ones.
READ_AHEAD: Final = 2 * limits.CHUNK_MAX
#: Two threads decode faster than one hashes.
_DECODERS: Final = 2


@dataclass(frozen=True, slots=True)
class _Proven:
    """Pieces to write, and what they count when they are written: bytes of the raw stream, of frames, and of _room."""

    pieces: list[Piece]
    raw: int = 0
    wire: int = 0
    cost: int = 0


class DamagedTransfer(FullsendError):  # noqa: N818 - reads as what it says
    """What came back is not what was stored. The correct bytes before it have been written."""


async def cat(
    endpoint: Endpoint,
    identity: Identity,
    stream: str,
    fd: int,
    progress: Progress,
    *,
    retry_for: float = RETRY_FOR,
    reached: bool = False,
    rest: Rest | None = None,
    prove: Callable[[Manifest], Proof | OntoBase] = Proof,
    salvage: Salvage | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Manifest:
    """Write the stored stream that `stream` names to the descriptor `fd`, and count it in `progress`. A lost connection
    is made again, and the stream resumes behind its last chunk.

    `retry_for`: seconds that the receiver may stay away; `reached`: it answered a moment ago, so cat waits for it even
    if it is away now; `rest`: the wanted part of the stream (used up afterwards), None: all of it, as `prove` passes it
    on; `salvage`: leave out what is damaged, and do not compare the rest with the manifest.

    Returns: its manifest; without `salvage` every byte was written and compared with it. Raises: PeerError (NOT_FOUND,
    AMBIGUOUS, DAMAGED, ...), DamagedTransfer, BrokenPipeError (the reader has closed `fd`), OSError, Unreachable,
    RemoteProtocolError.
    """
    dial = partial(connect, endpoint, identity, timeouts=timeouts)
    retry_timer = RetryTimer(retry_for)
    download = _Download(
        dial,
        stream,
        sink=Sink(fd),
        progress=progress,
        retry_timer=retry_timer,
        reached=reached,
        proof=rest,
        prove=prove,
        salvage=salvage,
    )
    try:
        return await download.run()
    except (ChunkError, StreamError) as error:
        raise DamagedTransfer(f"{download.name}: what the receiver sent is damaged: {error}") from error


class _ByteBudget:
    """A budget of bytes in flight."""

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


class _Download:
    """One stream from the receiver to the sink, over as many connections as needed."""

    def __init__(
        self,
        dial: Callable[[], AbstractAsyncContextManager[tuple[Link, str]]],
        stream: str,
        *,
        sink: Sink,
        progress: Progress,
        retry_timer: RetryTimer,
        reached: bool,
        proof: Rest | None,
        prove: Callable[[Manifest], Proof | OntoBase],
        salvage: Salvage | None,
    ) -> None:
        self._dial = dial
        self._stream = stream
        self._progress = progress
        self._retry_timer = retry_timer
        self._reached = reached
        self._proof: Proof | OntoBase | Rest | None = proof  # None: nothing has come yet
        self._prove = prove
        self._salvage = salvage
        self._offset = proof.start if proof else 0  # where the next chunk begins
        self._sink = sink
        # Its head is the connection.
        self._waits = progress.waits or StageWaits("wire", "target")
        self._room = _ByteBudget(READ_AHEAD)
        # The queue is not limited itself: _room limits the bytes in it. None: the end.
        self._queue: asyncio.Queue[tuple[Chunk, Future[bytes], int] | None] = asyncio.Queue()
        # One waits while the one before it is written; another one is being proven meanwhile. None: the end.
        self._proven: asyncio.Queue[_Proven | None] = asyncio.Queue(1)
        self._local = threading.local()
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._prover = ThreadPoolExecutor(1, thread_name_prefix="prove")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    @property
    def name(self) -> str:
        """The stream's name, for a person."""
        return f"{self._proof.manifest.dataset}@{self._proof.manifest.snapshot}" if self._proof else self._stream

    async def run(self) -> Manifest:
        tasks = [
            asyncio.create_task(self._fetch(), name="receive"),
            asyncio.create_task(self._prove_all(), name="prove"),
            asyncio.create_task(self._write_all(), name="write"),
        ]
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._sink.stop()
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:  # a second cancellation may come meanwhile
                await asyncio.to_thread(self._join)
        assert self._proof is not None  # noqa: S101 - for mypy: otherwise the fetch has failed
        return self._proof.manifest

    async def _fetch(self) -> None:
        """Receive all chunks. Raises: as `cat`."""
        while True:
            try:
                async with self._dial() as (link, _name):
                    fetch = messages.Fetch(stream=self._stream, offset=self._offset, until=None)
                    self._begin((await link.ask(fetch, messages.Sending)).manifest)
                    self._waits.head("wire")
                    await self._receive(link)
                    return
            except FullsendError as error:
                if self._proof is None and not self._reached:
                    raise
                self._progress.waiting = is_transient(error)
                await self._retry_timer.wait(error)

    def _begin(self, manifest: Manifest) -> None:
        """Check that what follows is the stream that was begun. Raises: ChunkError."""
        if self._proof is None:
            self._proof = self._prove(manifest)
        elif manifest.file_sha256 != self._proof.manifest.file_sha256:
            raise ChunkError("it continues with another stream")
        self._progress.waiting = False
        self._retry_timer.reconnected()

    def _join(self) -> None:
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._prover.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._sink.close()

    async def _receive(self, link: Link) -> None:
        """Receive the chunks of one connection. Raises: as Link.receive."""
        taken = 0  # bytes taken from _room for an announced chunk
        try:
            while True:
                match await link.receive():
                    case ChunkArriving(payload_length=payload_length, raw_length=raw_length):
                        cost = payload_length + raw_length
                        if self._room.has(cost):
                            await self._room.take(cost)
                        else:
                            self._waits.head(None)
                            with link.not_reading("output"):
                                await self._room.take(cost)
                            self._waits.head("wire")
                        taken = cost
                    case Chunk() as chunk:
                        future = self._decoders.submit(self._decode, chunk)
                        self._queue.put_nowait((chunk, future, taken))
                        taken = 0
                        self._offset += chunk.raw_length
                        self._retry_timer.progressed()
                    case messages.Done():
                        self._queue.put_nowait(None)
                        self._waits.head(None)
                        return
                    case other:
                        raise link.unexpected(other)
        finally:
            self._room.give(taken)

    async def _prove_all(self) -> None:
        """Prove one chunk after another, and pass it on. Raises: ChunkError, StreamError, when what was right before
        has been written.
        """
        loop = asyncio.get_running_loop()
        try:
            while (item := await self._queue.get()) is not None:
                chunk, future, cost = item
                raw, why = None, ""
                self._waits.behind("decode")
                try:
                    raw = await asyncio.wrap_future(future)
                except ChunkError as error:
                    if self._salvage is None:
                        raise
                    why = str(error)
                self._waits.behind("hash")
                pieces = await loop.run_in_executor(self._prover, self._prove_one, chunk, raw, why)
                proven = _Proven(pieces, chunk.raw_length, len(chunk.frame), cost)
                # A reference during a wait would keep one more chunk in memory.
                del item, chunk, future, raw, pieces
                self._waits.behind("target")
                await self._proven.put(proven)
                del proven
            await self._proven.put(_Proven(await loop.run_in_executor(self._prover, self._finish)))
        except (ChunkError, StreamError):
            await self._proven.join()
            raise
        await self._proven.put(None)

    async def _write_all(self) -> None:
        """Write what is proven, to its end. Raises: OSError."""
        loop = asyncio.get_running_loop()
        while (proven := await self._proven.get()) is not None:
            await loop.run_in_executor(self._writer, self._write, proven.pieces)
            self._progress.add(proven.raw, proven.wire)
            self._room.give(proven.cost)
            self._proven.task_done()
            del proven
        await loop.run_in_executor(self._writer, self._sink.finish)

    def _decode(self, chunk: Chunk) -> bytes:
        decompressor: Decompressor | None = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = Decompressor()
        return decompressor.decompress(chunk.frame, chunk.raw_length)

    def _prove_one(self, chunk: Chunk, raw: bytes | None, why: str) -> list[Piece]:
        if self._salvage is not None:
            return self._salvage.take(chunk, raw, why)
        assert self._proof is not None  # noqa: S101 - for mypy: there was a beginning
        assert raw is not None  # noqa: S101 - for mypy: otherwise its error was raised
        return self._proof.take(raw, chunk.sha256)

    def _finish(self) -> list[Piece]:
        if self._salvage is not None:
            return []
        assert self._proof is not None  # noqa: S101 - for mypy: there was an end, so there was a beginning
        return self._proof.finish()

    def _write(self, pieces: list[Piece]) -> None:
        try:
            for piece in pieces:
                self._sink.write(piece)
        except PipeStopped:
            raise asyncio.CancelledError from None
