"""The channel over real TLS on the loop that both programs use: bytes, heartbeats, and ends whose last words arrive.

What depends on the moment at which something happens has a made-up transport and a made-up clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import uvloop
from tests.protocol.helpers import PUSH, a_manifest
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

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ConnectionLost, ErrorCode, RemoteProtocolError, Unreachable
from fullsend_protocol.wire.connection import NEED_DATA, Chunk, ChunkArriving, Connection, Heartbeat, Role
from fullsend_protocol.wire.messages import (
    Accept,
    Ack,
    Done,
    Error,
    Fetch,
    Finish,
    Push,
    ReceiverHello,
    SenderHello,
    Sending,
)
from fullsend_transport.channel import WRITE_SIZE, Channel, Traffic
from fullsend_transport.throttle import CATCH_UP, Throttle
from fullsend_transport.turns import LoopTurns

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

    def run(test: Test, *, silence: float = 50, heartbeat_every: float = 50, linger: float = limits.LINGER) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unexpected.append(context))
            async with connected(certificate, silence, heartbeat_every, linger) as (channel, peer):
                await test(channel, peer)

        unexpected: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        assert unexpected == []

    return run


@contextlib.asynccontextmanager
async def connected(
    certificate: Certificate, silence: float, heartbeat_every: float, linger: float
) -> AsyncIterator[tuple[Channel, Peer]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path, certificate.key)
    loop = asyncio.get_running_loop()
    channel = Channel(Role.RECEIVER, "the sender", silence=silence, heartbeat_every=heartbeat_every, linger=linger)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        connecting = asyncio.create_task(asyncio.to_thread(Peer, listening.getsockname()[1]))
        sock, _address = await loop.sock_accept(listening)
        await loop.connect_accepted_socket(lambda: channel, sock, ssl=context)
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
    peer.write(control(PUSH.model_copy(update={"guid": None, "flags": None}).model_dump()))
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


# --- TLS begins ---


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of one: the client's and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _address = listening.accept()
    with client, server:
        yield client, server


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_connection_that_breaks_as_tls_begins_closes_its_own_descriptor_alone(when: str) -> None:
    """uvloop closes the descriptor. `sock` must not close it as well: by then the number is that of another file."""

    async def main() -> None:
        with connection() as (client, server):
            number = client.fileno()
            channel = Channel(Role.SENDER, "the receiver")
            if when == "before":
                reset(server)
                hung_up = select.poll()
                hung_up.register(client, select.POLLIN)
                assert hung_up.poll(50_000)
            beginning = asyncio.create_task(channel.begin(client, client_context()))
            if when == "during":
                server.settimeout(50)
                assert await asyncio.to_thread(server.recv, 1)
                reset(server)
            with pytest.raises(OSError, match="reset by peer"):
                await beginning
            await channel.close()
            other, writing = os.pipe()  # one of the two has the number now
            assert number in {other, writing}
            client.close()
            os.close(other)
            os.close(writing)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_begin_that_is_cancelled_closes_the_connection() -> None:
    async def main() -> None:
        with connection() as (client, server):
            beginning = asyncio.create_task(Channel(Role.SENDER, "the receiver").begin(client, client_context()))
            server.settimeout(50)
            assert await asyncio.to_thread(server.recv, 1 << 16)
            beginning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await beginning
            assert await asyncio.to_thread(server.recv, 1 << 16) == b""
            assert client.fileno() == -1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


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


def test_bytes_are_counted_both_ways(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        traffic = channel._traffic = Traffic()
        await stream(channel, peer)
        received, sent = traffic.received, traffic.sent
        assert received > 0
        peer.write(heartbeat() * 3)
        peer.say("finish", raw_bytes=0, segments=[])
        assert isinstance(await channel.receive(), Finish)
        assert traffic.received - received > 3 * len(heartbeat())
        channel.last_words(GOODBYE)
        await asyncio.to_thread(peer.hear, "error")
        assert traffic.sent > sent > 0

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
        with pytest.raises(Unreachable, match=r"^the connection to the sender was lost: "):
            await channel.receive()

    run(test)


def test_garbage_beneath_tls_is_unreachable(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        os.write(peer.sock.fileno(), b"\x17\x03\x03\x00\x40" + bytes(64))
        with pytest.raises(Unreachable, match=r"^the connection to the sender was lost: "):
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


# --- whole frames, whatever comes between -------------------------------------------------------------------------


class Clock:
    """A loop's clock and timers, which advance only as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._loop = asyncio.get_running_loop()
        self._timers: list[tuple[float, asyncio.Future[None], Callable[..., None]]] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        return self._loop.create_future()

    def call_soon(self, callback: Callable[..., None], *args: Any) -> asyncio.Handle:
        return self._loop.call_soon(callback, *args)

    def call_later(self, delay: float, callback: Callable[..., None]) -> asyncio.Future[None]:
        return self.call_at(self.now + delay, callback)

    def call_at(self, when: float, callback: Callable[..., None]) -> asyncio.Future[None]:
        timer = self.create_future()  # has a `cancel`, as a timer has
        self._timers.append((when, timer, callback))
        return timer

    async def pass_to(self, when: float) -> None:
        """Let all happen that is due until then, in order, each at its time."""
        while True:
            await settle()
            self._timers = [timer for timer in self._timers if not timer[1].cancelled()]
            due = min(self._timers, key=lambda timer: timer[0], default=None)
            if due is None or due[0] > when:
                break
            self._timers.remove(due)
            self.now = max(self.now, due[0])
            due[2]()
        self.now = when


