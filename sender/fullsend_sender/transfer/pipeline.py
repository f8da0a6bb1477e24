r"""From a pipe to chunks for sending: read, walk, cut, hash, compress in threads, in order.

    reader thread                     pool of threads          event loop
    poll, read into a buffer
    walk (Walker), cut (Cutter)
    hash (Segments)
    chunk closed ------------------>  compress
              \--- its place in line, with a future --------->  async for ready in pipeline

After the first chunk the reader waits until `proceed` says what has arrived before. Of a replayed stream it hashes and
compares that much, and passes none of it on.

One thread reads and hashes, because both are sequential; read(2), SHA-256 and zstd release the GIL. The raw stream in
flight is limited in bytes (`raw_in_flight`): beyond that the reader stops reading, the pipe fills, and the producer
waits.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from fullsend_protocol.shared.errors import IncompleteStream
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.stream.chunks import Cutter, Level
from fullsend_protocol.stream.facts import Facts, check_package, conclude
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.host.options import LEVEL_AUTO, LevelSetting
from fullsend_sender.transfer.adaptive_level import LADDER, AdaptiveLevel
from fullsend_sender.transfer.buffers import Buffer, Buffers
from fullsend_sender.transfer.memory import compressing, default_threads, raw_in_flight, room_for_levels
from fullsend_sender.transfer.pipes import PIPE_SIZE, PipeStopped
from fullsend_sender.transfer.segments import Hashed, Ready, Segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from fullsend_protocol.format.manifest import Segment


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The identity of the stream, after its first chunk. `compound`: the end may change it."""

    facts: Facts
    compound: bool


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk that had arrived before, with the same bytes. `raw_length`: bytes."""

    raw_length: int


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The identity of the whole stream. `raw_bytes`: its size."""

    facts: Facts
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class _Pending:
    """A chunk whose frame is being made. `cost`: bytes to release in the buffers afterwards."""

    start: int
    size: int
    hashed: Hashed
    frame: Future[bytes]
    cost: int


