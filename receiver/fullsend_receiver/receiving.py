"""Taking one pushed stream: chunks in order, acknowledgements as they become durable, then the commit.

Bounds (docs/operations.md adds them up): one chunk is in work while the next arrives, and the next is let in only
when both fit into CHUNK_ROOM.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from fullsend_protocol import limits
from fullsend_protocol.connection import Chunk, ChunkArriving, Event
from fullsend_protocol.errors import RemoteProtocolError
from fullsend_protocol.messages import Accept, Ack, Finish, Push, Stop, Stopped
from fullsend_receiver.channel import Channel
from fullsend_receiver.commit import commit
from fullsend_receiver.ingest import Ingest
from fullsend_receiver.partial import Partial, discard, partial_key
from fullsend_receiver.store import Store

#: Frame and raw bytes of all chunks held for one stream. The largest possible chunk (20 MiB raw, incompressible)
#: fits once; of usual ones (4 MiB raw, 2 MiB frame) one is in work while the next arrives.
CHUNK_ROOM: Final = 2 * limits.CHUNK_MAX + 2 * limits.MIB
#: Durability comes in batches: this much, or this long after the first byte that waits, whichever is first.
BATCH_BYTES: Final = 32 * limits.MIB
BATCH_SECONDS: Final = 1.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Workers:
    """Threads shared by all streams: `cpu` decodes, hashes and writes; `disk` waits for fsync."""

    cpu: Executor
    disk: Executor


class Receiving:
    """One stream that is being pushed over one channel."""

    def __init__(self, store: Store, channel: Channel, workers: Workers, sender: str, push: Push) -> None:
        """Nothing is touched before `run`."""
        self._store = store
        self._channel = channel
        self._workers = workers
        self._sender = sender
        self._push = push
        self._work: asyncio.Future[None] | None = None  # the chunk in work
        self._held = 0  # bytes of that chunk
        self._between = asyncio.Lock()  # held while a chunk is in work, so that a batch ends between two
        self._dirty = asyncio.Event()  # something waits to become durable
        self._full = asyncio.Event()  # ... and does not wait for more
        self._ended = False  # no more chunks will come

    async def run(self, program: str) -> PurePosixPath | None:
        """Accept the stream and take it to its end.

        Returns: the stored file, None where the sender stopped. Raises: StreamError, ChunkError, ProtocolError,
        Unreachable, OSError, StoreError. Whatever ends it, cancellation too, what has arrived is made durable and
        stays as a partial.
        """
        key = partial_key(self._sender, self._push)
        partial = await self._on_disk(lambda: Partial(self._store, key, self._sender, self._push))
        ingest = Ingest(partial)
        try:
            await self._channel.send(Accept(offset=0, segments=[]))
            acknowledging = asyncio.create_task(self._acknowledge(ingest))
            try:
                end = await self._take_all(ingest, acknowledging)
            finally:
                await _uncancelled(self._settle(acknowledging))
            if isinstance(end, Stop):
                await self._channel.send(Stopped(offset=ingest.offset))
                return None
            self._channel.busy = "committing"
            # Not to be abandoned half-way by a shutdown: it is short, and a restart would have to complete it.
            return await _uncancelled(
                self._on_disk(
                    lambda: commit(
                        self._store,
                        self._sender,
                        ingest,
                        end,
                        sender_program=program,
                        zfs_version=self._push.zfs_version,
                    )
                )
            )
        finally:
            self._channel.busy = ""
            partial.close()
            if not ingest.chunks:
                discard(self._store, key)

    async def _take_all(self, ingest: Ingest, acknowledging: asyncio.Task[None]) -> Finish | Stop:
        """Take chunks until the sender says that it is done."""
        size = 0
        while True:
            event = await self._next_event(acknowledging)
            match event:
                case ChunkArriving():
                    size = event.payload_length + event.raw_length
                    if self._held + size > CHUNK_ROOM:
                        await self._work_done()
                case Chunk():
                    await self._work_done()
                    await self._start_work(ingest, event, size)
                    del event  # the work holds it; to hold it longer would be to hold two
                case Finish() | Stop():
                    await self._work_done()
                    return event
                case _:
                    msg = f"{type(event).__name__} amid a stream"
                    raise RemoteProtocolError(msg)

    async def _next_event(self, acknowledging: asyncio.Task[None]) -> Event:
        """Return what the sender says next; raises at once what meanwhile went wrong with a chunk or the disk."""
        receiving = asyncio.ensure_future(self._channel.receive())
        watched: set[asyncio.Future[Any]] = {receiving, acknowledging}
        if self._work is not None:
            watched.add(self._work)
        try:
            while not receiving.done():
                done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {receiving}:
                    task.result()
            return receiving.result()
        finally:
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait([receiving])

    async def _start_work(self, ingest: Ingest, chunk: Chunk, size: int) -> None:
        await self._between.acquire()
        self._held = size
        self._work = asyncio.get_running_loop().run_in_executor(self._workers.cpu, ingest.take, chunk)

        def written(_work: asyncio.Future[None]) -> None:
            self._between.release()
            self._dirty.set()
            if ingest.unsynced >= BATCH_BYTES:
                self._full.set()

        self._work.add_done_callback(written)

    async def _work_done(self) -> None:
        """Wait for the chunk in work; raises what was wrong with it."""
        if self._work is None:
            return
        self._channel.busy = "writing"
        try:
            # Not `await self._work`: cancelling us would call it done while its thread still runs.
            await asyncio.wait([self._work])
        finally:
            self._channel.busy = ""
        work, self._work, self._held = self._work, None, 0
        work.result()

    async def _acknowledge(self, ingest: Ingest) -> None:
        """Make batches durable, one at a time, and acknowledge each, until the last chunk's."""
        while True:
            await self._dirty.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BATCH_SECONDS):
                    await self._full.wait()
            ended = self._ended
            self._dirty.clear()
            self._full.clear()
            async with self._between:
                batch = ingest.batch()
            if batch.entries:
                await self._on_disk(lambda batch=batch: ingest.partial.make_durable(batch))  # type: ignore[misc]
                self._channel.send_soon(Ack(offset=batch.offset))
            if ended:
                return

    async def _settle(self, acknowledging: asyncio.Task[None]) -> None:
        """After the last chunk, whatever ended the stream: wait for the work and for the last batch."""
        if self._work is not None:
            await asyncio.wait([self._work])
        self._ended = True
        self._dirty.set()
        self._full.set()
        await acknowledging

    async def _on_disk(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._workers.disk, work)


async def _uncancelled(work: Awaitable[_T]) -> _T:
    """Await to the end also when we are cancelled meanwhile, then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