async def settle() -> None:
    """Let the loop turn until nothing more can proceed."""
    for _ in range(100):
        await asyncio.sleep(0)


class Transport:
    """Takes what is written. `full`: the peer does not read, so it waits. `sent`: what has left, and when."""

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self.full = False
        self._waits = bytearray()
        self._channel = channel
        self._clock = clock
        self._closed = False
        channel.connection_made(self)  # type: ignore[arg-type]

    def get_extra_info(self, name: str) -> Transport:
        return self  # as the TLS object

    def getpeercert(self, *, binary_form: bool) -> bytes:
        return b"certificate"

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def get_write_buffer_size(self) -> int:
        return len(self._waits)

    def write(self, data: bytes) -> None:
        assert not self._closed
        if self.full:
            self._waits += data
            self._channel.pause_writing()
        else:
            self.sent.append((self._clock.now, bytes(data)))

    def read_on(self) -> None:
        """The peer reads again."""
        self.full = False
        self.sent.append((self._clock.now, bytes(self._waits)))
        self._waits.clear()
        self._channel.resume_writing()

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        assert not self._closed
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        self._closed = True
        self._channel.connection_lost(error)

    def abort(self) -> None:
        assert not self._closed, "some transports fail then"
        self._waits.clear()
        self.close()


class Heard:
    """What the other side makes of what has left."""

    def __init__(self, role: Role) -> None:
        self.connection = Connection(role)
        self._taken = 0

    def events(self, transport: Transport) -> list[Any]:
        for _when, data in transport.sent[self._taken :]:
            self.connection.receive_data(data)
        self._taken = len(transport.sent)
        found = []
        while (event := self.connection.next_event()) is not NEED_DATA:
            found.append(event)
        return [event for event in found if not isinstance(event, ChunkArriving)]


@dataclass
class Made:
    """A channel that gives a stream back, and all around it that is made up."""

    channel: Channel
    transport: Transport
    clock: Clock
    heard: Heard

    def events(self) -> list[Any]:
        return self.heard.events(self.transport)


