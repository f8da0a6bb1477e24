from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests import programs, streams
from tests.sender.peer import Peer, Receiving, Script, chunks_of, manifest_of, receiving
from tests.sender.transfer.test_pipeline import large

from fullsend_cli.progress import Progress
from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.format.proof import Proof
from fullsend_protocol.shared.errors import ErrorCode, PeerError, RemoteProtocolError, Unreachable
from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.chunks import Compressor
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Heartbeat
from fullsend_sender.host.identity import Identity
from fullsend_sender.restore.cat import READ_AHEAD, DamagedTransfer, cat
from fullsend_sender.transfer.link import Timeouts


class Reading:
    """Reads a pipe to its end, in a thread."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.data = bytearray()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while part := os.read(self.read, 1 << 20):
            self.data += part

    async def end(self) -> bytes:
        os.close(self.write)
        await asyncio.to_thread(self._thread.join)
        os.close(self.read)
        return bytes(self.data)


@asynccontextmanager
async def reading() -> AsyncGenerator[Reading]:
    pipe = Reading()
    try:
        yield pipe
    finally:
        await pipe.end()


def sending(raw: bytes, *cuts: int) -> Script:
    """A receiver that gives the stream back as it is."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        assert await peer.hear() == messages.Fetch(stream="tank/data@now", offset=0, until=None)
        await peer.say(messages.Sending(manifest=manifest_of(raw, *cuts)), *chunks_of(raw, *cuts), messages.Done())
        await peer.ended()

    return script


async def bring(receiver: Receiving, identity: Identity, fd: int, timeouts: Timeouts = Timeouts()) -> Manifest:  # noqa: B008
    return await cat(receiver.endpoint, identity, "tank/data@now", fd, Progress(0.0), retry_for=0, timeouts=timeouts)


class Watched(Proof):
    """Tells the loop when so many chunks have been looked at, right or wrong."""

    def __init__(self, manifest: Manifest, count: int, seen: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(manifest)
        self._left = count
        self._seen = seen
        self._loop = loop

    def take(self, raw: bytes, sha256: bytes | memoryview) -> list[Piece]:  # type: ignore[explicit-override]
        try:
            return super().take(raw, sha256)
        finally:
            self._left -= 1
            if not self._left:
                self._loop.call_soon_threadsafe(self._seen.set)


async def bring_late(receiver: Receiving, identity: Identity, count: int) -> bytes:
    """Read the output only when so many chunks have been looked at. Returns: the output. Raises: as cat, which has the
    output as its note.
    """
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    bringing = asyncio.create_task(
        cat(
            receiver.endpoint,
            identity,
            "tank/data@now",
            write,
            Progress(0.0),
            retry_for=0,
            prove=lambda manifest: Watched(manifest, count, seen, loop),
        )
    )
    bringing.add_done_callback(lambda _task: os.close(write))
    async with asyncio.timeout(60):
        await seen.wait()
        assert not bringing.done()

    def read_all() -> bytes:
        with open(read, "rb") as file:
            return file.read()

    output = await asyncio.to_thread(read_all)
    try:
        await bringing
    except DamagedTransfer as error:
        error.add_note(str(len(output)))
        raise
    return output


def no_threads_left() -> bool:
    return not [t for t in threading.enumerate() if t.name.startswith(("decode", "prove", "write"))]


# --- whole -----------------------------------------------------------------------------------------------------


@streams.each(streams.whole)
async def test_genuine_streams(stream: streams.Genuine, identity: Identity, receiver_identity: Identity) -> None:
    raw = stream.read()
    async with receiving(receiver_identity, sending(raw)) as receiver, reading() as pipe:
        manifest = await bring(receiver, identity, pipe.write)
        assert manifest.sha256 == stream.sha256
    assert bytes(pipe.data) == raw
    assert no_threads_left()


async def test_several_chunks_in_several_segments(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(40 << 20)
    cuts = [chunk.raw_offset for chunk in chunks_of(raw)][2:4]
    async with receiving(receiver_identity, sending(raw, *cuts)) as receiver, reading() as pipe:
        await bring(receiver, identity, pipe.write)
    assert bytes(pipe.data) == raw


async def test_the_next_chunks_are_proven_while_one_is_written(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(20 << 20)
    async with receiving(receiver_identity, sending(raw)) as receiver:
        assert await bring_late(receiver, identity, 3) == raw
    assert no_threads_left()


# --- damaged ---------------------------------------------------------------------------------------------------


async def test_nothing_of_a_damaged_chunk_is_written(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(20 << 20)
    good = list(chunks_of(raw))
    wrong = bytearray(raw[good[2].raw_offset : good[2].raw_offset + good[2].raw_length])
    wrong[-1] ^= 1
    bad = replace(good[2], frame=Compressor(1).compress(wrong))

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)), good[0], good[1], bad)
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver, reading() as pipe:
        with pytest.raises(DamagedTransfer, match=rf"tank/data@now: .* is damaged: the chunk at {bad.raw_offset}"):
            await bring(receiver, identity, pipe.write)
    assert bytes(pipe.data) == raw[: bad.raw_offset]
    assert no_threads_left()


async def test_what_is_right_before_damage_is_written_also_if_it_is_found_before(
    identity: Identity, receiver_identity: Identity
) -> None:
    raw = large(20 << 20)
    good = list(chunks_of(raw))
    bad = replace(good[1], sha256=bytes(32))

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)), good[0], bad)
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(DamagedTransfer) as raised:
            await bring_late(receiver, identity, 2)
    assert raised.value.__notes__ == [str(bad.raw_offset)]


