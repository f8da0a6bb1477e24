from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import replace
from typing import Any

import pytest
from tests import streams
from tests.programs import free_port
from tests.protocol.helpers import PUSH
from tests.sender.conftest import make_identity
from tests.sender.peer import Peer, chunks_of, manifest_of, receiving
from tests.transport.addresses import dead

from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.shared.errors import ErrorCode, LocalProtocolError, PeerError, RemoteProtocolError, Unreachable
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, ChunkArriving, Heartbeat
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.transfer.link import Link, Timeouts, WrongReceiver, connect, connect_unidentified
from fullsend_transport import dial
from fullsend_transport.throttle import Throttle

DONE = messages.Done()
LIST = messages.List(dataset=None)
#: Of a stream of which nothing is known yet, and that is of no use without its base.
OFFER = PUSH.model_copy(update={"guid": None, "flags": None, "keep_orphan": False})


async def greet_and_wait(peer: Peer) -> None:
    await peer.greet()
    await peer.ended()


async def silent(peer: Peer) -> None:
    await peer.gone()


# --- opening ---------------------------------------------------------------------------------------------------


async def test_conversation(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        assert await peer.hear() == LIST
        await peer.say(DONE)
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, name):
        assert name == "alpha"
        await link.send(LIST)
        assert await link.expect(messages.Done) == DONE


async def test_our_certificate_is_shown_where_it_is_asked_for(identity: Identity, receiver_identity: Identity) -> None:
    async with (
        receiving(receiver_identity, greet_and_wait, enrolled=identity) as receiver,
        connect(receiver.endpoint, identity),
    ):
        assert receiver.peers[0].certificate == identity.fingerprint()