@contextlib.asynccontextmanager
async def giving_back(
    raw_bytes: int, heartbeat_every: float = 10, throttle: Throttle | None = None, clock: Clock | None = None
) -> AsyncIterator[Made]:
    """To where chunks may be sent."""
    clock = clock or Clock()
    channel = Channel(
        Role.RECEIVER,
        "the sender",
        heartbeat_every=heartbeat_every,
        throttle=throttle,
        loop=clock,  # type: ignore[arg-type]
    )
    transport = Transport(channel, clock)
    made = Made(channel, transport, clock, Heard(Role.SENDER))
    peer = made.heard.connection

    async def said(message: Any) -> None:
        data = peer.send(message)
        channel.get_buffer(-1)[: len(data)] = data
        channel.buffer_updated(len(data))
        assert await channel.receive() == message

    await channel.send(HELLO)
    assert made.events() == [HELLO]
    await said(SenderHello(program="made up", version=1))
    await said(Fetch(stream="d@s", offset=0, until=None))
    await channel.send(Sending(manifest=a_manifest(raw_bytes)))
    assert len(made.events()) == 1
    yield made
    await channel.close()


@contextlib.asynccontextmanager
async def taking(silence: float) -> AsyncIterator[Made]:
    """To where chunks may come. The other side is `heard`; what it sends is to be given to `come`."""
    clock = Clock()
    channel = Channel(Role.RECEIVER, "the sender", silence=silence, loop=clock)  # type: ignore[arg-type]
    made = Made(channel, Transport(channel, clock), clock, Heard(Role.SENDER))
    peer = made.heard.connection
    await channel.send(HELLO)
    assert made.events() == [HELLO]
    for message in (SenderHello(program="made up", version=1), PUSH):
        come(channel, peer.send(message))
        assert await channel.receive() == message
    await channel.send(Accept(offset=0, segments=[], record=None))
    assert len(made.events()) == 1
    yield made
    await channel.close()


def come(channel: Channel, data: bytes) -> None:
    """Let bytes come in one piece, as the transport passes them on."""
    view = memoryview(data)
    while view:
        space = channel.get_buffer(-1)
        count = min(len(space), len(view))
        space[:count] = view[:count]
        channel.buffer_updated(count)
        view = view[count:]


async def test_receive_is_woken_once_for_a_chunk_that_comes_in_parts() -> None:
    async with taking(30) as made:
        channel = made.channel
        head, frame = made.heard.connection.send_chunk(Chunk(0, MIB, bytes(32), os.urandom(MIB), starts_segment=True))
        receiving = asyncio.create_task(channel.receive())
        await settle()
        come(channel, head)
        assert isinstance(await receiving, ChunkArriving)
        receiving = asyncio.create_task(channel.receive())
        await settle()
        waiting = channel._more
        for at in range(0, MIB, WRITE_SIZE):
            assert channel._more is waiting
            come(channel, bytes(frame[at : at + WRITE_SIZE]))
            await settle()
        chunk = await receiving
        assert isinstance(chunk, Chunk)
        assert chunk.frame == frame


async def test_a_chunk_that_comes_slowly_is_no_silence_and_one_that_stops_is() -> None:
    async with taking(30) as made:
        channel, clock = made.channel, made.clock
        head, frame = made.heard.connection.send_chunk(Chunk(0, MIB, bytes(32), os.urandom(MIB), starts_segment=True))
        come(channel, head)
        assert isinstance(await channel.receive(), ChunkArriving)
        receiving = asyncio.create_task(channel.receive())
        await settle()
        for at in range(3):
            come(channel, bytes(frame[at : at + 1]))
            await clock.pass_to(clock.now + 29)
            assert not receiving.done()
        await clock.pass_to(clock.now + 0.5)
        assert not receiving.done()
        await clock.pass_to(clock.now + 0.5)
        with pytest.raises(Unreachable, match=r"^the sender has been silent for 30 s$"):
            await receiving


async def test_the_end_of_the_connection_inside_a_chunk_wakes_receive() -> None:
    async with taking(30) as made:
        channel = made.channel
        head, frame = made.heard.connection.send_chunk(Chunk(0, MIB, bytes(32), os.urandom(MIB), starts_segment=True))
        come(channel, head)
        assert isinstance(await channel.receive(), ChunkArriving)
        receiving = asyncio.create_task(channel.receive())
        await settle()
        come(channel, bytes(frame[:1000]))
        channel.eof_received()
        with pytest.raises(ConnectionLost):
            await receiving


