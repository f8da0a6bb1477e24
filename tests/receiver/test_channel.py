"""The channel over real TLS on the loop that the daemon uses: bytes, heartbeats, and ends whose last words arrive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import pytest
import uvloop
from tests.protocol.helpers import a_manifest
from tests.receiver.peer import (
    CHUNK,
    CONTROL,
    HEARTBEAT,
    Certificate,
    EndedError,
    Peer,
    control,
    header,
    heartbeat,
    make_certificate,
)
from tests.receiver.running import MIB

from fullsend_protocol import limits
from fullsend_protocol.connection import Chunk
from fullsend_protocol.errors import ErrorCode, RemoteProtocolError, Unreachable
from fullsend_protocol.messages import Accept, Ack, Error, Fetch, Push, ReceiverHello, SenderHello, Sending
from fullsend_receiver.channel import Channel

HELLO: Final = ReceiverHello(program="fullsendd", versions=[1], sender="alpha")
GOODBYE: Final = Error(code=ErrorCode.SHUTDOWN, message="goodbye")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("channel") / "receiver.pem")


Test = Callable[[Channel, Peer], Coroutine[Any, Any, None]]
Run = Callable[..., None]


@pytest.fixture
def run(certificate: Certificate) -> Run:
    """Run a test on uvloop, with a channel and the blocking peer at its other end."""

    def run(test: Test, *, silence: float = 50, heartbeat_every: float = 50) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unexpected.append(context))
            async with connected(certificate, silence, heartbeat_every) as (channel, peer):
                await test(channel, peer)

        unexpected: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        assert unexpected == []

    return run


@contextlib.asynccontextmanager
async def connected(
    certificate: Certificate, silence: float, heartbeat_every: float
) -> AsyncIterator[tuple[Channel, Peer]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path, certificate.key)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=256 << 10)
    protocol = asyncio.StreamReaderProtocol(reader)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        connecting = asyncio.create_task(asyncio.to_thread(Peer, listening.getsockname()[1]))
        sock, _address = await loop.sock_accept(listening)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    channel = Channel(reader, writer, silence=silence, heartbeat_every=heartbeat_every)
    with await connecting as peer:
        yield channel, peer
    await channel.close()


async def greet(channel: Channel, peer: Peer) -> None:
    await channel.send(HELLO)
    await asyncio.to_thread(peer.hear, "hello")
    peer.say("hello", program="raw peer", version=1)
    assert isinstance(await channel.receive(), SenderHello)


async def stream(channel: Channel, peer: Peer) -> None:
    """To where a stream arrives."""
    await greet(channel, peer)
    peer.say(
        "push",
        dataset="d",
        snapshot="s",
        guid=None,
        base_guid=None,
        flags=None,
        size_estimate=None,
        zfs_version=None,
        properties=None,
        keep_orphan=True,
        claim="00c1a1300c1a1300",
        resume="none",
        whole=None,
    )
    assert isinstance(await channel.receive(), Push)
    await channel.send(Accept(offset=0, segments=[], record=None))
    await asyncio.to_thread(peer.hear, "accept")


async def send(channel: Channel, peer: Peer, raw_bytes: int) -> None:
    """To where a stream of so many raw bytes is given back."""
    await greet(channel, peer)
    peer.say("fetch", offset=0, stream="d@s", until=None)
    assert isinstance(await channel.receive(), Fetch)
    await channel.send(Sending(manifest=a_manifest(raw_bytes)))
    await asyncio.to_thread(peer.hear, "sending")


# --- in and out ------------------------------------------------------------------------------------------------


def test_what_is_sent_arrives_and_heartbeats_are_passed_over(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await channel.send(HELLO)
        assert (await asyncio.to_thread(peer.hear, "hello"))["sender"] == "alpha"
        hello = control({"type": "hello", "program": "raw peer", "version": 1})
        for part in (heartbeat(), heartbeat(b"disk"), hello[:7]):
            peer.write(part)
        receiving = asyncio.create_task(channel.receive())
        peer.write(hello[7:] + heartbeat())
        assert await receiving == SenderHello(program="raw peer", version=1)

    run(test)


def test_silence_while_reading_is_unreachable(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await channel.send(HELLO)
        with pytest.raises(Unreachable, match=r"^the sender has been silent for 0\.05 s$"):
            await channel.receive()

    run(test, silence=0.05)


def test_a_reset_is_unreachable(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(Unreachable, match=r"^the connection to the sender broke: "):
            await channel.receive()

    run(test)


def test_garbage_beneath_tls_is_unreachable(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        os.write(peer.sock.fileno(), b"\x17\x03\x03\x00\x40" + bytes(64))
        with pytest.raises(Unreachable, match=r"^the connection to the sender broke: "):
            await channel.receive()

    run(test)


def test_sending_to_a_peer_that_has_gone_is_unreachable(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, MIB)
        peer.close()

        async def send_on() -> None:
            for at in range(MIB):
                await channel.send_chunk(Chunk(at, 1, bytes(32), bytes(MIB)))

        with pytest.raises(Unreachable):  # at the latest when what was sent is answered by a reset
            await send_on()

    run(test)


# --- heartbeats ------------------------------------------------------------------------------------------------


def test_heartbeats_are_sent_where_nothing_else_is_and_say_why_nobody_reads(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        beating = asyncio.create_task(channel.beat())
        assert await asyncio.to_thread(peer.read) == (HEARTBEAT, 0, 0, b"")
        channel.busy = "writing"
        while (heard := await asyncio.to_thread(peer.read)) == (HEARTBEAT, 0, 0, b""):
            pass
        assert heard == (HEARTBEAT, 0, 0, b"writing")
        beating.cancel()

    run(test, heartbeat_every=0.01)


def test_nothing_is_said_before_the_hello_not_even_a_heartbeat(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        beating = asyncio.create_task(channel.beat())
        for _ in range(20):
            await asyncio.sleep(0.001)
        await channel.send(HELLO)
        kind, *_rest = await asyncio.to_thread(peer.read)
        assert kind == CONTROL
        beating.cancel()

    run(test, heartbeat_every=0.001)


async def fill(channel: Channel) -> asyncio.Task[None]:
    """Send a peer that does not read a chunk, until no more of it goes."""
    noise = os.urandom(16 * MIB)
    sending = asyncio.create_task(channel.send_chunk(Chunk(0, 1, bytes(32), noise)))
    waiting = -1
    while waiting != (waiting := channel._writer.transport.get_write_buffer_size()) or not waiting:
        for _ in range(10):
            await asyncio.sleep(0.01)
    assert not sending.done()
    return sending


def test_heartbeats_do_not_pile_up_for_a_peer_that_does_not_read(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, 1)
        sending = await fill(channel)
        waiting = channel._writer.transport.get_write_buffer_size()
        beating = asyncio.create_task(channel.beat())
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert channel._writer.transport.get_write_buffer_size() == waiting
        kind, _offset, _length, payload = await asyncio.to_thread(peer.read)
        assert (kind, len(payload)) == (CHUNK, 32 + 16 * MIB)
        await sending
        beating.cancel()

    run(test, heartbeat_every=0.001)


def test_a_large_chunk_waits_in_small_pieces(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, 1)
        sending = await fill(channel)
        assert channel._writer.transport.get_write_buffer_size() <= MIB
        await asyncio.to_thread(peer.read)
        await sending

    run(test)


def test_messages_that_nobody_waits_for_do_not_pile_up(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await stream(channel, peer)

        def say_on() -> None:
            while True:
                channel.send_soon(Ack(offset=0))

        with pytest.raises(Unreachable, match=r"^the sender does not read what it is told$"):
            say_on()
        assert channel._writer.transport.get_write_buffer_size() <= 128 << 10

    run(test)


# --- the end ---------------------------------------------------------------------------------------------------


def test_a_chunk_that_is_cut_short_goes_out_whole_and_the_last_words_behind_it(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, 1)
        sending = await fill(channel)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        channel.last_words(GOODBYE)
        closing = asyncio.create_task(channel.close())
        kind, _offset, _length, payload = await asyncio.to_thread(peer.read)
        assert (kind, len(payload)) == (CHUNK, 32 + 16 * MIB)
        assert (await asyncio.to_thread(peer.hear, "error"))["message"] == "goodbye"
        peer.close()
        await closing

    run(test)


def test_last_words_arrive_though_the_peer_was_still_talking(run: Run) -> None:
    """To close while unread bytes wait would reset the connection, and the reset overtake what was said."""

    async def test(channel: Channel, peer: Peer) -> None:
        await stream(channel, peer)
        talking = asyncio.create_task(asyncio.to_thread(peer.write, header(CHUNK, 16 * MIB, 7, 1) + bytes(16 * MIB)))
        with pytest.raises(RemoteProtocolError, match="a chunk at raw offset 7: 0 was expected"):
            await channel.receive()
        channel.last_words(GOODBYE)
        closing = asyncio.create_task(channel.close())
        await talking
        assert (await asyncio.to_thread(peer.hear, "error"))["message"] == "goodbye"
        peer.close()
        await closing

    run(test)


def test_last_words_are_said_once(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        channel.last_words(GOODBYE)
        channel.last_words(GOODBYE)
        channel.send_soon(Ack(offset=0))  # too late as well
        closing = asyncio.create_task(channel.close())
        assert (await asyncio.to_thread(peer.hear, "error"))["message"] == "goodbye"
        await asyncio.to_thread(peer.expect_end)
        peer.close()
        await closing

    run(test)


def test_who_has_said_its_own_last_words_is_told_nothing(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        peer.say("error", code="stream", message="I give up")
        assert isinstance(await channel.receive(), Error)
        channel.last_words(GOODBYE)
        closing = asyncio.create_task(channel.close())
        await asyncio.to_thread(peer.expect_end)
        peer.close()
        await closing

    run(test)


@pytest.mark.parametrize("talking", [False, True], ids=["silent", "talking"])
def test_a_peer_that_does_not_go_is_cut_off(talking: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER", 0.1)

    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        channel.last_words(GOODBYE)

        def talk() -> None:
            while True:
                peer.write(heartbeat())

        going_on = asyncio.create_task(asyncio.to_thread(talk if talking else peer.has_ended))
        await channel.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await going_on

    run(test)


def test_a_connection_cut_at_once_says_nothing(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        channel.abort()
        channel.last_words(GOODBYE)
        with pytest.raises(EndedError):
            await asyncio.to_thread(peer.read)
        await channel.close()

    run(test)