async def test_without_certificate(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        assert peer.certificate is None
        await peer.hello(None)
        assert isinstance(await peer.hear(), messages.Known)
        await peer.say(messages.KnownAnswer(status="unknown"))
        await peer.ended()

    async with (
        receiving(receiver_identity, script, enrolled=identity) as receiver,
        connect_unidentified(receiver.endpoint) as link,
    ):
        await link.send(messages.Known(fingerprint="5c" * 32))
        assert (await link.expect(messages.KnownAnswer)).status == "unknown"


async def test_wrong_receiver_gets_nothing(identity: Identity, receiver_identity: Identity) -> None:
    got = bytearray()

    async def listen(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            await peer.hello()
            while part := await peer.reader.read(1000):
                got.extend(part)

    async with receiving(receiver_identity, listen, all_must_come=False) as receiver:
        endpoint = Endpoint("nas", "127.0.0.1", receiver.endpoint.port, "00" * 32)
        with pytest.raises(WrongReceiver, match=f"is {receiver_identity.fingerprint()}, expected was 0000"):
            async with connect(endpoint, identity):
                raise AssertionError
    assert not got


def test_a_wrong_receiver_is_a_refusal() -> None:
    assert WrongReceiver("x").exit_code is Exit.REFUSED


async def test_nobody_listens(identity: Identity) -> None:
    endpoint = Endpoint("nas", "127.0.0.1", free_port(), "00" * 32)
    with pytest.raises(Unreachable, match=rf"nas \(127.0.0.1:{endpoint.port}\): cannot connect: "):
        async with connect(endpoint, identity):
            raise AssertionError


async def test_no_such_host(identity: Identity) -> None:
    with pytest.raises(Unreachable, match="cannot connect"):
        async with connect(Endpoint("nas", "nas.invalid", 7433, "00" * 32), identity):
            raise AssertionError


@pytest.mark.parametrize("how", ["down", "hangs"])
@pytest.mark.parametrize("start", [0, 1])
async def test_one_of_several_daemons_answers(
    identity: Identity, receiver_identity: Identity, monkeypatch: pytest.MonkeyPatch, how: str, start: int
) -> None:
    """The other one is down, or accepts and says nothing."""
    monkeypatch.setattr(os, "urandom", lambda _size: bytes([start]))
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = free_port() if how == "down" else hanging.getsockname()[1]
        async with receiving(receiver_identity, greet_and_wait) as receiver:
            answering = (receiver.endpoint.host, receiver.endpoint.port)
            endpoint = replace(receiver.endpoint, port=port, others=(answering,))
            async with connect(endpoint, identity, timeouts=Timeouts(identify=1.0)) as (link, name):
                assert name == "alpha"
                assert link.endpoint.port == receiver.endpoint.port


async def test_none_of_several_daemons_answers(identity: Identity) -> None:
    ports = [free_port(), free_port()]
    endpoint = Endpoint("nas", "127.0.0.1", ports[0], "00" * 32, others=(("127.0.0.1", ports[1]),))
    with pytest.raises(Unreachable, match="cannot connect") as caught:
        async with connect(endpoint, identity):
            raise AssertionError
    assert all(f"nas (127.0.0.1:{port}): cannot connect" in str(caught.value) for port in ports)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    async def resolve(_host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        return [(socket.AF_INET, (host, port)) for host in hosts]

    monkeypatch.setattr(dial, "_resolve", resolve)


async def test_the_first_of_several_addresses_is_dead(
    identity: Identity, receiver_identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with receiving(receiver_identity, greet_and_wait) as receiver:
        endpoint = Endpoint("nas", "nas.example", receiver.endpoint.port, receiver.endpoint.fingerprint)
        with dead("127.0.0.2", endpoint.port):
            async with connect(endpoint, identity) as (_link, name):
                assert name == "alpha"


async def test_all_of_several_addresses_are_dead(
    identity: Identity, brief: Timeouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.3")
    monkeypatch.setattr(dial, "ATTEMPT_DELAY", 0)
    endpoint = Endpoint("nas", "nas.example", free_port(), "00" * 32)
    with dead("127.0.0.2", endpoint.port), dead("127.0.0.3", endpoint.port), pytest.raises(Unreachable) as caught:
        async with connect(endpoint, identity, timeouts=brief):
            raise AssertionError
    place = f"nas (nas.example:{endpoint.port})"
    tried = "tried 127.0.0.2 (no answer), 127.0.0.3 (no answer)"
    assert str(caught.value) == f"{place}: no answer within {brief.identify:g} s; {tried}"


async def test_all_of_several_addresses_refuse(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.3")
    endpoint = Endpoint("nas", "nas.example", free_port(), "00" * 32)
    with pytest.raises(Unreachable) as caught:
        async with connect(endpoint, identity):
            raise AssertionError
    tried = "127.0.0.2 (connection refused), 127.0.0.3 (connection refused)"
    assert str(caught.value) == f"nas (nas.example:{endpoint.port}): cannot connect: {tried}"


async def test_a_resolver_that_hangs(identity: Identity, brief: Timeouts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_host: str, _port: int) -> list[tuple[int, tuple[str, int]]]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(dial, "_resolve", resolve)
    with pytest.raises(Unreachable, match=r": no answer within [0-9.]+ s; the name nas\.example was not resolved$"):
        async with connect(Endpoint("nas", "nas.example", 7433, "00" * 32), identity, timeouts=brief):
            raise AssertionError


async def test_somebody_who_does_not_speak_tls(identity: Identity) -> None:
    writers = []

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        endpoint = Endpoint("nas", "127.0.0.1", server.sockets[0].getsockname()[1], "00" * 32)
        with pytest.raises(Unreachable, match="cannot connect"):
            async with connect(endpoint, identity):
                raise AssertionError
        for writer in writers:
            writer.transport.abort()


async def test_somebody_who_says_nothing_at_all(identity: Identity, brief: Timeouts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint("nas", "127.0.0.1", server.getsockname()[1], "00" * 32)
        with pytest.raises(Unreachable, match="no answer within"):
            async with connect(endpoint, identity, timeouts=brief):
                raise AssertionError


async def test_no_hello(identity: Identity, receiver_identity: Identity, brief: Timeouts) -> None:
    async with receiving(receiver_identity, silent) as receiver:
        with pytest.raises(Unreachable, match="no answer within"):
            async with connect(receiver.endpoint, identity, timeouts=brief):
                raise AssertionError


async def test_cancelled_while_connecting(identity: Identity, receiver_identity: Identity) -> None:
    async with receiving(receiver_identity, silent) as receiver:

        async def dial() -> None:
            async with connect(receiver.endpoint, identity):
                raise AssertionError

        task = asyncio.create_task(dial())
        while not receiver.peers:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_version_in_common(identity: Identity, receiver_identity: Identity) -> None:
    heard = []

    async def script(peer: Peer) -> None:
        await peer.hello(versions=(7, 8))
        heard.append(await peer.hear())
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(PeerError, match=r"speaks protocol versions \[7, 8\], .* speaks 1") as caught:
            async with connect(receiver.endpoint, identity):
                raise AssertionError
    assert caught.value.code is ErrorCode.VERSION
    assert heard[0].code is ErrorCode.VERSION


async def test_a_receiver_that_does_not_recognise_us(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(None)
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(PeerError, match="enrol it with `fullsend join") as caught:
            async with connect(receiver.endpoint, identity):
                raise AssertionError
    assert caught.value.code is ErrorCode.UNKNOWN_SENDER


# --- a refused certificate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("unknown", ErrorCode.UNKNOWN_SENDER, "does not know this host's certificate"),
        ("revoked", ErrorCode.REVOKED, "has revoked this host's certificate"),
    ],
)
async def test_refused_certificate_is_named(  # noqa: PLR0917 - fixtures
    tmp_path_factory: pytest.TempPathFactory,
    identity: Identity,
    receiver_identity: Identity,
    status: str,
    code: ErrorCode,
    message: str,
) -> None:
    asked = []

    async def answer(peer: Peer) -> None:
        await peer.hello(None)
        asked.append(await peer.hear())
        await peer.say(messages.KnownAnswer.model_validate({"status": status}))
        await peer.ended()

    enrolled = make_identity(tmp_path_factory.mktemp("somebody"))
    async with receiving(receiver_identity, answer, enrolled=enrolled) as receiver:
        with pytest.raises(PeerError, match=message) as caught:
            async with connect(receiver.endpoint, identity):
                raise AssertionError
    assert caught.value.code is code
    assert asked == [messages.Known(fingerprint=identity.fingerprint())]


async def hang_up(peer: Peer) -> None:
    pass


async def refuse(peer: Peer) -> None:
    await peer.say(messages.Error(code=ErrorCode.LIMIT, message="too many"))
    await peer.gone()


async def enrolled_answer(peer: Peer) -> None:
    await peer.hello(None)
    await peer.hear()
    await peer.say(messages.KnownAnswer(status="enrolled"))
    await peer.ended()


async def say_who_it_is(peer: Peer) -> None:
    await peer.hello()  # that of a host which has shown no certificate
    await peer.gone()


@pytest.mark.parametrize("second", [hang_up, refuse, enrolled_answer, say_who_it_is])
async def test_an_early_end_that_is_no_refusal(identity: Identity, receiver_identity: Identity, second: object) -> None:
    async with receiving(receiver_identity, hang_up, second) as receiver:  # type: ignore[arg-type]
        with pytest.raises(Unreachable, match="the connection ended before the receiver's hello"):
            async with connect(receiver.endpoint, identity):
                raise AssertionError


async def test_an_error_instead_of_a_hello(identity: Identity, receiver_identity: Identity) -> None:
    async with receiving(receiver_identity, refuse) as receiver:
        with pytest.raises(PeerError, match="nas: too many") as caught:
            async with connect(receiver.endpoint, identity):
                raise AssertionError
    assert caught.value.code is ErrorCode.LIMIT


# --- talking ---------------------------------------------------------------------------------------------------


async def test_chunks_both_ways(identity: Identity, receiver_identity: Identity) -> None:
    raw = streams.substream(*[streams.write(1, 0, bytes(range(256)) * 4096)] * 10)
    chunks = list(chunks_of(raw))
    got = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        assert isinstance(await peer.hear(), messages.Push)
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        stream, _finish = await peer.take_stream(acknowledge=False)
        got.append(stream)
        await peer.say(messages.Committed(receipt=Receipt.model_validate(RECEIPT)))
        assert isinstance(await peer.hear(), messages.Fetch)
        await peer.say(messages.Sending(manifest=manifest_of(raw)), *chunks, DONE)
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        await link.send(OFFER)
        await link.expect(messages.Accept)
        sizes = [await link.send_chunk(chunk) for chunk in chunks]
        assert sizes == [24 + 32 + len(chunk.frame) for chunk in chunks]
        await link.send(messages.Finish(raw_bytes=len(raw), segments=manifest_of(raw).segments))
        await link.expect(messages.Committed)
        await link.send(messages.Fetch(stream="a@b", offset=0, until=None))
        await link.expect(messages.Sending)
        for chunk in chunks:
            assert isinstance(await link.receive(), ChunkArriving)
            event = await link.receive()
            assert isinstance(event, Chunk)
            assert bytes(event.frame) == chunk.frame
        await link.expect(messages.Done)
    assert got == [raw]


RECEIPT: dict[str, Any] = {
    "sender": "alpha",
    "dataset": "a",
    "snapshot": "b",
    "guid": "1",
    "base": None,
    "base_guid": None,
    "kind": "full",
    "flags": "",
    "raw_bytes": 1,
    "stored_bytes": 1,
    "sha256": None,
    "file": "f",
    "file_sha256": "5c" * 32,
    "received": "now",
    "restorable": True,
    "lost_spills": [],
    "segments": [],
}


async def test_error_of_the_receiver(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Error(code=ErrorCode.NOT_FOUND, message="no such stream"))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        await link.send(messages.Fetch(stream="x", offset=0, until=None))
        with pytest.raises(PeerError, match="nas: no such stream") as caught:
            await link.receive()
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_a_closed_socket_is_never_an_answer(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        with pytest.raises(Unreachable, match=r"the connection to nas \(127\.0\.0\.1:\d+\) was lost"):
            await link.receive()


async def test_connection_is_cut(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.writer.transport.abort()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        with pytest.raises(Unreachable, match=r"the connection to nas \(127\.0\.0\.1:\d+\) was lost"):
            await link.receive()


async def test_rules_broken_by_the_receiver(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.say_raw(b"garbage" * 10)
        await peer.gone()

    with pytest.raises(RemoteProtocolError, match="wrong CRC"):
        async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _):
            await link.receive()


async def test_what_is_legal_and_makes_no_sense(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(DONE)
        told.append(await peer.hear())

    told: list[messages.Error] = []
    with pytest.raises(RemoteProtocolError, match="nas: unexpected 'done'"):  # noqa: PT012 - raised inside, seen outside
        async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _):
            await link.send(LIST)
            await link.expect(messages.Entries)
    assert (told[0].code, told[0].message) == (ErrorCode.PROTOCOL, "nas: unexpected 'done'")


async def test_what_we_may_not_say(identity: Identity, receiver_identity: Identity) -> None:
    async with (
        receiving(receiver_identity, greet_and_wait) as receiver,
        connect(receiver.endpoint, identity) as (link, _name),
    ):
        with pytest.raises(LocalProtocolError):
            await link.send(messages.Stop(reason="nothing", keep=True))


# --- time ------------------------------------------------------------------------------------------------------


async def test_silence(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.gone()

    async with (
        receiving(receiver_identity, script) as receiver,
        connect(receiver.endpoint, identity) as (link, _name),
    ):
        link._channel._silence = 0.1  # from here on: the hello may take longer on a busy machine
        with pytest.raises(Unreachable, match=r"nas \(127\.0\.0\.1:\d+\) has been silent for "):
            await link.receive()


async def test_heartbeats_break_the_silence(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        assert await peer.hear() == LIST
        await peer.beat("disk")
        await peer.beat("")
        await peer.beat("disk")
        await peer.say(DONE)
        await peer.ended()

    async with (
        receiving(receiver_identity, script) as receiver,
        connect(receiver.endpoint, identity) as (link, _name),
    ):
        await link.send(LIST)
        assert await link.receive() == DONE
        assert link.peer_busy == "disk"


async def test_our_heartbeats_say_whether_we_read(identity: Identity, receiver_identity: Identity) -> None:
    timeouts = Timeouts(heartbeat=0.01)
    enough = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        while peer.heartbeats[-2:] != ["", ""]:
            await one_more(peer)
        enough.set()
        while "output" not in peer.heartbeats:
            await one_more(peer)
        enough.set()
        await peer.ended()

    async def one_more(peer: Peer) -> None:
        peer.connection.receive_data(await peer.reader.read(24))
        while isinstance(event := peer.connection.next_event(), Heartbeat):
            peer.heartbeats.append(event.busy)

    async with (
        receiving(receiver_identity, script) as receiver,
        connect(receiver.endpoint, identity, timeouts=timeouts) as (link, _name),
    ):
        await enough.wait()
        enough.clear()
        with link.not_reading("output"):
            await enough.wait()


async def test_bandwidth_limit(identity: Identity, receiver_identity: Identity) -> None:
    raw = streams.substream(streams.write(1, 0, b"x" * 100))
    (chunk,) = chunks_of(raw)
    asked: list[int] = []

    class Noting(Throttle):
        def ask(self, connection: object, count: int, now: float) -> float:  # type: ignore[explicit-override]
            asked.append(count)
            return 0

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert isinstance(await peer.hear(), Chunk)
        await peer.gone()

    async with (
        receiving(receiver_identity, script) as receiver,
        connect(receiver.endpoint, identity, throttle=Noting(1000)) as (link, _name),
    ):
        await link.send(OFFER)
        await link.expect(messages.Accept)
        await link.send_chunk(chunk)
    assert sum(asked) > len(chunk.frame)  # with the header, and what TLS adds
    assert len(asked) == 3  # the header, and the frame in two pieces


async def test_cancelled_send_ends_the_connection(identity: Identity, receiver_identity: Identity) -> None:
    """A receiver that stops reading stops us; being cancelled then is quick, and leaves nothing behind."""
    stuck = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stuck.wait()

    async def send(link: Link) -> None:
        block = b"".join(i.to_bytes(4, "big") for i in range(1 << 20))
        offset = 0
        while True:
            await link.send_chunk(Chunk(offset, len(block), bytes(32), block, starts_segment=not offset))
            offset += len(block)

    async with receiving(receiver_identity, script) as receiver:
        async with connect(receiver.endpoint, identity) as (link, _name):
            await link.send(OFFER)
            await link.expect(messages.Accept)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await send(link)
        stuck.set()


# --- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(4))
async def test_who_is_cancelled_while_he_closes_has_closed(
    identity: Identity, receiver_identity: Identity, turns: int
) -> None:
    """However far it has come: a transport that outlives its loop makes the command end with a traceback."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        opened: list[Link] = []

        async def converse() -> None:
            async with connect(receiver.endpoint, identity) as (link, _name):
                opened.append(link)

        conversing = asyncio.create_task(converse())
        while not opened:
            await asyncio.sleep(0)
        for _turn in range(turns):
            await asyncio.sleep(0)
        conversing.cancel()
        await asyncio.gather(conversing, return_exceptions=True)
        assert opened[0]._channel._gone.done()