async def test_a_cancelled_receive_leaves_no_timer_behind() -> None:
    async with taking(30) as made:
        channel, clock = made.channel, made.clock
        receiving = asyncio.create_task(channel.receive())
        await settle()
        receiving.cancel()
        await settle()
        assert receiving.cancelled()
        assert all(timer.cancelled() for _when, timer, _callback in clock._timers)


async def test_no_heartbeat_gets_into_a_chunk_whose_reader_stalls_and_resumes() -> None:
    async with giving_back(2) as made:
        made.channel.start_heartbeat()
        made.transport.full = True
        sending = asyncio.create_task(made.channel.send_chunk(Chunk(0, 1, bytes(32), bytes(MIB))))
        await settle()
        assert not sending.done()
        # What waits has just left when the beat is due, and the writer has not continued yet.
        made.transport.full = False
        made.transport.sent.append((made.clock.now, bytes(made.transport._waits)))
        made.transport._waits.clear()
        await made.clock.pass_to(made.clock.now + 35)
        made.channel.resume_writing()
        await sending
        await made.clock.pass_to(made.clock.now + 15)
        chunk, *beats = made.events()
        assert (chunk.raw_offset, len(chunk.frame)) == (0, MIB)
        assert beats == [Heartbeat("")]


async def test_frames_of_several_tasks_do_not_mix() -> None:
    async with giving_back(3) as made:
        made.transport.full = True
        chunks = [Chunk(at, 1, bytes(32), bytes([at]) * MIB) for at in range(3)]
        sending = [asyncio.create_task(made.channel.send_chunk(chunk)) for chunk in chunks]
        await settle()
        made.channel.last_words(GOODBYE)
        assert made.events() == []
        made.transport.read_on()
        await asyncio.gather(*sending)
        *heard, last = made.events()
        assert [(chunk.raw_offset, bytes(chunk.frame)) for chunk in heard] == [
            (at, bytes([at]) * MIB) for at in range(3)
        ]
        assert last == GOODBYE


async def test_a_cancelled_sender_leaves_a_whole_frame_before_what_comes_next() -> None:
    async with giving_back(2) as made:
        made.transport.full = True
        sending = asyncio.create_task(made.channel.send_chunk(Chunk(0, 1, bytes(32), bytes(MIB))))
        await settle()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        again = asyncio.create_task(made.channel.send_chunk(Chunk(1, 1, bytes(32), bytes(MIB), starts_segment=True)))
        made.transport.read_on()
        await again
        assert [chunk.raw_offset for chunk in made.events()] == [0, 1]


async def test_a_stuck_frame_without_last_words_is_not_waited_for() -> None:
    async with giving_back(1) as made:
        made.transport.full = True
        sending = asyncio.create_task(made.channel.send_chunk(Chunk(0, 1, bytes(32), bytes(MIB))))
        await settle()
        sending.cancel()
        await made.channel.close()
        assert made.transport.is_closing()
        assert made.transport.sent[-1][1] != bytes(MIB)
        with pytest.raises(Unreachable, match=r"^the connection to the sender was lost$"):
            await made.channel.send(Done())


async def test_a_sender_that_waits_learns_that_the_connection_is_lost() -> None:
    async with giving_back(1) as made:
        made.transport.full = True
        sending = asyncio.create_task(made.channel.send_chunk(Chunk(0, 1, bytes(32), bytes(MIB))))
        await settle()
        made.transport.lose(ConnectionResetError(104, "Connection reset by peer"))
        with pytest.raises(Unreachable, match=r"^the connection to the sender was lost: Connection reset by peer$"):
            await sending


