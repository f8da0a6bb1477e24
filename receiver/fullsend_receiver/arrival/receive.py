"""Receives one pushed stream: a journal, the answer to the offer, chunks in order, acknowledgements as they become
durable, then the commit.

Chunks arrive over the channel and are decoded in parallel (decode_queue.py). One task checks them, in order, and writes
each while the next one is checked. Another task makes batches of them durable and acknowledges these.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fullsend_protocol.format.manifest import Receipt, Resumption
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, PeerError, RemoteProtocolError, StreamError
from fullsend_protocol.shared.stages import StageWaits, TransferCount
from fullsend_protocol.shared.units import format_size, format_time, printable
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.wire.connection import Chunk, ChunkArriving, Event
from fullsend_protocol.wire.messages import Accept, Ack, Committed, Error, Finish, Push, Record, Stop, Stored
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.admission import already_stored, committed_before, judge
from fullsend_receiver.arrival.bounds import Arrival, NoRoom, Overrun
from fullsend_receiver.arrival.commit import check_base, commit, wants_base
from fullsend_receiver.arrival.decode_queue import Arrived, DecodeQueue
from fullsend_receiver.arrival.free_space import USED_UP, Room
from fullsend_receiver.arrival.ingest import CheckedChunk, Ingest
from fullsend_receiver.arrival.overruns import OverrunRecord
from fullsend_receiver.arrival.replacement import has_other_keys
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import NoBase
from fullsend_receiver.store.api import Upload
from fullsend_receiver.store.durable import FULL
from fullsend_receiver.store.errors import PartialDamaged, StoreError, StoreFull
from fullsend_receiver.store.journal import Batch, Standing
from fullsend_receiver.store.names import stream_file
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.workers import Workers, uncancelled
from fullsend_transport.channel import Channel

log = logging.getLogger("fullsendd")

#: A batch becomes durable after so many bytes, or after a time since its first byte, whichever is first. If half of it
#: is there when the one before is durable, it does not wait: a sender sends 24 MiB behind one that is not acknowledged,
#: and would wait for the acknowledgement while the store waits for the rest.
BATCH_BYTES: Final = 32 * limits.MIB
BATCH_SECONDS: Final = 1.0
#: Bytes of frames that are written and not durable, at most: the batch that is being made durable, and the next one. A
#: store in a bucket has them in memory, and a sender may ignore what it has agreed to. Its own limit is less (56 MiB).
UNDURABLE_MOST: Final = 2 * BATCH_BYTES
#: Bytes of a file that are hashed in one step; a shutdown can interrupt between steps.
_HASH_STEP: Final = 64 * limits.MIB

_T = TypeVar("_T")


class DifferentStream(StreamError):  # noqa: N818 - reads as a noun, like the stream errors
    """The bytes are those of another stream than the offered one."""


@dataclass(frozen=True, slots=True)
class Halted:
    """The sender has stopped. `stop`: its message; `kept`: raw bytes that stay as a partial."""

    stop: Stop
    kept: int


class Receiving:
    """One stream that is being pushed over one channel."""

    def __init__(
        self, catalogues: Catalogues, channel: Channel, workers: Workers, sender: str, push: Push, *, room: Room
    ) -> None:
        """Does nothing before `run`. `count`, from then on: how far it is, and for what it waits: "wire", "decode",
        "hash" or "disk". `committed`: what it has stored, also if `run` was cancelled meanwhile; None: nothing.
        """
        self._waits = StageWaits("wire", "disk")
        self.count: Final = TransferCount(time.monotonic(), push.size_estimate, self._waits)
        self._receiving = False  # the next chunk is awaited, or is arriving
        self._synced = asyncio.Event()  # no batch is being made durable now
        self._synced.set()
        self._durable_stored = 0  # bytes of frames that are durable
        self._catalogues = catalogues
        self._store = catalogues.store
        self._room = room
        self._arrival: Arrival | None = None  # None: not admitted yet
        self._durable = 0  # raw bytes that a later connection can resume from
        self._channel = channel
        self._workers = workers
        self._sender = sender
        self._push = push
        self._key = partial_key(sender, push)
        self._between = asyncio.Lock()  # held while a chunk is being written, so that a batch ends between two
        self._dirty = asyncio.Event()  # bytes wait to become durable
        self._full = asyncio.Event()  # the batch is full: do not wait for more
        self._ended = False  # no more chunks will come
        self._finished = False  # the stream has come to its end
        self._last: Batch | None = None  # the whole of it, if the commit makes it durable
        self.committed: Committed | None = None
        self._placed = False  # it is stored under its name, or was before: nothing of it is a partial
        self._looked = False  # the bytes have been compared with the offer
        self._keyed: Facts | None = None  # they are those of a raw stream, whose keys are to be checked
        self._record: Record | None = None  # the record behind which a token resumes

    async def run(self, program: str) -> Stored | Committed | Halted:
        """Accept the stream, unless it is refused or already stored, and receive it to its end.

        Returns: the message for the sender, which is not sent yet. Raises: Damaged, NoBase, NoRoom, StreamError,
        ChunkError, ProtocolError, PeerError, Unreachable, OSError, StoreError. After any end, cancellation included,
        what has arrived is durable and stays as a partial. There are two exceptions: a stream that is refused for its
        content, and one that used more than its room (`Overrun`). Nothing of these is kept. NoRoom says what is kept.
        """
        # Before the journal is opened, which would discard what arrived: the receipt may have been lost.
        known = await self._workers.run_to_end(lambda: committed_before(self._catalogues, self._sender, self._push))
        if known is not None:
            return Stored(receipt=known)
        try:
            partial, standing = await self._begin()
        except (StoreFull, OSError):
            # There may be no room even for a journal; a stream that is already stored needs none.
            known = await self._workers.run_to_end(lambda: already_stored(self._catalogues, self._sender, self._push))
            if known is None:
                raise
            return Stored(receipt=known)
        ingest = Ingest(partial, standing)
        self._durable, self._durable_stored = ingest.offset, partial.size
        self.count.skip(ingest.offset)
        keep = True
        try:
            # After the journal, which names the base: a process that deletes reads the journals first (docs/format.md).
            found = await self._workers.run_to_end(
                lambda: judge(
                    self._catalogues, self._sender, self._push, arrived=ingest.offset, stored=ingest.partial.size
                )
            )
            if isinstance(found, Receipt):
                keep = False
                return Stored(receipt=found)
            self._arrival = await self._room.admit(found)
            await self._accept(ingest, standing)
            end = await self._take_while_there_is_room(ingest, self._arrival)
            if isinstance(end, Stop):
                keep = end.keep
                return Halted(end, ingest.offset if keep else 0)
            self._waits.head("disk")
            if self._last is None:
                await self._hash_file(partial)
            self._channel.busy = "committing"
            self._arrival.committing = True
            # A shutdown must not interrupt this: it is short, and a restart would have to complete it.
            done = await self._workers.run_to_end(lambda: self._commit(ingest, end, program))
            with contextlib.suppress(StoreError, OSError):  # the next offer counts again
                await self._room.stored(self._arrival)
            return done
        except DifferentStream:
            keep = False  # under this name it can never be resumed
            raise
        except NoBase:
            keep = self._arrival is None  # a base that is missing at the offer may come again
            raise
        except Overrun:
            keep = False  # others need its room
            raise
        except OSError as error:
            if error.errno not in FULL or self._arrival is None:
                raise
            raise self._room.full(self._arrival, error).keeping(self._kept()) from None
        finally:
            self._channel.busy = ""
            keep = keep and not self._placed  # also if this was cancelled amid the commit, whose result is lost then
            if keep:
                await self._workers.run_to_end(lambda: self._keep_last(ingest))
            kept = keep and self._durable > 0
            try:
                await self._workers.run_to_end(lambda: self._close(partial, keep=kept))
            finally:
                if self._arrival is not None:
                    self._room.leave(self._arrival, partial.size if kept else 0)
                else:
                    self._room.keep(self._sender, self._key, partial.size if kept else 0)

    def _close(self, partial: Upload, *, keep: bool) -> None:
        """End the upload. That it cannot be deleted must not hide how the stream ended."""
        try:
            partial.close(keep=keep)
        except (StoreError, OSError) as error:
            what = printable(f"{self._push.dataset}@{self._push.snapshot}")
            log.warning("%s: what has arrived of it cannot be deleted: %s", what, error)

    def _kept(self) -> str:
        """Return what stays of a stream that has ended early, for messages."""
        return f"{format_size(self._durable)} of it (raw) are kept" if self._durable else "nothing of it is kept"

    async def _begin(self) -> tuple[Upload, Standing | None]:
        making = asyncio.get_running_loop().run_in_executor(self._workers.disk, self._open)
        try:
            return await uncancelled(making)
        except asyncio.CancelledError:
            if making.exception() is None:
                partial, standing = making.result()
                await self._workers.run_to_end(lambda: partial.close(keep=standing is not None))
            raise

    def _open(self) -> tuple[Upload, Standing | None]:
        """Open the partial, if there is one and the sender wants to resume it; otherwise begin one."""
        how = self._push.resume
        found = None
        if how == "token":
            found = self._store.reopen(self._key, at_resume_point=True)
            if found is not None and not self._read_record(*found):
                found = None  # begin a new one if its disk has lost something
            elif found is None:
                found = self._store.reopen(self._key, at_resume_point=False)
        elif how != "none":
            found = self._store.reopen(self._key, at_resume_point=False)
        return found or (self._store.begin(self._key, open_offer(self._sender, self._push)), None)

    def _read_record(self, partial: Upload, standing: Standing) -> bool:
        """Read the record behind which a token resumes. Returns: whether the disk still has it; if not, closes it."""
        try:
            self._record = partial.record(standing)
        except ChunkError as error:
            partial.close(keep=True)
            what = printable(f"{self._push.dataset}@{self._push.snapshot}")
            log.error(  # noqa: TRY400 - where it was found says nothing
                "%s: starts over: its last chunk is not as written: %s; check this disk", what, error
            )
            return False
        except PartialDamaged:  # it was set aside, and that was logged
            partial.close(keep=True)
            return False
        except BaseException:
            partial.close(keep=True)
            raise
        return True

    async def _accept(self, ingest: Ingest, standing: Standing | None) -> None:
        """Tell the sender where the stream resumes."""
        if standing is not None:
            resumption = Resumption(how=self._push.resume, offset=standing.offset, at=format_time(time.time()))
            await self._workers.run_to_end(lambda: ingest.partial.note_resumed(resumption))
            ingest.resumptions.append(resumption)
        segments = ingest.segments()
        await self._channel.send(Accept(offset=ingest.offset, segments=segments, record=self._record))

    async def _hash_file(self, partial: Upload) -> None:
        """Read back what an earlier process has written: its disk may have changed it. This may take as long as reading
        it, and can be interrupted. Raises: PartialDamaged, OSError.
        """
        self._channel.busy = "hashing"
        while not await self._workers.run_to_end(lambda: partial.catch_up(_HASH_STEP)):
            pass

    def _commit(self, ingest: Ingest, finish: Finish, program: str) -> Committed | Stored:
        about = ingest.conclude(finish)
        self._check_offer(about, whole=True)
        if not self._looked:  # it was resumed at its end
            self._check_keys(about)
        try:
            done = commit(self._catalogues, self._sender, ingest, finish, self._push, sender_program=program)
        except (StoreError, OSError):
            self._keep_last(ingest)
            raise
        self._placed = True
        if isinstance(done, Committed):
            self.committed = done
        try:
            overruns.forget(self._store, self._sender, self._push)
        except OSError as error:  # it is stored nevertheless
            log.warning("%s: that it is stored cannot be recorded: %s", printable(done.receipt.file), error)
        return done

    def _keep_last(self, ingest: Ingest) -> None:
        """Make durable what the commit has not, so that the stream resumes. Blocks."""
        last, self._last = self._last, None
        if last is not None:
            # If the commit has begun, the upload has ended: a restart completes it.
            with contextlib.suppress(StoreError, OSError):
                self._durable = ingest.partial.sync(last)
                self._durable_stored = last.stored

    def _check_offer(self, about: Facts, *, whole: bool) -> None:
        """Compare the bytes with the sender's statements.

        The bytes decide where the stream is stored. But a sender that believes it has pushed another dataset would
        never find it. What was offered as None is unknown to the sender before the end. `whole`: this is the end;
        before it the GUIDs and flags of a package may still change.
        """
        push = self._push
        found, offered = f"{about.dataset}@{about.snapshot}", f"{push.dataset}@{push.snapshot}"
        if found != offered:
            msg = f"the stream holds {found}, and {offered} was offered"
            raise DifferentStream(msg)
        if push.guid is None or not whole:
            return
        base_guid = None if about.base_guid is None else str(about.base_guid)
        for name, has, said in (
            ("GUID", str(about.guid), push.guid),
            ("base GUID", base_guid, push.base_guid),
            ("flags", about.flags, about.flags if push.flags is None else push.flags),
        ):
            if has != said:
                msg = f"{found}: the stream has the {name} {has or 'none'}, and {said or 'none'} was offered"
                raise DifferentStream(msg)

    def _check_keys(self, about: Facts) -> None:
        """Check the IV sets of a raw stream, which no offer tells: a snapshot may be stored with other keys. Those of a
        package are known at its end only. Blocks.

        Raises: NoBase if its base is not stored with its keys; DifferentStream if the stream of its name, which is
        damaged, has other keys; StoreError, OSError.
        """
        if self._push.guid is None:
            return
        if wants_base(self._push) and about.base_ivset_guid is not None:
            check_base(self._catalogues.current(self._sender), self._sender, about)
        if has_other_keys(self._store, stream_file(self._sender, about), about):
            msg = (
                f"{about.dataset}@{about.snapshot}: what is stored of it is encrypted with other keys, so this stream"
                " cannot replace it: push a new snapshot"
            )
            raise DifferentStream(msg)

    async def _take_while_there_is_room(self, ingest: Ingest, arrival: Arrival) -> Finish | Stop:
        """Receive all chunks. Raises: NoRoom if the disk has no more room, or the rest is reserved for others; as
        `_take_durably`.
        """
        try:
            end = await self._take_durably(ingest, arrival)
        except (NoRoom, OSError) as error:
            if isinstance(error, OSError) and error.errno not in USED_UP:
                raise
            ended = self._room.used_up(arrival, error) if isinstance(error, OSError) else error
            if not isinstance(ended, Overrun):
                raise ended.keeping(self._kept()) from None
            await self._workers.run_to_end(lambda: self._record_overrun(ingest, arrival))
            raise ended from None
        self._room.arrived(arrival)
        return end

    def _record_overrun(self, ingest: Ingest, arrival: Arrival) -> None:
        """Delete what has arrived, and record its size: the same stream may come again tomorrow."""
        stored, raw = arrival.refused
        raw = min(ingest.offset + raw, self._push.size_estimate or 0)
        found = OverrunRecord(raw, ingest.partial.size + stored)
        ingest.partial.close(keep=False)  # first, because a full disk has no room for the record
        try:
            overruns.note(self._store, self._sender, self._push, found)
        except OSError as error:
            log.warning("%s: how much room it took cannot be recorded: %s", arrival.wanted.name, error)

    async def _take_durably(self, ingest: Ingest, arrival: Arrival) -> Finish | Stop:
        """Receive all chunks. Whatever ends this, what has arrived is durable afterwards, and acknowledged."""
        queue = DecodeQueue(self._workers.cpu)
        writing = asyncio.create_task(self._write_all(ingest, arrival, queue))
        acknowledging = asyncio.create_task(self._acknowledge(ingest))
        taking = asyncio.create_task(self._take_all(ingest, queue, arrival, writing))
        try:
            end = await _unless_failed(taking, {writing, acknowledging, arrival.ended})
        except BaseException as error:
            try:
                await uncancelled(self._settle(queue, taking, writing, acknowledging))
            except Exception as second:  # noqa: BLE001 - the first one is why this ends; the other must not hide it
                if second is not error:
                    what = printable(f"{self._push.dataset}@{self._push.snapshot}")
                    log.warning("%s: its last chunks are lost: %s", what, printable(str(second)))
            raise
        self._finished = isinstance(end, Finish)
        await uncancelled(self._settle(queue, taking, writing, acknowledging))
        return end

    async def _take_all(
        self, ingest: Ingest, queue: DecodeQueue, arrival: Arrival, writing: asyncio.Task[None]
    ) -> Finish | Stop:
        """Receive chunks until the sender has finished, and all are written."""
        arriving: ChunkArriving | None = None
        while True:
            event = await self._receive(ingest)
            match event:
                case ChunkArriving():
                    arriving = event
                    self._channel.busy = "waiting for room"
                    self._waits.head("disk")
                    try:
                        await self._room.claim(arrival, event.payload_length, event.raw_length)
                        if not queue.has_room(event):
                            self._channel.busy = "writing"
                            self._waits.head(None)
                        await queue.claim(event)
                    finally:
                        self._channel.busy = ""
                case Chunk():
                    assert arriving is not None  # noqa: S101 - for mypy: the channel announces each chunk
                    self.count.wire += arriving.payload_length
                    queue.put(arriving, event)
                    del event  # the queue has it; a reference here would keep one more chunk in memory
                case Finish() | Stop():
                    queue.end()
                    self._channel.busy = "writing"
                    self._waits.head(None)
                    try:
                        await asyncio.wait([writing])
                    finally:
                        self._channel.busy = ""
                    writing.result()
                    return event
                case Error():
                    raise PeerError(event.code, event.message)
                case _:
                    msg = f"{type(event).__name__} during a stream"
                    raise RemoteProtocolError(msg)

    async def _receive(self, ingest: Ingest) -> Event:
        self._receiving = True
        self._judge_wait(ingest)
        try:
            return await self._channel.receive()
        finally:
            self._receiving = False

    def _judge_wait(self, ingest: Ingest) -> None:
        """While the next chunk is awaited, tell whether the wire is slow or the sender may send no more: it waits for
        an acknowledgement, and so for the disk, if a whole batch is not durable behind the one that is being synced.
        """
        if self._receiving:
            behind = not self._synced.is_set() and self._undurable(ingest) >= BATCH_BYTES
            self._waits.head("disk" if behind else "wire")

    def _undurable(self, ingest: Ingest) -> int:
        """Return the bytes of frames that are written and not durable."""
        return ingest.partial.size - self._durable_stored

    async def _write_all(self, ingest: Ingest, arrival: Arrival, queue: DecodeQueue) -> None:
        """Check chunks in order, until the last one, and write each while the next one is checked. A fault of one ends
        this: those before it are written, and none behind it. Raises: ChunkError, StreamError, OSError.
        """
        loop = asyncio.get_running_loop()
        writing: asyncio.Task[None] | None = None  # of the chunk before
        try:
            self._waits.behind("decode")
            while (arrived := await queue.get()) is not None:
                arriving = arrived.arriving
                self._waits.behind("decode" if arrived.decoded is None else "hash")
                checked = await loop.run_in_executor(self._workers.cpu, self._check, ingest, arrived)
                del arrived  # here and below: a reference during a wait would keep one more chunk in memory
                self._waits.behind("disk")
                if self._keyed is not None:
                    about, self._keyed = self._keyed, None
                    await self._workers.run_to_end(functools.partial(self._check_keys, about))
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write(ingest, arrival, queue, arriving, checked))
                del checked
                self._waits.behind("decode")
        finally:
            self._waits.behind("disk")
            try:
                if writing is not None:
                    await writing  # its fault came before that of any chunk behind it
            finally:
                await queue.close()

    def _check(self, ingest: Ingest, arrived: Arrived) -> CheckedChunk:
        """Check a chunk. In a thread."""
        raw = arrived.raw()
        self._waits.behind("hash")
        checked = ingest.check(arrived.chunk, raw)
        del raw
        begins = ingest.walker.begins
        if not self._looked and not all(begin.compound for begin in begins):
            self._looked = True
            about = facts.conclude(begins)
            self._check_offer(about, whole=not begins[0].compound)
            self._keyed = about if about.stream_class == "raw" else None
        return checked

    async def _write(
        self, ingest: Ingest, arrival: Arrival, queue: DecodeQueue, arriving: ChunkArriving, checked: CheckedChunk
    ) -> None:
        """Write a checked chunk, as soon as not too much waits to become durable. A fault stops the queue: there may be
        no chunk any more whose turn would find it.
        """

        def write() -> int:
            ingest.write(checked)
            return self._store.space().free

        try:
            while not self._synced.is_set() and self._undurable(ingest) + len(checked.frame) > UNDURABLE_MOST:
                await self._synced.wait()
            async with self._between:
                free = await asyncio.get_running_loop().run_in_executor(self._workers.cpu, write)
        except BaseException:
            queue.stop()
            raise
        self.count.raw = ingest.offset
        self._judge_wait(ingest)
        self._room.wrote(arrival, arriving.payload_length, arriving.raw_length, free)
        queue.release(arriving)
        self._dirty.set()
        if ingest.unsynced >= BATCH_BYTES:
            self._full.set()

    async def _acknowledge(self, ingest: Ingest) -> None:
        """Make batches durable, one at a time, and acknowledge each, through the last chunk's.

        A stream that has come to its end before anything of it is durable is no batch: the commit makes it durable,
        and its receipt acknowledges it.
        """
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
            if batch.chunks and ended and self._finished and not self._durable:
                self._last = batch
                await self._workers.run_to_end(functools.partial(ingest.partial.take_last, batch))
                return
            if batch.chunks:
                sync = functools.partial(ingest.partial.sync, batch)
                self._synced.clear()
                self._judge_wait(ingest)
                try:
                    await self._workers.run_to_end(functools.partial(self._workers.syncs.timed, sync))
                finally:
                    self._synced.set()
                self._durable, self._durable_stored = batch.offset, batch.stored
                self._judge_wait(ingest)
                self._channel.send_soon(Ack(offset=batch.offset))
                if ingest.unsynced >= BATCH_BYTES // 2:
                    self._full.set()
            if ended:
                return

    async def _settle(
        self,
        queue: DecodeQueue,
        taking: asyncio.Task[Finish | Stop],
        writing: asyncio.Task[None],
        acknowledging: asyncio.Task[None],
    ) -> None:
        """After any end of the stream: wait until what has arrived is written, and for the last batch."""
        taking.cancel()
        await asyncio.wait([taking])
        queue.end()
        await asyncio.wait([writing])
        for task in (taking, writing):
            if not task.cancelled():
                task.exception()  # retrieved, not raised: if it did not end the stream, another error came first
        self._ended = True
        self._dirty.set()
        self._full.set()
        await acknowledging


async def _unless_failed(task: asyncio.Task[_T], others: set[asyncio.Future[Any]]) -> _T:
    """Return what a task returns; if one of the others fails meanwhile, raise that at once."""
    waiting: set[asyncio.Future[Any]] = {task, *others}
    while not task.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done - {task}:
            each.result()
    return task.result()
