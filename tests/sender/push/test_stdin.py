from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from tests import streams
from tests.programs import free_port
from tests.sender.peer import Arrived, Peer, Receiving, manifest_of, receipt_of, receiving, segments_of
from tests.sender.transfer.test_pipeline import BLOCKS, ENDS, flowing, large, no_threads_left

from fullsend_protocol.shared.errors import (
    ErrorCode,
    FullsendError,
    IncompleteStream,
    NotASendStream,
    PeerError,
    RemoteProtocolError,
    Unreachable,
)
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, State
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.push.stdin import push_stdin
from fullsend_sender.transfer.link import Timeouts
from fullsend_sender.transfer.send import Pushed, ReceiptMismatch, TransferOptions
from fullsend_transport.throttle import Throttle

#: A receiver that goes away is not waited for; that it is otherwise, test_transfer.py shows.
OPTIONS = TransferOptions(level=1, threads=2, retry_for=0)

Push = Callable[..., Awaitable[Pushed]]


@pytest.fixture
def push(identity: Identity) -> Push:
    """Push bytes to a scripted receiver; afterwards no thread and no task of it is left."""

    async def run(
        receiver: Receiving | Endpoint,
        *parts: bytes,
        options: TransferOptions = OPTIONS,
        hold: bool = False,
        size: int | None = None,
        size_check: bool = True,
        show: Literal["always", "never"] = "never",
    ) -> Pushed:
        endpoint = receiver.endpoint if isinstance(receiver, Receiving) else receiver
        where = endpoint, identity, options, io.StringIO()
        try:
            async with flowing(*parts, hold=hold) as fd:
                return await push_stdin(fd, *where, size=size, size_check=size_check, show=show)
        finally:
            assert no_threads_left()
            left = {task.get_name() for task in asyncio.all_tasks()}
            assert not left & {"send", "acknowledgements", "heartbeat", "progress"}

    return run


class Taking:
    """A receiver that takes one stream and commits it. `receipt`: what a test changes in the receipt; `replaced`: what
    was wrong with the copy that it had.
    """

    def __init__(self, *, replaced: str | None = None, **receipt: Any) -> None:
        self.replaced = replaced
        self.offer: messages.Push | None = None
        self.raw = b""
        self.finish: messages.Finish | None = None
        self.receipt = receipt

    async def __call__(self, peer: Peer) -> None:
        await peer.greet()
        self.offer = await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        self.raw, self.finish = await peer.take_stream()
        await peer.say(messages.Committed(receipt=receipt_of(self.raw, **self.receipt), replaced=self.replaced))
        await peer.gone()


# --- a stream that arrives -------------------------------------------------------------------------------------


@streams.each(streams.whole)
async def test_genuine_streams(stream: streams.Genuine, push: Push, receiver_identity: Identity) -> None:
    raw = stream.read()
    taking = Taking()
    async with receiving(receiver_identity, taking) as receiver:
        pushed = await push(receiver, raw)
    assert taking.raw == raw
    manifest = manifest_of(raw)
    assert taking.finish == messages.Finish(raw_bytes=len(raw), segments=manifest.segments)
    said = pushed.to_dict()
    assert list(said) == [
        *("dataset", "snapshot", "guid", "kind", "flags", "base", "base_guid"),
        *("raw_bytes", "wire_bytes", "stored_bytes", "seconds", "sha256", "resume", "resumed_at", "repair"),
        *("limit", "waited", "levels", "receipt"),
    ]
    assert said["guid"] == manifest.guid
    assert said["sha256"] == stream.sha256
    assert said["resume"] == "none"
    assert pushed.wire_bytes > 0


async def test_offer_of_an_increment(push: Push, receiver_identity: Identity) -> None:
    taking = Taking()
    raw = streams.substream(name="tank/a b@2", guid=(1 << 64) - 1, base_guid=7, features=[19])
    async with receiving(receiver_identity, taking) as receiver:
        await push(receiver, raw, size=123)
        first = taking.offer
    assert first is not None
    assert first == messages.Push(
        dataset="tank/a b",
        snapshot="2",
        guid="18446744073709551615",
        base_guid="7",
        flags="L",
        size_estimate=123,
        zfs_version=None,
        properties=None,
        keep_orphan=True,
        claim=first.claim,
        resume="replay",
        whole=None,
    )
    # Nobody else may take over what this run sends: what the next one reads may be another stream of the same name.
    async with receiving(receiver_identity, taking) as receiver:
        await push(receiver, raw, size=123, size_check=False)
    assert taking.offer is not None
    assert taking.offer.claim != first.claim
    assert taking.offer.size_estimate is None


async def test_offer_of_a_package_leaves_open_what_its_end_decides(push: Push, receiver_identity: Identity) -> None:
    taking = Taking()
    raw = streams.package(streams.substream(name="tank/a@2", guid=2, base_guid=1), name="tank/a@2")
    async with receiving(receiver_identity, taking) as receiver:
        await push(receiver, raw)
    assert taking.offer is not None
    assert (taking.offer.guid, taking.offer.base_guid, taking.offer.flags) == (None, None, None)