async def test_a_sender_learns_that_the_connection_has_ended_though_a_reader_saw_it_first() -> None:
    """The reader's breach of the rules is no fault of the task that sends."""
    async with giving_back(2) as made:
        await made.channel.send_chunk(Chunk(0, 1, bytes(32), b"x"))
        made.channel.eof_received()
        with pytest.raises(ConnectionLost):
            await made.channel.receive()
        with pytest.raises(Unreachable, match=r"^the connection to the sender was lost$"):
            await made.channel.send_chunk(Chunk(1, 1, bytes(32), b"x"))


async def test_a_throttled_chunk_goes_piece_by_piece_and_is_whole() -> None:
    async with giving_back(1, throttle=Throttle(1000)) as made:
        start, before = made.clock.now, len(made.transport.sent)
        sending = asyncio.create_task(made.channel.send_chunk(Chunk(0, 1, bytes(32), bytes(1500))))
        made.channel.start_heartbeat()
        await settle()
        await made.clock.pass_to(start + 60)
        await sending
        pieces = [(when - start, len(data)) for when, data in made.transport.sent[before:] if when < start + 5]
        assert [size for _when, size in pieces[1:]] == [100] * 15  # behind the header
        # TLS adds to each, and that counts.
        waits = [later[0] - earlier[0] for earlier, later in itertools.pairwise(pieces[1:])]
        assert waits == [pytest.approx(0.122)] * 14
        assert [type(event) for event in made.events()][:2] == [Chunk, Heartbeat]


async def test_channels_that_share_a_throttle_take_turns_and_leave_nothing_behind() -> None:
    throttle = Throttle(100_000)
    async with giving_back(1, throttle=throttle) as one, giving_back(1, throttle=throttle, clock=one.clock) as other:
        start = one.clock.now
        chunk = Chunk(0, 1, bytes(32), bytes(MIB))
        sending = [asyncio.create_task(each.channel.send_chunk(chunk)) for each in (one, other)]

        async def rates() -> list[float]:
            before = [sum(len(data) for _when, data in each.transport.sent) for each in (one, other)]
            # A piece is 1.4 % of a second's bytes: how many end within it depends on the bytes that went before.
            await one.clock.pass_to(one.clock.now + 1)
            after = [sum(len(data) for _when, data in each.transport.sent) for each in (one, other)]
            return [late - early for early, late in zip(before, after, strict=True)]

        await one.clock.pass_to(start + 0.1)
        first, second = await rates()
        assert first == pytest.approx(second, rel=0.1)
        assert first + second == pytest.approx(100_000, rel=0.05)
        # One is stuck in the middle of its turn, and then lost.
        other.transport.full = True
        assert (await rates())[0] == pytest.approx(100_000, rel=0.05)
        other.transport.lose(None)
        first, second = await rates()
        assert first == pytest.approx(100_000, rel=0.05)
        assert second == 0
        one.transport.lose(None)
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(each) for each in results] == [Unreachable] * 2
        assert throttle._waiting == {}


class Received(Throttle):
    """Compares what it counts with what arrives at a socket: TCP's own count of the bytes that it has received."""

    #: struct tcp_info of Linux (linux/tcp.h): `tcpi_bytes_received`.
    _AT: Final = 128

    def __init__(self, rate: int, socket_at: socket.socket) -> None:
        super().__init__(rate)
        self.counted = 0
        self._socket = socket_at
        self._before = self._bytes()

    def spend(self, count: int, now: float) -> None:  # type: ignore[explicit-override]
        super().spend(count, now)
        self.counted += count

    @property
    def arrived(self) -> int:
        return self._bytes() - self._before

    def _bytes(self) -> int:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("=Q", info, self._AT)[0])