async def test_a_frame_that_does_not_decode(identity: Identity, receiver_identity: Identity) -> None:
    raw = streams.substream()
    (chunk,) = chunks_of(raw)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)), replace(chunk, frame=b"no frame"))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver, reading() as pipe:
        with pytest.raises(DamagedTransfer, match="zstd frame"):
            await bring(receiver, identity, pipe.write)
    assert not pipe.data


async def test_a_stored_stream_that_is_not_whole(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(6 << 20)[:-312]
    async with receiving(receiver_identity, sending(raw)) as receiver, reading() as pipe:
        with pytest.raises(DamagedTransfer, match="ends before its END record"):
            await bring(receiver, identity, pipe.write)


# --- refused, cut ----------------------------------------------------------------------------------------------


async def test_no_such_stream(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Error(code=ErrorCode.NOT_FOUND, message="no such stream"))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver, reading() as pipe:
        with pytest.raises(PeerError, match="no such stream"):
            await bring(receiver, identity, pipe.write)


async def test_damage_that_the_receiver_finds_on_the_way(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(20 << 20)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)), next(iter(chunks_of(raw))))
        await peer.say(messages.Error(code=ErrorCode.DAMAGED, message="chunk 2 is damaged on disk"))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver, reading() as pipe:
        with pytest.raises(PeerError, match="chunk 2 is damaged on disk"):
            await bring(receiver, identity, pipe.write)


async def test_cut_on_the_way(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(20 << 20)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)), next(iter(chunks_of(raw))))

    async with receiving(receiver_identity, script) as receiver, reading() as pipe:
        with pytest.raises(Unreachable):
            await bring(receiver, identity, pipe.write)
    assert no_threads_left()


async def test_an_end_before_the_end(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(20 << 20)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        first = next(iter(chunks_of(raw)))
        await peer.say(messages.Sending(manifest=manifest_of(raw)), first)
        peer.connection._next_offset = len(raw)
        await peer.say(messages.Done())
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver, reading() as pipe:
        with pytest.raises(RemoteProtocolError, match="'done' after"):
            await bring(receiver, identity, pipe.write)


# --- our own output --------------------------------------------------------------------------------------------


async def test_a_file_that_does_not_keep_what_was_written(
    identity: Identity, receiver_identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system takes all, and is full."""
    raw = large(6 << 20)
    synced: list[int] = []

    def full(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with (tmp_path / "out").open("wb") as out:
        async with receiving(receiver_identity, sending(raw)) as receiver:
            with pytest.raises(OSError, match="quota"):
                await bring(receiver, identity, out.fileno())
    assert synced == [len(raw)]
    assert no_threads_left()


async def test_nobody_reads_the_output_any_more(identity: Identity, receiver_identity: Identity) -> None:
    raw = large(20 << 20)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)), next(iter(chunks_of(raw))))
        await peer.gone()

    read, write = os.pipe()
    os.close(read)
    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(BrokenPipeError):
            await bring(receiver, identity, write)
    os.close(write)
    assert no_threads_left()


async def test_an_output_that_stands_still_stops_our_reading_and_heartbeats_say_so(
    identity: Identity, receiver_identity: Identity
) -> None:
    block = random.Random(1).randbytes(1 << 20)
    raw = streams.substream(*[streams.write(1, 0, block)] * 120)
    stuck = asyncio.Event()
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Sending(manifest=manifest_of(raw)))

        async def send() -> None:
            nonlocal sent
            for chunk in chunks_of(raw):
                await peer.say(chunk)
                sent = chunk.raw_offset + chunk.raw_length

        sending = asyncio.create_task(send())
        while "output" not in peer.heartbeats:
            peer.connection.receive_data(await peer.reader.read(1 << 16))
            while isinstance(event := peer.connection.next_event(), Heartbeat):
                peer.heartbeats.append(event.busy)
        stuck.set()
        await peer.gone()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    read, write = os.pipe()
    try:
        async with receiving(receiver_identity, script) as receiver:
            task = asyncio.create_task(bring(receiver, identity, write, Timeouts(heartbeat=0.05, linger=0.2)))
            await stuck.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # What it took, twice over for the kernel's buffers and those of TLS: far from all.
        assert sent < READ_AHEAD + (40 << 20) < len(raw)
    finally:
        os.close(read)
        os.close(write)
    assert no_threads_left()


async def test_a_second_cancellation_leaves_no_thread(identity: Identity, receiver_identity: Identity) -> None:
    """As where a pool is suspended while the `zfs receive` behind the pipe ends."""
    raw = large(20 << 20)
    seen, loop = asyncio.Event(), asyncio.get_running_loop()
    read, write = os.pipe()
    try:
        async with receiving(receiver_identity, sending(raw)) as receiver:
            watched = partial(Watched, count=3, seen=seen, loop=loop)
            task = asyncio.create_task(
                cat(receiver.endpoint, identity, "tank/data@now", write, Progress(0.0), retry_for=0, prove=watched)
            )
            await seen.wait()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            # The error has the frames, so garbage collection does not end the threads.
            await asyncio.to_thread(programs.wait_for, no_threads_left)
            del caught
    finally:
        os.close(read)
        os.close(write)
