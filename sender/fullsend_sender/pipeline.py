r"""From a pipe to chunks that are ready to be sent: read, walk, cut, hash, compress in threads, in order.

    reader thread                     pool of threads          event loop
    poll, read into a buffer
    walk (Walker), cut (Cutter)
    hash (SegmentHash)
    chunk closed ------------------>  compress
              \--- its place in line, with a future --------->  async for chunk in pipeline

One thread reads and hashes: both go by order, and read(2), SHA-256 and zstd let the other threads run meanwhile. All
is bounded by the bytes of raw stream in flight (`raw_in_flight`): beyond that the reader stops reading, the pipe
fills, and the producer waits.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from fullsend_protocol import limits
from fullsend_protocol.chunks import LEVEL_DEFAULT, Compressor, Cutter, SegmentHash
from fullsend_protocol.connection import Chunk
from fullsend_protocol.errors import IncompleteStream
from fullsend_protocol.facts import Facts, check_package, conclude
from fullsend_protocol.manifest import Segment
from fullsend_protocol.records import Walker
from fullsend_sender.buffers import FIRST, Buffer, Buffers
from fullsend_sender.pipes import PIPE_SIZE, Source, Stopped

if TYPE_CHECKING:
    from types import TracebackType

#: Bytes of raw stream in flight. Six buffers: one being read, one being sent, four in the threads. It holds the
#: largest chunk (20 MiB), and leaves the sender's budget of 160 MiB enough for the interpreter (40), the window of
#: unacknowledged chunks (64), and the frames that the threads are writing.
RAW_IN_FLIGHT: Final = 32 * limits.MIB
#: As many threads as RAW_IN_FLIGHT feeds.
_THREADS_BY_DEFAULT: Final = RAW_IN_FLIGHT // FIRST - 2


def default_threads() -> int:
    """Return how many threads compress unless the user says otherwise: the CPUs we may use, within our memory."""
    return min(len(os.sched_getaffinity(0)), _THREADS_BY_DEFAULT)


def raw_in_flight(threads: int) -> int:
    """Return the bytes of raw stream in flight that keep this many threads busy."""
    return max(RAW_IN_FLIGHT, (threads + 2) * FIRST)


@dataclass(frozen=True, slots=True)
class Opened:
    """What the stream says of itself once its first chunk is closed. `compound`: the end may say otherwise."""

    facts: Facts
    compound: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the stream turned out to be, walked to its end and found whole."""

    facts: Facts
    raw_bytes: int
    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A chunk in its place in line, while a thread may still be compressing it."""

    raw_offset: int
    raw_length: int
    sha256: bytes
    frame: Future[bytes]
    cost: int  # of its buffer


class Pipeline:
    """Reads one send stream from a descriptor, from its first byte.

        async with Pipeline(fd) as pipeline:
            opened = await pipeline.opened()
            async for chunk in pipeline:
                ...
            verdict = pipeline.verdict

    Where the stream is at fault, or cannot be read, the good chunks before the fault come first and then the error.
    The chunk in which the stream ends is given out only if the stream is whole. Leaving the block, however it is left,
    ends the threads; the descriptor stays the caller's.
    """

    def __init__(self, fd: int, *, level: int = LEVEL_DEFAULT, threads: int | None = None) -> None:
        threads = threads or default_threads()
        self._level = level
        self._source = Source(fd)
        self._buffers = Buffers(raw_in_flight(threads))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._local = threading.local()
        self._reader = threading.Thread(target=self._read, name="read")
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Whether the descriptor has been read to its end: then whoever wrote to it has closed it.
        self.at_end = False
        # Unbounded as a queue: what stands in it is paid for in _buffers.
        self._queue: asyncio.Queue[Opened | _Pending | Verdict | Exception] = asyncio.Queue()
        self._opened: Opened | None = None
        self._failure: Exception | None = None
        self._verdict: Verdict | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._reader.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.stop()
        self._buffers.stop()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._reader.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    # --- on the loop ---------------------------------------------------------------------------------------

    async def opened(self) -> Opened:
        """Wait for the first chunk, or for the end of a stream that is shorter.

        Raises: StreamError (no send stream, a resumed one, cut within its first chunk, ...).
        """
        while self._opened is None:
            await self._next()
        return self._opened

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk, in stream order. Raises: StreamError."""
        while self._verdict is None:
            pending = await self._next()
            if pending is not None:
                frame = await asyncio.wrap_future(pending.frame)
                self._buffers.release(pending.cost)
                return Chunk(pending.raw_offset, pending.raw_length, pending.sha256, frame)
        raise StopAsyncIteration

    @property
    def verdict(self) -> Verdict:
        """What the stream turned out to be; only after the last chunk."""
        if self._verdict is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._verdict

    async def _next(self) -> _Pending | None:
        """Take one item from the queue. Returns: None where it was no chunk. Raises: what the reader failed with."""
        if self._failure is not None:
            raise self._failure
        item = await self._queue.get()
        match item:
            case _Pending():
                return item
            case Opened():
                self._opened = item
            case Verdict():
                self._verdict = item
            case Exception():
                self._failure = item
                raise item
        return None

    # --- in the reader thread ------------------------------------------------------------------------------

    def _post(self, item: Opened | _Pending | Verdict | Exception) -> None:
        assert self._loop is not None  # noqa: S101 - for mypy; the thread starts after it is set
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def _read(self) -> None:
        try:
            self._post(self._run())
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again where the chunks are awaited
            self._post(error)

    def _run(self) -> Verdict:
        walker = Walker()
        cutter = Cutter(walker)
        segment = SegmentHash(0)
        buffer = self._buffers.take()
        filled = walked = 0  # bytes of `buffer`
        while True:
            if filled == buffer.capacity:
                self._buffers.grow(buffer)
            try:
                count = self._source.readinto(buffer.view[filled : filled + PIPE_SIZE])
            except OSError as error:
                raise IncompleteStream(
                    f"reading the stream failed after {walker.offset} bytes: {error.strerror}"
                ) from None
            if not count:
                self.at_end = True
                break
            filled += count
            while walked < filled:
                # Hashed step by step, while what was read is still in the processor's cache.
                before, walked = walked, cutter.walk(buffer.data, walked, filled)
                digest = segment.update(buffer.view[before:walked])
                if cutter.closed:
                    rest = bytes(buffer.view[walked:filled])
                    self._close_chunk(walker, cutter, buffer, digest)
                    buffer = self._buffers.take()
                    buffer.view[: len(rest)] = rest
                    filled, walked = len(rest), 0
        walker.finish()
        facts = conclude(walker.begins)
        check_package(walker.begins)
        if cutter.size:
            self._close_chunk(walker, cutter, buffer, segment.digest())
        sha256 = segment.digest().hex()
        return Verdict(facts, walker.offset, [Segment(start=0, end=walker.offset, sha256=sha256)])

    def _close_chunk(self, walker: Walker, cutter: Cutter, buffer: Buffer, digest: bytes) -> None:
        if cutter.start == 0:
            self._post(Opened(conclude(walker.begins), walker.begins[0].compound))
        start, size = cutter.start, cutter.size
        frame = self._pool.submit(self._compress, buffer, size)
        self._post(_Pending(start, size, digest, frame, buffer.capacity))
        cutter.next()

    # --- in the pool ---------------------------------------------------------------------------------------

    def _compress(self, buffer: Buffer, size: int) -> bytes:
        compressor: Compressor | None = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = Compressor(self._level)
        frame = compressor.compress(buffer.view[:size])
        self._buffers.recycle(buffer)
        return frame