def test_what_arrives_at_a_socket_keeps_the_rate(run: Run) -> None:
    """Real TLS over a real socket; only the clock is made up."""
    rate = 10 * MIB

    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, 2)
        throttle = channel._throttle = Received(rate, peer.sock)
        clock = channel._loop = Clock()  # type: ignore[assignment]
        assert isinstance(clock, Clock)
        start = clock.now

        async def send_all() -> None:
            for at in range(2):
                await channel.send_chunk(Chunk(at, 1, bytes(32), os.urandom(MIB), starts_segment=not at))

        def read_all() -> None:
            for _chunk in range(2):
                peer.read()

        sending, reading = asyncio.create_task(send_all()), asyncio.create_task(asyncio.to_thread(read_all))
        for step in range(1, 21):
            await clock.pass_to(start + step / 100)
            while throttle.arrived != throttle.counted:  # to a byte, with all that TLS adds
                await asyncio.sleep(0)
            most = rate * (clock.now - start + CATCH_UP) + throttle.slice(WRITE_SIZE)
            assert (
                rate * (clock.now - start) - throttle.slice(WRITE_SIZE) <= throttle.arrived <= most + WRITE_SIZE / 100
            )
        await clock.pass_to(start + 1)
        await asyncio.gather(sending, reading)
        assert throttle.counted > 2 * MIB

    run(test)


# --- the gaps between signs of life -------------------------------------------------------------------------------


EVERY: Final = 20.0