async def test_progress_and_bandwidth_limit(push: Push, receiver_identity: Identity) -> None:
    options = TransferOptions(level=1, throttle=Throttle(1 << 30))
    async with receiving(receiver_identity, Taking()) as receiver:
        await push(receiver, large(6 << 20), options=options, show="always")


# --- nothing reaches the receiver ------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"garbage", bytes(5_000_000), streams.substream()[:-1]], ids=len)
async def test_no_connection_for_what_is_no_stream(push: Push, receiver_identity: Identity, raw: bytes) -> None:
    async with receiving(receiver_identity) as receiver:
        with pytest.raises((NotASendStream, IncompleteStream)):
            await push(receiver, raw)
    assert not receiver.peers


async def test_receiver_is_away(push: Push) -> None:
    with pytest.raises(Unreachable):
        await push(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32), streams.substream())


# --- stored already --------------------------------------------------------------------------------------------


async def test_stored_already_sends_nothing_and_reads_to_the_end(push: Push, receiver_identity: Identity) -> None:
    raw = large(100 << 20)  # more than is ever in flight: the producer would feel it if nobody read on

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Stored(receipt=receipt_of(raw)))
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver:
        read, write = os.pipe()
        written = 0

        def produce() -> None:
            nonlocal written
            while written < len(raw):
                written += os.write(write, raw[written : written + (1 << 20)])
            os.close(write)

        producing = asyncio.create_task(asyncio.to_thread(produce))
        try:
            identity = Identity.beside(os.path.join(os.path.dirname(receiver_identity.key), "x"))
            pushed = await push_stdin(read, receiver.endpoint, identity, OPTIONS, io.StringIO())
            await producing
        finally:
            os.close(read)
    assert written == len(raw)
    assert pushed.wire_bytes == 0
    assert pushed.receipt.raw_bytes == len(raw)


async def test_cancelled_while_draining(push: Push, receiver_identity: Identity) -> None:
    raw = streams.substream(*[streams.write(1, 0, bytes(1 << 20))] * 5)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Stored(receipt=receipt_of(raw)))
        await peer.ended()
        said.set()

    said = asyncio.Event()
    async with receiving(receiver_identity, script) as receiver:
        task = asyncio.ensure_future(push(receiver, raw[:-312], hold=True))
        await said.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_receipt_for_another_stream_is_not_believed(push: Push, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Stored(receipt=receipt_of(streams.substream(guid=99))))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(ReceiptMismatch, match="guid '99', expected"):
            await push(receiver, streams.substream())


# --- the source fails ------------------------------------------------------------------------------------------


async def test_a_source_that_fails_is_told_and_is_the_error(push: Push, receiver_identity: Identity) -> None:
    raw = large(20 << 20)[:-1]
    told = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        while isinstance(event := await peer.hear(), Chunk):
            pass
        told.append(event)
        await peer.say(messages.Stopped(offset=0))
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(IncompleteStream, match="it was cut, or its producer died") as caught:
            await push(receiver, raw)
    assert told == [messages.Stop(reason=str(caught.value), keep=True)]


async def test_a_receiver_that_goes_after_the_stop_changes_nothing(push: Push, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        while isinstance(await peer.hear(), Chunk):
            pass

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(IncompleteStream):
            await push(receiver, large(20 << 20)[:-1])


# --- the receiver refuses, goes away, or lies ------------------------------------------------------------------


@pytest.mark.parametrize("code", [ErrorCode.BUSY, ErrorCode.SPACE])
async def test_refused_at_the_offer(push: Push, receiver_identity: Identity, code: ErrorCode) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Error(code=code, message="no"))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(PeerError, match="nas: no") as caught:
            await push(receiver, streams.substream())
    assert caught.value.code is code


