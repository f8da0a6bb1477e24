"""Taking one pushed stream: a journal, the answer to the offer, chunks in order, acknowledgements as they become
durable, then the commit.

Chunks come over the channel and are decoded in parallel (decode_queue.py). One task at a time checks and writes them,
in order; another makes batches of them durable and acknowledges these.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fullsend_protocol.format.manifest import Receipt, Resumption
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, PeerError, RemoteProtocolError, StreamError
from fullsend_protocol.shared.units import format_time, printable
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.wire.connection import Chunk, ChunkArriving
from fullsend_protocol.wire.messages import Accept, Ack, Committed, Error, Finish, Push, Record, Stop, Stored
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.admission import already_stored, committed_before, judge
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.decode_queue import Arrived, DecodeQueue
from fullsend_receiver.arrival.free_space import USED_UP, Arrival, Crossed, Room
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.arrival.overruns import Crossing
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.store.api import PartialDamaged, Upload
from fullsend_receiver.store.journal import Standing
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.resume_point import read_record
from fullsend_receiver.store.workers import Workers, uncancelled
from fullsend_transport.channel import Channel

log = logging.getLogger("fullsendd")

#: Durability comes in batches: this much, or this long after the first byte that waits, whichever is first.
BATCH_BYTES: Final = 32 * limits.MIB
BATCH_SECONDS: Final = 1.0
#: Bytes of a file that are hashed between two moments at which a shutdown may come.
_HASH_STEP: Final = 64 * limits.MIB

_T = TypeVar("_T")


class OtherStream(StreamError):  # noqa: N818 - reads as a noun, like the stream errors
    """The bytes are those of another stream than was offered."""


@dataclass(frozen=True, slots=True)
class Halted:
    """The sender has stopped. `stop`: as it said it; `kept`: raw bytes that stay as a partial."""

    stop: Stop
    kept: int


class Receiving:
    """One stream that is being pushed over one channel."""

    def __init__(
        self, catalogues: Catalogues, channel: Channel, workers: Workers, sender: str, push: Push, *, room: Room
    ) -> None:
        """Nothing is touched before `run`."""
        self._catalogues = catalogues
        self._store = catalogues.store
        self._room = room
        self._arrival: Arrival | None = None  # None: not let in yet
        self._channel = channel
        self._workers = workers
        self._sender = sender
        self._push = push
        self._key = partial_key(sender, push)
        self._between = asyncio.Lock()  # held while a chunk is being written, so that a batch ends between two
        self._dirty = asyncio.Event()  # something waits to become durable
        self._full = asyncio.Event()  # ... and does not wait for more
        self._ended = False  # no more chunks will come
        self._looked = False  # the bytes have shown what they are
        self._record: Record | None = None  # behind which a token goes on

    async def run(self, program: str) -> Stored | Committed | Halted:
        """Accept the stream, if it is to be taken, and take it to its end.

        Returns: what to tell the sender; nothing was said yet, and all of it is so. Raises: Damaged, NoBase, NoRoom,
        StreamError, ChunkError, ProtocolError, PeerError, Unreachable, OSError, StoreError. Whatever ends it,
        cancellation too, what has arrived is made durable and stays as a partial; but nothing of what was refused for
        what it is, and nothing of what used more room than there was for it (`Crossed`).
        """
        # Before the journal, since there it would be thrown away: after a lost receipt.
        known = await self._workers.run_to_end(lambda: committed_before(self._catalogues, self._sender, self._push))
        if known is not None:
            return Stored(receipt=known)
        try:
            partial, standing = await self._begin()
        except OSError:
            # There is no room for as much as a journal, perhaps; what is stored already needs none.
            known = await self._workers.run_to_end(lambda: already_stored(self._catalogues, self._sender, self._push))
            if known is None:
                raise
            return Stored(receipt=known)
        ingest = Ingest(partial, standing)
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
            await self._hash_file(partial)
            self._channel.busy = "committing"
            # Not to be abandoned half-way by a shutdown: it is short, and a restart would have to complete it.
            return await self._workers.run_to_end(lambda: self._commit(ingest, end, program))
        except OtherStream:
            keep = False  # under this name nobody will ever go on with it
            raise
        except Crossed:
            keep = False  # it has the room that others need
            raise
        finally:
            self._channel.busy = ""
            try:
                await self._workers.run_to_end(lambda: partial.close(keep=keep and ingest.chunks > 0))
            finally:
                if self._arrival is not None:
                    self._room.leave(self._arrival)

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
        """Open the partial, where there is one that the sender wants gone on with; else begin one."""
        how = self._push.resume
        found = None
        if how == "token":
            found = self._store.reopen(self._key, at_resume_point=True)
            if found is not None and not self._read_record(*found):
                found = None  # what its disk has lost is begun anew
            elif found is None:
                found = self._store.reopen(self._key, at_resume_point=False)
        elif how != "none":
            found = self._store.reopen(self._key, at_resume_point=False)
        return found or (self._store.begin(self._key, open_offer(self._sender, self._push)), None)

    def _read_record(self, partial: Upload, standing: Standing) -> bool:
        """Read the record behind which a token goes on. Returns: whether the disk still has it; else it is closed."""
        try:
            self._record = read_record(partial, standing)
        except ChunkError as error:
            partial.close(keep=True)
            what = printable(f"{self._push.dataset}@{self._push.snapshot}")
            log.error(  # noqa: TRY400 - where it was found says nothing
                "%s: starts over: its last chunk is not what was written: %s; check this disk", what, error
            )
            return False
        except PartialDamaged:  # set aside, and the log says so
            partial.close(keep=True)
            return False
        except BaseException:
            partial.close(keep=True)
            raise
        return True

    async def _accept(self, ingest: Ingest, standing: Standing | None) -> None:
        """Say where the stream goes on."""
        if standing is not None:
            resumption = Resumption(how=self._push.resume, offset=standing.offset, at=format_time(time.time()))
            await self._workers.run_to_end(lambda: ingest.partial.note_resumed(resumption))
            ingest.resumptions.append(resumption)
        segments = ingest.segments()
        await self._channel.send(Accept(offset=ingest.offset, segments=segments, record=self._record))

    async def _hash_file(self, partial: Upload) -> None:
        """Hash what an earlier run has written; that may take as long as reading it, and can be interrupted."""
        self._channel.busy = "hashing"
        while not await self._workers.run_to_end(lambda: partial.catch_up(_HASH_STEP)):
            pass

    def _commit(self, ingest: Ingest, finish: Finish, program: str) -> Committed | Stored:
        self._check_offer(ingest.conclude(finish), whole=True)
        done = commit(self._catalogues, self._sender, ingest, finish, self._push, sender_program=program)
        try:
            overruns.forget(self._store, self._sender, self._push)
        except OSError as error:  # it is stored all the same
            log.warning("%s: that it is stored cannot be recorded: %s", printable(done.receipt.file), error)
        return done

    def _check_offer(self, about: Facts, *, whole: bool) -> None:
        """Hold what the bytes say against what the sender said of them.

        The bytes decide where the stream is stored; but a sender that believes it has pushed another dataset would
        never find it. What was offered as None is not known to the sender before the end. `whole`: this is the end;
        before it the GUIDs and flags of a package may still change.
        """
        push = self._push
        found, offered = f"{about.dataset}@{about.snapshot}", f"{push.dataset}@{push.snapshot}"
        if found != offered:
            msg = f"the stream holds {found}, and {offered} was offered"
            raise OtherStream(msg)
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
                raise OtherStream(msg)

    async def _take_while_there_is_room(self, ingest: Ingest, arrival: Arrival) -> Finish | Stop:
        """Take all chunks. Raises: NoRoom where the disk has no more room, or what is left belongs to others; as
        `_take_durably`.
        """
        try:
            end = await self._take_durably(ingest, arrival)
        except (Crossed, OSError) as error:
            if isinstance(error, OSError) and error.errno not in USED_UP:
                raise
            ended = self._room.used_up(arrival, error) if isinstance(error, OSError) else error
            if isinstance(ended, Crossed):
                await self._workers.run_to_end(lambda: self._note_crossed(ingest, arrival))
            raise ended from None
        self._room.leave(arrival)  # it needs no more room, and is not to be ended any more
        return end

    def _note_crossed(self, ingest: Ingest, arrival: Arrival) -> None:
        """Throw away what has arrived, and write down how much that was: the same may come again tomorrow."""
        stored, raw = arrival.refused
        raw = min(ingest.offset + raw, self._push.size_estimate or 0)
        found = Crossing(raw, ingest.partial.size + stored)
        ingest.partial.close(keep=False)  # first, since a full disk has no room for a note
        try:
            overruns.note(self._store, self._sender, self._push, found)
        except OSError as error:
            log.warning("%s: how much room it took cannot be recorded: %s", arrival.wanted.name, error)

    async def _take_durably(self, ingest: Ingest, arrival: Arrival) -> Finish | Stop:
        """Take all chunks; whatever ends this, what has arrived is durable afterwards, and acknowledged."""
        queue = DecodeQueue(self._workers.cpu)
        writing = asyncio.create_task(self._write_all(ingest, arrival, queue))
        acknowledging = asyncio.create_task(self._acknowledge(ingest))
        taking = asyncio.create_task(self._take_all(queue, arrival, writing))
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
        await uncancelled(self._settle(queue, taking, writing, acknowledging))
        return end

    async def _take_all(self, queue: DecodeQueue, arrival: Arrival, writing: asyncio.Task[None]) -> Finish | Stop:
        """Take chunks until the sender says that it is done, and all are written."""
        arriving: ChunkArriving | None = None
        while True:
            event = await self._channel.receive()
            match event:
                case ChunkArriving():
                    arriving = event
                    self._channel.busy = "waiting for room"
                    try:
                        await self._room.claim(arrival, event.payload_length, event.raw_length)
                        if not queue.has_room(event):
                            self._channel.busy = "writing"
                        await queue.claim(event)
                    finally:
                        self._channel.busy = ""
                case Chunk():
                    assert arriving is not None  # noqa: S101 - for mypy: the channel announces each chunk
                    queue.put(arriving, event)
                    del event  # the queue holds it; to hold it longer would be to hold one more
                case Finish() | Stop():
                    queue.end()
                    self._channel.busy = "writing"
                    try:
                        await asyncio.wait([writing])
                    finally:
                        self._channel.busy = ""
                    writing.result()
                    return event
                case Error():
                    raise PeerError(event.code, event.message)
                case _:
                    msg = f"{type(event).__name__} amid a stream"
                    raise RemoteProtocolError(msg)

    async def _write_all(self, ingest: Ingest, arrival: Arrival, queue: DecodeQueue) -> None:
        """Check and write chunks in order, until the last one. What is wrong with one ends this, and nothing behind it
        is written. Raises: ChunkError, StreamError, OSError.
        """
        loop = asyncio.get_running_loop()
        try:
            while (arrived := await queue.get()) is not None:
                arriving = arrived.arriving
                async with self._between:
                    free = await loop.run_in_executor(self._workers.cpu, self._write, ingest, arrived)
                del arrived  # to hold it while the next is awaited would be to hold one more
                self._room.wrote(arrival, arriving.payload_length, arriving.raw_length, free)
                queue.release(arriving)
                self._dirty.set()
                if ingest.unsynced >= BATCH_BYTES:
                    self._full.set()
        finally:
            await queue.close()

    def _write(self, ingest: Ingest, arrived: Arrived) -> int:
        """Check and write a chunk. Returns: what is free on the disk after it, in bytes."""
        ingest.take(arrived.chunk, arrived.raw())
        begins = ingest.walker.begins
        if not self._looked and not all(begin.compound for begin in begins):
            self._looked = True
            self._check_offer(facts.conclude(begins), whole=not begins[0].compound)
        return self._store.free_bytes()

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
            if batch.chunks:
                await self._workers.run_to_end(lambda batch=batch: ingest.partial.sync(batch))  # type: ignore[misc]
                self._channel.send_soon(Ack(offset=batch.offset))
            if ended:
                return

    async def _settle(
        self,
        queue: DecodeQueue,
        taking: asyncio.Task[Finish | Stop],
        writing: asyncio.Task[None],
        acknowledging: asyncio.Task[None],
    ) -> None:
        """Whatever ended the stream: wait until what has arrived is written, and for the last batch."""
        taking.cancel()
        await asyncio.wait([taking])
        queue.end()
        await asyncio.wait([writing])
        for task in (taking, writing):
            if not task.cancelled():
                task.exception()  # where it is not why the stream ended, another error came first
        self._ended = True
        self._dirty.set()
        self._full.set()
        await acknowledging


async def _unless_failed(task: asyncio.Task[_T], others: set[asyncio.Future[Any]]) -> _T:
    """Return what a task returns; where one of the others fails meanwhile, raise that at once."""
    waiting: set[asyncio.Future[Any]] = {task, *others}
    while not task.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done - {task}:
            each.result()
    return task.result()