def gaps(made: Made, since: float) -> list[float]:
    times = [since, *(when for when, _data in made.transport.sent if when > since)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.mark.parametrize("word_at", [0.1, 10, 19.9, 20, 20.1, 39.9])
async def test_no_gap_between_signs_of_life_is_longer_than_the_interval(word_at: float) -> None:
    """Whenever something else was sent: silence of twice the interval would pass the peer's 30 s."""
    async with giving_back(1, heartbeat_every=EVERY) as made:
        start = made.clock.now
        made.channel.start_heartbeat()
        await made.clock.pass_to(start + word_at)
        await made.channel.send_chunk(Chunk(0, 1, bytes(32), b"x"))
        await made.clock.pass_to(start + 10 * EVERY)
        assert max(gaps(made, start)) == pytest.approx(EVERY)
        assert len([event for event in made.events() if isinstance(event, Heartbeat)]) >= 9


async def test_after_a_stall_the_next_sign_of_life_is_due_within_the_interval() -> None:
    async with giving_back(1, heartbeat_every=EVERY) as made:
        start = made.clock.now
        made.channel.start_heartbeat()
        made.transport.full = True
        sending = asyncio.create_task(made.channel.send_chunk(Chunk(0, 1, bytes(32), b"x")))
        await made.clock.pass_to(start + 3.4 * EVERY)
        waiting = made.channel._waiting
        await made.clock.pass_to(start + 5.3 * EVERY)
        assert made.channel._waiting == waiting  # beats do not pile up
        made.transport.read_on()
        await sending
        read_again = made.clock.now
        await made.clock.pass_to(start + 10 * EVERY)
        assert max(gaps(made, read_again)) <= EVERY


# --- heartbeats ------------------------------------------------------------------------------------------------


def test_heartbeats_are_sent_where_nothing_else_is_and_say_why_nobody_reads(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        channel.start_heartbeat()
        assert await asyncio.to_thread(peer.read) == (HEARTBEAT, 0, 0, b"")
        channel.busy = "writing"
        while (heard := await asyncio.to_thread(peer.read)) == (HEARTBEAT, 0, 0, b""):
            pass
        assert heard == (HEARTBEAT, 0, 0, b"writing")

    run(test, heartbeat_every=0.01)


def test_nothing_is_said_before_the_hello_not_even_a_heartbeat(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        channel.start_heartbeat()
        for _ in range(20):
            await asyncio.sleep(0.001)
        await channel.send(HELLO)
        kind, *_rest = await asyncio.to_thread(peer.read)
        assert kind == CONTROL

    run(test, heartbeat_every=0.001)


async def fill(channel: Channel) -> asyncio.Task[int]:
    """Send a peer that does not read a chunk, until no more of it goes."""
    noise = os.urandom(16 * MIB)
    sending = asyncio.create_task(channel.send_chunk(Chunk(0, 1, bytes(32), noise)))
    waiting = -1
    while waiting != (waiting := channel._waiting) or not waiting:
        for _ in range(10):
            await asyncio.sleep(0.01)
    assert not sending.done()
    return sending


def test_heartbeats_do_not_pile_up_for_a_peer_that_does_not_read(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, 1)
        sending = await fill(channel)
        waiting = channel._waiting
        channel.start_heartbeat()
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert channel._waiting == waiting
        kind, _offset, _length, payload = await asyncio.to_thread(peer.read)
        assert (kind, len(payload)) == (CHUNK, 32 + 16 * MIB)
        await sending

    run(test, heartbeat_every=0.001)


def test_a_large_chunk_waits_in_small_pieces(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await send(channel, peer, 1)
        sending = await fill(channel)
        assert channel._transport is not None
        # What the transport holds, and the piece that filled it up, encrypted.
        assert channel._transport.get_write_buffer_size() < MIB + 2 * WRITE_SIZE
        await asyncio.to_thread(peer.read)
        await sending

    run(test)


def test_a_chunk_is_decrypted_to_where_it_stays(run: Run) -> None:
    """A copy of all that arrives would cost a tenth of the receiver's time."""

    async def test(channel: Channel, peer: Peer) -> None:
        await stream(channel, peer)
        frame = os.urandom(3 * MIB)
        digest = bytes(limits.DIGEST_SIZE)
        payload = digest + frame
        head = header(CHUNK, len(payload), raw_length=4 * MIB, flags=1)
        peer.write(head + digest)
        assert isinstance(await channel.receive(), ChunkArriving)
        arriving = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)  # takes memory for the chunk, and waits for its rest
        space = channel.get_buffer(-1)
        assert len(space) <= len(payload)
        assert space.obj is channel._connection._reader._payload
        await asyncio.to_thread(peer.write, frame)
        chunk = await arriving
        assert isinstance(chunk, Chunk)
        assert chunk.frame == frame

    run(test)


class Full(LoopTurns):
    """Others have always read all that may be read in this turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.resumed = 0

    def read(self, count: int) -> bool:  # type: ignore[explicit-override]
        super().read(count)
        return False

    def resume(self, call: Callable[[], None]) -> None:  # type: ignore[explicit-override]
        self.resumed += 1
        super().resume(call)


def test_a_connection_that_waits_for_turns_reads_all_up_to_the_end(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await stream(channel, peer)
        turns = channel._turns = Full(asyncio.get_running_loop())
        frame = os.urandom(3 * MIB)

        def send_and_go() -> None:
            peer.write(header(CHUNK, 32 + len(frame), raw_length=4 * MIB, flags=1) + bytes(32) + frame)
            peer.say("error", code="stream", message="I give up")
            peer.sock.unwrap()

        sending = asyncio.create_task(asyncio.to_thread(send_and_go))
        assert isinstance(await channel.receive(), ChunkArriving)
        chunk = await channel.receive()
        assert isinstance(chunk, Chunk)
        assert chunk.frame == frame
        assert isinstance(await channel.receive(), Error)
        await channel.close()
        await sending
        assert turns.resumed > 8

    run(test)


def test_messages_that_nobody_waits_for_do_not_pile_up(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await stream(channel, peer)

        def say_on() -> None:
            while True:
                channel.send_soon(Ack(offset=0))

        with pytest.raises(Unreachable, match=r"^the sender does not read$"):
            say_on()
        assert channel._waiting <= 128 << 10

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
def test_a_peer_that_does_not_go_is_cut_off(talking: bool, run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        channel.last_words(GOODBYE)

        def talk() -> None:
            while True:
                peer.write(heartbeat())

        resuming = asyncio.create_task(asyncio.to_thread(talk if talking else peer.has_ended))
        await channel.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await resuming

    run(test, linger=0.1)


def test_a_connection_cut_at_once_says_nothing(run: Run) -> None:
    async def test(channel: Channel, peer: Peer) -> None:
        await greet(channel, peer)
        channel.abort()
        channel.last_words(GOODBYE)
        with pytest.raises(EndedError):
            await asyncio.to_thread(peer.read)
        await channel.close()

    run(test)