async def test_refused_on_the_way_while_we_are_stuck_sending(push: Push, receiver_identity: Identity) -> None:
    """The refusal is heard although the receiver reads no more."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert isinstance(await peer.hear(), Chunk)
        await peer.say(messages.Error(code=ErrorCode.SPACE, message="the store is full"))
        await peer.gone()

    raw = b"".join([streams.begin(), *[streams.write(1, 0, os.urandom(1 << 20)) for _ in range(60)], streams.end()])
    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(PeerError, match="the store is full"):
            await push(receiver, raw)


async def test_cut_on_the_way(push: Push, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert isinstance(await peer.hear(), Chunk)
        peer.writer.transport.abort()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(Unreachable, match=r"the connection to nas .* was lost"):
            await push(receiver, large(60 << 20))


@pytest.mark.slow
async def test_silence_on_the_way(push: Push, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        await peer.gone()

    options = TransferOptions(level=1, retry_for=0, timeouts=Timeouts(silence=3))
    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(Unreachable, match="has been silent for"):
            await push(receiver, large(6 << 20)[:-312], options=options, hold=True)


async def test_closed_before_the_receipt(push: Push, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        await peer.take_stream()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(Unreachable):
            await push(receiver, streams.substream())


@pytest.mark.parametrize(
    "lie",
    [
        {"raw_bytes": 1},
        {"sha256": "00" * 32},
        {"sha256": None},
        {"guid": "1"},
        {"base_guid": "1"},
        {"dataset": "tank/other"},
        {"snapshot": "other"},
        {"flags": "L"},
        {"kind": "package"},
    ],
    ids=lambda lie: next(iter(lie)),
)
async def test_a_receipt_that_says_something_else(push: Push, receiver_identity: Identity, lie: dict[str, Any]) -> None:
    async with receiving(receiver_identity, Taking(**lie)) as receiver:
        with pytest.raises(ReceiptMismatch, match=f"the receiver's receipt has {next(iter(lie))}"):
            await push(receiver, streams.substream())


# --- what has arrived before -----------------------------------------------------------------------------------


@pytest.mark.parametrize("borders", [ENDS[:1], ENDS[1:3], ENDS])
async def test_what_has_arrived_is_not_sent_again(push: Push, receiver_identity: Identity, borders: list[int]) -> None:
    taker = Arrived()
    taker.raw += BLOCKS[: borders[-1]]
    taker.segments = segments_of(BLOCKS, *borders)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(taker.accept())
        assert isinstance(await taker.take(peer), messages.Finish)
        borders = [segment.end for segment in taker.segments[:-1]]
        await peer.say(messages.Committed(receipt=receipt_of(BLOCKS, *borders)))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        pushed = await push(receiver, BLOCKS)
    assert taker.raw == BLOCKS
    assert (pushed.resume, pushed.resumed_at) == ("replay", borders[-1])
    assert taker.chunks == len([end for end in ENDS if end > borders[-1]])


async def test_other_bytes_than_have_arrived_are_said_and_start_over(push: Push, receiver_identity: Identity) -> None:
    """What has been read of a pipe cannot be read again, so it is the next run that starts over."""
    told = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=ENDS[1], segments=segments_of(bytes(ENDS[1]), ENDS[1]), record=None))
        told.append(await peer.hear())
        await peer.say(messages.Stopped(offset=0))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(FullsendError, match="those that arrived before: run it again to start over"):
            await push(receiver, BLOCKS)
    assert [(type(said), said.keep) for said in told] == [(messages.Stop, False)]


async def test_a_receiver_that_has_lost_what_it_acknowledged(push: Push, receiver_identity: Identity) -> None:
    arrived = Arrived()

    async def takes_two(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(arrived.accept())
        await arrived.take(peer, 2)

    async def has_none(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        await peer.gone()

    async with receiving(receiver_identity, takes_two, has_none) as receiver:
        with pytest.raises(FullsendError, match="it has lost what it had acknowledged: run it again to start"):
            await push(receiver, BLOCKS, options=TransferOptions(level=1, retry_for=20))


async def test_a_receiver_that_goes_and_comes_back(push: Push, receiver_identity: Identity) -> None:
    arrived, claims = Arrived(), set()

    async def takes_one(peer: Peer) -> None:
        await peer.greet()
        claims.add((await peer.hear()).claim)
        await peer.say(arrived.accept())
        await arrived.take(peer, 1)

    async def takes_the_rest(peer: Peer) -> None:
        await peer.greet()
        claims.add((await peer.hear()).claim)
        await peer.say(arrived.accept())
        await arrived.take(peer)
        borders = [segment.end for segment in arrived.segments[:-1]]
        await peer.say(messages.Committed(receipt=receipt_of(BLOCKS, *borders)))
        await peer.gone()

    async with receiving(receiver_identity, takes_one, takes_the_rest) as receiver:
        pushed = await push(receiver, BLOCKS, options=TransferOptions(level=1, retry_for=20))
    assert arrived.raw == BLOCKS
    assert len(claims) == 1
    assert (pushed.resume, pushed.resumed_at) == ("reconnect", ENDS[0])


async def test_stopped_without_being_asked(push: Push, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        peer.connection.state = State.STOPPING
        await peer.say(messages.Stopped(offset=0))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(RemoteProtocolError, match="'stopped' from the receiver in state streaming"):
            await push(receiver, large(6 << 20)[:-312], hold=True)


async def test_cancelled_on_the_way(push: Push, receiver_identity: Identity) -> None:
    under_way = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert isinstance(await peer.hear(), Chunk)
        under_way.set()
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        task = asyncio.ensure_future(push(receiver, large(20 << 20)[:-312], hold=True))
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- what it mends ---------------------------------------------------------------------------------------------


async def test_what_it_mends_is_said(push: Push, receiver_identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    """It was in `repair` of --json, and with -v; without these nothing was said."""
    raw = streams.named("full").read()
    async with receiving(receiver_identity, Taking(replaced="damaged (chunk 0)")) as receiver:
        pushed = await push(receiver, raw)
    repair = "it replaces the receiver's copy, which was damaged (chunk 0)"
    assert pushed.repair == repair
    name = f"{pushed.receipt.dataset}@{pushed.receipt.snapshot}"
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [("WARNING", f"{name}: {repair}")]
    caplog.clear()
    async with receiving(receiver_identity, Taking()) as receiver:
        await push(receiver, raw)
    assert caplog.records == []