class RawSource(Protocol):
    """The source of the raw bytes; such as pipes.Source."""

    @property
    def at_end(self) -> bool:
        """Whether all was read."""

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte. Returns: bytes read, 0 at the end. Raises: OSError, PipeStopped, StreamError."""

    def stop(self) -> None:
        """Make this and every later read raise PipeStopped. From any thread."""

    def close(self) -> None:
        """Free the resources."""


class Pipeline:
    """The chunks of the stream from `source`, read from its first byte to its end.

        async with Pipeline(Source(fd)) as pipeline:
            opened = await pipeline.opened()
            pipeline.proceed([])
            async for ready in pipeline: ...
            pipeline.verdict

    Leaving the block in any way ends the threads and closes the source; the caller keeps the descriptor. A caller that
    is cancelled while it waits for a chunk loses none.

    `segments`: the hashes and the proof; the caller uses the event loop's half.
    """

    def __init__(
        self,
        source: RawSource,
        *,
        level: LevelSetting = LEVEL_AUTO,
        threads: int | None = None,
        walker: Callable[[], Walker] = Walker,
        waits: StageWaits | None = None,
    ) -> None:
        """`walker`: makes a walker at the source's start; called in the reader's thread. `waits`: the reader is its
        head, and notes when it waits for the "source", when it hashes ("hash"), and when it has no room.
        """
        self._waits = waits or StageWaits("source", "receiver")
        threads = threads or default_threads()
        self.segments = Segments()
        if level == LEVEL_AUTO:
            self._levels = AdaptiveLevel(compressing(threads, LADDER), room=room_for_levels(threads))
        else:
            self._levels = AdaptiveLevel({level: threads})
        self._source = source
        self._make_walker = walker
        self._buffers = Buffers(raw_in_flight(threads))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._reader = threading.Thread(target=self._read, name="read")
        self._loop: asyncio.AbstractEventLoop | None = None
        # The queue is not limited itself: _buffers limits the bytes in it.
        self._queue: asyncio.Queue[StreamStart | Skipped | _Pending | StreamEnd | Exception] = asyncio.Queue()
        self._opened: StreamStart | None = None
        self._taken: _Pending | None = None  # taken from the queue; its frame is still being made
        self._failure: Exception | None = None
        self._verdict: StreamEnd | None = None
        self._told = threading.Event()  # set when `proceed` was called, or the block was left
        self._stopped = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._reader.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._told.set()
        self._source.stop()
        self._buffers.stop()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._reader.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    # --- on the loop ---------------------------------------------------------------------------------------

    @property
    def at_end(self) -> bool:
        """Whether the source has been read to its end: then its writer has closed it."""
        return self._source.at_end

    async def opened(self) -> StreamStart:
        """Wait for the first chunk, or for the end of a stream that is shorter.

        Raises: StreamError (no send stream, a resumed one, cut within its first chunk, ...).
        """
        while self._opened is None:
            await self._next()
        return self._opened

    def proceed(self, known: Sequence[Segment]) -> None:
        """Continue reading behind the first chunk. `known`: segments that arrived before, from the stream's first byte
        on, also if the source begins behind them.
        """
        self.segments.start(known)
        self._told.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ready | Skipped:
        """Return the next chunk, in stream order. Raises: StreamError (DifferentBytes among them)."""
        while self._verdict is None:
            if self._taken is None:
                match await self._next():
                    case Skipped() as skipped:
                        return skipped
                    case _Pending() as pending:
                        self._taken = pending
                    case None:
                        continue
            pending = self._taken
            self._waits.behind("compression")
            # Not `await` the future itself: a cancellation here would cancel the compression, too.
            await asyncio.wait([asyncio.wrap_future(pending.frame)])
            frame = pending.frame.result()
            self._taken = None
            self._buffers.release(pending.cost)
            hashed = pending.hashed
            chunk = Chunk(pending.start, pending.size, hashed.sha256, frame, hashed.starts_segment)
            return Ready(chunk, hashed.before)
        raise StopAsyncIteration

    @property
    def levels(self) -> dict[Level, int]:
        """How many chunks each level was used for."""
        return dict(self._levels.used)

    @property
    def verdict(self) -> StreamEnd:
        """The identity of the whole stream; only after the last chunk."""
        if self._verdict is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._verdict

    async def _next(self) -> _Pending | Skipped | None:
        """Take one item from the queue. Returns: None if it was not a chunk. Raises: the reader's error."""
        if self._failure is not None:
            raise self._failure
        item = await self._queue.get()
        match item:
            case _Pending() | Skipped():
                return item
            case StreamStart():
                self._opened = item
            case StreamEnd():
                self._verdict = item
            case Exception():
                self._failure = item
                raise item
        return None

    # --- in the reader thread ------------------------------------------------------------------------------

    def _post(self, item: StreamStart | Skipped | _Pending | StreamEnd | Exception) -> None:
        assert self._loop is not None  # noqa: S101 - for mypy; the thread starts after it is set
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def _read(self) -> None:
        try:
            self._post(self._run())
        except PipeStopped:
            pass
        except Exception as error:  # noqa: BLE001 - any error is raised again where the chunks are awaited
            self._post(error)

    def _run(self) -> StreamEnd:
        waits = self._waits
        walker = self._make_walker()
        cutter = Cutter(walker)
        self.segments.begin(walker.offset)
        buffer = self._buffers.take()
        filled = walked = 0  # bytes of `buffer`
        while True:
            if filled == buffer.capacity:
                waits.head(None)
                self._buffers.grow(buffer)
            waits.head("source")
            try:
                count = self._source.readinto(buffer.view[filled : filled + PIPE_SIZE])
            except OSError as error:
                raise IncompleteStream(
                    f"reading the stream failed after {walker.offset} bytes: {error.strerror}"
                ) from None
            waits.head("hash")
            if not count:
                break
            filled += count
            while walked < filled:
                # Hashed step by step, while the data are still in the processor's cache.
                start, walked = walked, cutter.walk(buffer.data, walked, filled)
                self.segments.update(buffer.view[start:walked])
                if cutter.closed:
                    rest = bytes(buffer.view[walked:filled])
                    self._close_chunk(cutter, buffer)
                    waits.head(None)
                    buffer = self._buffers.take()
                    waits.head("hash")
                    buffer.view[: len(rest)] = rest
                    filled, walked = len(rest), 0
        walker.finish()
        facts = conclude(walker.begins)
        check_package(walker.begins)
        if cutter.size:
            self._close_chunk(cutter, buffer)
        self.segments.finish()
        waits.head(None)
        return StreamEnd(facts, walker.offset)

    def _close_chunk(self, cutter: Cutter, buffer: Buffer) -> None:
        """Pass a chunk on, or leave it out. Raises: DifferentBytes."""
        start, size = cutter.start, cutter.size
        if start == 0:
            begins = cutter.walker.begins
            self._post(StreamStart(conclude(begins), begins[0].compound))
            self._waits.head(None)
            self._told.wait()
            if self._stopped:
                raise PipeStopped
            self._waits.head("hash")
        cutter.next()
        hashed = self.segments.close()
        if hashed is None:
            self._buffers.recycle(buffer)
            self._buffers.release(buffer.capacity)
            self._post(Skipped(size))
        else:
            level = self._levels.next(time.monotonic(), start, self._waits.seconds)
            frame = self._pool.submit(self._compress, buffer, size, level)
            self._post(_Pending(start, size, hashed, frame, buffer.capacity))

    # --- in the pool ---------------------------------------------------------------------------------------

    def _compress(self, buffer: Buffer, size: int, level: Level) -> bytes:
        frame = self._levels.compress(buffer.view[:size], level, time.monotonic)
        self._buffers.recycle(buffer)
        return frame
