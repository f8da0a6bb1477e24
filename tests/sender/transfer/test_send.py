"""One stream over as many connections as it takes. What a transfer does over a single one is in test_push_stdin.py."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from tests import streams
from tests.programs import free_port
from tests.sender.peer import Arrived, Keeper, Peer, Script, Stopped, receipt_of, receiving, segments_of
from tests.sender.transfer.test_pipeline import BLOCKS, ENDS, flowing, no_threads_left

from fullsend_cli.progress import Progress
from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.shared.errors import (
    ChunkError,
    ConnectionLost,
    ErrorCode,
    IncompleteStream,
    PeerError,
    Unreachable,
)
from fullsend_protocol.stream.chunks import Level
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.transfer import retry
from fullsend_sender.transfer.pipeline import Pipeline
from fullsend_sender.transfer.segments import CannotResume, DifferentBytes
from fullsend_sender.transfer.send import Pushed, ReceiptMismatch, StreamContext, TransferOptions, transfer
from fullsend_sender.zfs.commands import ZfsError

STREAM = streams.package(streams.substream(name="tank/a@2", guid=2, base_guid=1), name="tank/a@2")
OPTIONS = TransferOptions(1, threads=2, retry_for=20)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(retry, "LONGEST_DELAY", 0.05)


async def dead() -> None:
    raise ZfsError("`zfs send` failed (exit 1): I/O error")


async def push(keeper: Keeper, mine: Identity, theirs: Identity, raw: bytes, **about: Any) -> Pushed | Receipt:
    async with receiving(theirs, always=keeper) as receiver, flowing(raw) as fd:
        progress = Progress(time.monotonic())
        return await transfer(
            fd, receiver.endpoint, mine, TransferOptions(1), about=StreamContext(**about), progress=progress
        )


async def test_what_is_known_beforehand_is_offered(identity: Identity, receiver_identity: Identity) -> None:
    keeper = Keeper()
    said = {"single": True, "size": 7, "zfs_version": "zfs-2.4.4", "properties": {"compression": "zstd"}}
    pushed = await push(keeper, identity, receiver_identity, STREAM, claim="5c" * 8, resume="replay", **said)
    assert isinstance(pushed, Pushed)
    assert pushed.line().startswith("tank/a@2 (incremental): ")
    (offer,) = keeper.offers
    assert (offer.guid, offer.base_guid, offer.size_estimate, offer.keep_orphan) == ("2", "1", 7, False)
    assert (offer.zfs_version, offer.properties) == ("zfs-2.4.4", {"compression": "zstd"})
    assert (offer.claim, offer.resume, offer.whole) == ("5c" * 8, "replay", None)
    assert (pushed.resume, pushed.resumed_at) == ("none", 0)  # nothing had arrived


@pytest.mark.parametrize("raw", [STREAM, STREAM[:-1], STREAM[:5], b""], ids=["whole", "cut", "opening", "nothing"])
async def test_the_producers_word_decides(identity: Identity, receiver_identity: Identity, raw: bytes) -> None:
    keeper = Keeper()
    with pytest.raises(ZfsError, match="I/O error"):
        await push(keeper, identity, receiver_identity, raw, ended=dead)
    assert keeper.streams == []


async def test_a_producer_that_says_nothing(identity: Identity, receiver_identity: Identity) -> None:
    with pytest.raises(IncompleteStream):
        await push(Keeper(), identity, receiver_identity, STREAM[:-1])


# --- a wire that is lost ---------------------------------------------------------------------------------------


class Taker:
    """A receiver that takes one stream over several connections. `offers`: what each of them was told."""

    def __init__(self) -> None:
        self.arrived = Arrived()
        self.offers: list[messages.Push] = []
        self.finish: messages.Finish | None = None

    async def offered(self, peer: Peer) -> None:
        """Take the offer, and continue at its offset."""
        await self.greeted(peer)
        await peer.say(self.arrived.accept())

    async def greeted(self, peer: Peer) -> None:
        await peer.greet()
        offer = await peer.hear()
        assert isinstance(offer, messages.Push), offer
        self.offers.append(offer)

    def drops(self, chunks: int, *, durable: int = -1, acknowledge: bool = True) -> Script:
        """Take so many chunks, then reset the connection. `durable`: so many of all remain; -1: all."""

        async def script(peer: Peer) -> None:
            await self.offered(peer)
            await self.arrived.take(peer, chunks, acknowledge=acknowledge)
            peer.writer.transport.abort()
            if durable >= 0:
                self.arrived.forget_behind(durable)

        return script

    async def to_the_end(self, peer: Peer) -> None:
        await self.offered(peer)
        self.finish = await self.arrived.take(peer)
        await self.commit(peer)

    async def commit(self, peer: Peer) -> None:
        await peer.say(messages.Committed(receipt=self.receipt()))
        await peer.gone()

    def receipt(self) -> Receipt:
        borders = [segment.end for segment in self.arrived.segments[:-1]]
        return receipt_of(bytes(self.arrived.raw), *borders)

    def check(self, pushed: Pushed | Receipt, raw: bytes = BLOCKS) -> Pushed:
        """It has all, and both sides agree on how it came."""
        assert isinstance(pushed, Pushed)
        assert self.arrived.raw == raw
        assert self.finish is not None
        assert self.finish.segments == self.arrived.segments == pushed.receipt.segments
        assert self.arrived.segments == segments_of(raw, *(segment.end for segment in self.arrived.segments))
        assert (self.finish.raw_bytes, self.offers[0].resume) == (len(raw), "none")
        assert {offer.resume for offer in self.offers[1:]} <= {"reconnect"}
        assert len({offer.model_copy(update={"resume": "none", "whole": None}) for offer in self.offers} or {1}) == 1
        return pushed


Sending = Callable[..., Awaitable[Pushed | Receipt]]


@pytest.fixture
def sending(identity: Identity) -> Sending:
    """Transfer a stream; afterwards no thread and no task of it is left."""

    async def run(
        endpoint: Endpoint, raw: bytes = BLOCKS, options: TransferOptions = OPTIONS, hold: bool = False, **about: Any
    ) -> Pushed | Receipt:
        progress = Progress(time.monotonic())
        try:
            async with flowing(raw, hold=hold) as fd:
                return await transfer(fd, endpoint, identity, options, about=StreamContext(**about), progress=progress)
        finally:
            assert no_threads_left()
            assert not {task.get_name() for task in asyncio.all_tasks()} & {"send", "acknowledgements", "heartbeat"}

    return run


@pytest.mark.parametrize(
    "losses",
    [
        *([(chunks, -1, True)] for chunks in range(len(ENDS) + 1)),
        [(3, ENDS[0], False)],
        [(4, 0, False)],
        [(2, -1, True), (1, -1, True), (0, -1, True)],
        [(4, ENDS[1], False), (2, ENDS[2], False), (1, ENDS[2], False)],
    ],
    ids=str,
)
async def test_a_connection_that_is_lost_amid_the_chunks(
    sending: Sending, receiver_identity: Identity, losses: list[tuple[int, int, bool]]
) -> None:
    taker = Taker()
    scripts = [taker.drops(chunks, durable=durable, acknowledge=said) for chunks, durable, said in losses]
    async with receiving(receiver_identity, *scripts, taker.to_the_end) as receiver:
        pushed = taker.check(await sending(receiver.endpoint))
    assert pushed.resume == "reconnect"
    assert pushed.resumed_at in {0, *ENDS}
    assert ", resumed at " in pushed.line()
    assert pushed.to_dict()["resume"] == "reconnect"


async def test_a_connection_that_is_lost_before_the_offer_is_answered(
    sending: Sending, receiver_identity: Identity
) -> None:
    """The receiver was there, so it is waited for: nothing of the stream is lost yet."""
    taker = Taker()

    async def dies(peer: Peer) -> None:
        await taker.greeted(peer)
        peer.writer.transport.abort()
        taker.offers.clear()

    async with receiving(receiver_identity, dies, dies, taker.to_the_end) as receiver:
        pushed = taker.check(await sending(receiver.endpoint))
    assert (pushed.resume, pushed.resumed_at) == ("none", 0)


async def test_what_was_sent_again_is_counted_on_the_wire(sending: Sending, receiver_identity: Identity) -> None:
    plain, taker = Taker(), Taker()
    async with receiving(receiver_identity, plain.to_the_end) as receiver:
        once = await sending(receiver.endpoint)
    scripts = taker.drops(4, durable=0, acknowledge=False), taker.to_the_end
    async with receiving(receiver_identity, *scripts) as receiver:
        again = await sending(receiver.endpoint)
    assert isinstance(once, Pushed)
    assert isinstance(again, Pushed)
    assert (once.resume, once.resumed_at) == ("none", 0)
    assert (again.resume, again.resumed_at) == ("reconnect", 0)
    assert again.wire_bytes > once.wire_bytes


async def test_it_is_said_once_that_the_receiver_is_away(
    sending: Sending, receiver_identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    async def gone(peer: Peer) -> None:
        """Each try is two connections: the second asks as a stranger why."""

    caplog.set_level(logging.INFO, "fullsend.transfer")
    taker = Taker()
    async with receiving(receiver_identity, taker.drops(2), *[gone] * 4, taker.to_the_end) as receiver:
        taker.check(await sending(receiver.endpoint))
    said = [record.getMessage() for record in caplog.records]
    assert sum("; retrying for up to 0:00:20" in line for line in said) == 1
    assert f"tank/data@now: resumes at {ENDS[1]} (reconnect)" in said


@pytest.mark.parametrize("code", [ErrorCode.SHUTDOWN, ErrorCode.LIMIT])
@pytest.mark.parametrize("when", ["hello", "offer", "chunks"])
async def test_refusals_that_pass(sending: Sending, receiver_identity: Identity, code: ErrorCode, when: str) -> None:
    taker = Taker()

    async def refuses(peer: Peer) -> None:
        if when == "offer":
            await taker.greeted(peer)
        elif when == "chunks":
            await taker.offered(peer)
            await taker.arrived.take(peer, 1)
        await peer.say(messages.Error(code=code, message="not now"))
        await peer.gone()

    async with receiving(receiver_identity, taker.drops(1), refuses, taker.to_the_end) as receiver:
        taker.check(await sending(receiver.endpoint))


async def test_refusals_that_do_not_pass(sending: Sending, receiver_identity: Identity) -> None:
    taker = Taker()

    async def refuses(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Error(code=ErrorCode.BUSY, message="another has it"))
        await peer.gone()

    async with receiving(receiver_identity, taker.drops(1), refuses) as receiver:
        with pytest.raises(PeerError, match="another has it"):
            await sending(receiver.endpoint)


# --- after the last chunk --------------------------------------------------------------------------------------


async def test_lost_between_finish_and_the_receipt_and_it_is_stored(
    sending: Sending, receiver_identity: Identity
) -> None:
    taker = Taker()

    async def commits_and_goes(peer: Peer) -> None:
        await taker.offered(peer)
        taker.finish = await taker.arrived.take(peer)

    async def knows(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Stored(receipt=taker.receipt()))
        await peer.gone()

    async with receiving(receiver_identity, commits_and_goes, knows) as receiver:
        pushed = taker.check(await sending(receiver.endpoint))
    assert pushed.wire_bytes > 0  # this run has sent it
    first, second = taker.offers
    assert first.whole is None
    receipt = pushed.receipt
    assert second.whole == messages.Whole(guid=receipt.guid, base_guid=None, flags=receipt.flags, raw_bytes=len(BLOCKS))


async def test_a_package_says_what_it_turned_out_to_be(sending: Sending, receiver_identity: Identity) -> None:
    taker = Taker()

    async def commits_and_goes(peer: Peer) -> None:
        await taker.offered(peer)
        taker.finish = await taker.arrived.take(peer)

    async def knows(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Stored(receipt=taker.receipt()))
        await peer.gone()

    async with receiving(receiver_identity, commits_and_goes, knows) as receiver:
        taker.check(await sending(receiver.endpoint, STREAM), STREAM)
    assert (taker.offers[1].guid, taker.offers[1].base_guid) == (None, None)
    whole = taker.offers[1].whole
    assert whole is not None
    assert (whole.guid, whole.base_guid, whole.raw_bytes) == ("2", "1", len(STREAM))


async def test_what_shows_at_its_end_to_be_stored_is_a_success(sending: Sending, receiver_identity: Identity) -> None:
    """As a package does. What is stored may have come in other segments."""
    taker = Taker()
    stored = receipt_of(STREAM, len(STREAM) - 312)

    async def has_it(peer: Peer) -> None:
        await taker.offered(peer)
        await taker.arrived.take(peer)
        await peer.say(messages.Stored(receipt=stored))
        await peer.gone()

    async with receiving(receiver_identity, has_it) as receiver:
        pushed = await sending(receiver.endpoint, STREAM)
    assert isinstance(pushed, Pushed)
    assert (pushed.again, pushed.receipt) == (True, stored)
    assert pushed.line().endswith("is stored already, as its end has shown; what was sent is deleted")
    stored = receipt_of(STREAM, guid="7")
    taker = Taker()
    async with receiving(receiver_identity, has_it) as receiver:
        with pytest.raises(ReceiptMismatch, match="guid"):
            await sending(receiver.endpoint, STREAM)


@pytest.mark.parametrize("durable", [*ENDS, 0])
async def test_lost_after_finish_and_it_is_not_stored(
    sending: Sending, receiver_identity: Identity, durable: int
) -> None:
    taker = Taker()

    async def loses(peer: Peer) -> None:
        await taker.offered(peer)
        assert await taker.arrived.take(peer, acknowledge=False) is not None
        taker.arrived.forget_behind(durable)

    async with receiving(receiver_identity, loses, taker.to_the_end) as receiver:
        pushed = taker.check(await sending(receiver.endpoint))
    assert (pushed.resume, pushed.resumed_at) == ("reconnect", durable)
    assert taker.offers[1].whole is not None


async def test_a_receipt_of_something_else_after_the_loss(sending: Sending, receiver_identity: Identity) -> None:
    taker = Taker()

    async def commits_and_goes(peer: Peer) -> None:
        await taker.offered(peer)
        await taker.arrived.take(peer)

    async def lies(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Stored(receipt=receipt_of(BLOCKS, ENDS[0])))
        await peer.gone()

    async with receiving(receiver_identity, commits_and_goes, lies) as receiver:
        with pytest.raises(ReceiptMismatch, match="the receiver's receipt has segments"):
            await sending(receiver.endpoint)


# --- a receiver that has lost, or lies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (0, "it has lost what it had acknowledged"),
        (ENDS[0], "it has lost what it had acknowledged"),
        (ENDS[1] - 1, "it has lost what it had acknowledged"),
        (ENDS[3], "it has lost what it had acknowledged"),
    ],
)
async def test_an_offset_that_is_not_ours(
    sending: Sending, receiver_identity: Identity, offset: int, said: str
) -> None:
    taker = Taker()

    async def lies(peer: Peer) -> None:
        await taker.greeted(peer)
        segments = segments_of(BLOCKS, offset) if offset else []
        await peer.say(messages.Accept(offset=offset, segments=segments, record=None))
        await peer.gone()

    # Held open behind the second chunk, or it would have sent the third one, too.
    async with receiving(receiver_identity, taker.drops(2), lies) as receiver:
        with pytest.raises(CannotResume, match=said):
            await sending(receiver.endpoint, BLOCKS[: ENDS[1] + 400], hold=True)


async def test_segments_that_are_not_ours(sending: Sending, receiver_identity: Identity) -> None:
    taker = Taker()

    async def lies(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Accept(offset=ENDS[1], segments=segments_of(BLOCKS[::-1], ENDS[1]), record=None))
        await peer.gone()

    async with receiving(receiver_identity, taker.drops(2), lies) as receiver:
        with pytest.raises(CannotResume, match="are not those that were sent"):
            await sending(receiver.endpoint)


async def test_told_to_start_over_and_it_does_not(sending: Sending, receiver_identity: Identity) -> None:
    taker = Taker()

    async def lies(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Accept(offset=ENDS[1], segments=segments_of(BLOCKS, ENDS[1]), record=None))
        await peer.gone()

    async with receiving(receiver_identity, lies) as receiver:
        with pytest.raises(CannotResume, match=f"resumes at {ENDS[1]}, though it was told to start over"):
            await sending(receiver.endpoint)


@pytest.mark.slow
async def test_memory_that_changes_what_is_sent_again(
    sending: Sending, receiver_identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress = Pipeline._compress

    def changing(self: Pipeline, buffer: Any, size: int, level: Level) -> bytes:
        buffer.view[size - 1] ^= 1
        return compress(self, buffer, size, level)

    taker = Taker()

    async def takes_none(peer: Peer) -> None:
        await taker.offered(peer)
        await peer.hear()
        peer.writer.transport.abort()

    monkeypatch.setattr(Pipeline, "_compress", changing)
    known = segments_of(BLOCKS, ENDS[0])

    async def has_the_first(peer: Peer) -> None:
        await taker.greeted(peer)
        await peer.say(messages.Accept(offset=ENDS[0], segments=known, record=None))
        await peer.gone()

    async with receiving(receiver_identity, takes_none, has_the_first) as receiver:
        with pytest.raises(ChunkError, match="check this host's memory"):
            await sending(receiver.endpoint)


# --- never back ------------------------------------------------------------------------------------------------


async def test_never_back(sending: Sending, receiver_identity: Identity) -> None:
    taker, options = Taker(), replace(OPTIONS, retry_for=0.3)
    async with receiving(receiver_identity, taker.drops(1), always=None) as receiver:
        started = time.monotonic()
        with pytest.raises((Unreachable, ConnectionLost)):
            await sending(receiver.endpoint, options=options)
    assert time.monotonic() - started >= 0.3
    assert len(receiver.peers) > 1  # how many tries there are depends on the clock, that there is one does not


async def test_not_waited_for_at_all(sending: Sending, receiver_identity: Identity) -> None:
    taker = Taker()
    async with receiving(receiver_identity, taker.drops(1)) as receiver:
        with pytest.raises((Unreachable, ConnectionLost)):
            await sending(receiver.endpoint, options=replace(OPTIONS, retry_for=0))
    assert len(receiver.peers) == 1


async def test_one_that_takes_connections_and_no_more_is_away(sending: Sending, receiver_identity: Identity) -> None:
    """Only what it has acknowledged shows that it is back."""
    taker, options = Taker(), replace(OPTIONS, retry_for=0.3)
    async with receiving(receiver_identity, taker.drops(1), always=taker.drops(0)) as receiver:
        with pytest.raises((Unreachable, ConnectionLost)):
            await sending(receiver.endpoint, options=options)


async def test_the_first_connection_is_not_waited_for(sending: Sending) -> None:
    options = replace(OPTIONS, retry_for=1e6)  # more than this test may take
    with pytest.raises(Unreachable):
        await sending(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32), options=options)


async def test_the_first_connection_is_waited_for_where_it_was_there(
    sending: Sending, receiver_identity: Identity
) -> None:
    async def gone(peer: Peer) -> None:
        pass

    taker = Taker()
    async with receiving(receiver_identity, gone, gone, taker.to_the_end) as receiver:
        pushed = taker.check(await sending(receiver.endpoint, reached=True))
    assert (pushed.resume, pushed.resumed_at) == ("none", 0)


# --- the producer ----------------------------------------------------------------------------------------------


async def test_a_stream_that_fails_while_the_wire_is_away(sending: Sending, receiver_identity: Identity) -> None:
    taker, told = Taker(), []

    async def hears(peer: Peer) -> None:
        await taker.offered(peer)
        with pytest.raises(Stopped) as stopped:
            await taker.arrived.take(peer)
        told.append(stopped.value.said)
        await peer.say(messages.Stopped(offset=len(taker.arrived.raw)))
        await peer.gone()

    async with receiving(receiver_identity, taker.drops(1), hears) as receiver:
        with pytest.raises(ZfsError, match="I/O error"):
            await sending(receiver.endpoint, BLOCKS[: ENDS[2] + 1000], ended=dead)
    assert taker.arrived.raw == BLOCKS[: ENDS[2]]  # and all that was good has been sent
    assert told == [messages.Stop(reason="`zfs send` failed (exit 1): I/O error", keep=True)]


@pytest.mark.slow
async def test_a_producer_that_waits_while_the_wire_is_away(sending: Sending, receiver_identity: Identity) -> None:
    """More than is ever in flight: nothing of it is lost, and memory has bounds."""
    block = streams.write(7, 0, bytes(1 << 20))
    raw = streams.substream(*[block] * 150)
    taker = Taker()
    async with receiving(receiver_identity, taker.drops(5), taker.drops(9), taker.to_the_end) as receiver:
        taker.check(await sending(receiver.endpoint, raw), raw)


# --- replay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("borders", [[], ENDS[:1], [ENDS[0], ENDS[2]], ENDS])
async def test_a_replay_sends_what_is_missing(
    sending: Sending, receiver_identity: Identity, borders: list[int]
) -> None:
    taker = Taker()
    arrived = borders[-1] if borders else 0
    taker.arrived.raw += BLOCKS[:arrived]
    taker.arrived.segments = segments_of(BLOCKS, *borders) if borders else []
    async with receiving(receiver_identity, taker.to_the_end) as receiver:
        pushed = await sending(receiver.endpoint, resume="replay")
    assert isinstance(pushed, Pushed)
    assert taker.arrived.raw == BLOCKS
    assert [offset for offset, _length in taker.arrived.taken] == [0, *ENDS][
        len([e for e in ENDS if e <= arrived]) : -1
    ]
    assert (pushed.resume, pushed.resumed_at) == (("replay", arrived) if arrived else ("none", 0))
    if arrived == len(BLOCKS):
        assert pushed.wire_bytes == 0
        assert "(replay)" in pushed.line()  # and not "stored already"


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_replay_whose_wire_is_lost(sending: Sending, receiver_identity: Identity, taken: int) -> None:
    taker = Taker()
    taker.arrived.raw += BLOCKS[: ENDS[1]]
    taker.arrived.segments = segments_of(BLOCKS, ENDS[0], ENDS[1])
    async with receiving(receiver_identity, taker.drops(taken), taker.to_the_end) as receiver:
        pushed = await sending(receiver.endpoint, resume="replay")
    assert isinstance(pushed, Pushed)
    assert taker.arrived.raw == BLOCKS
    assert taker.arrived.segments == segments_of(BLOCKS, *(segment.end for segment in taker.arrived.segments))
    assert [offer.resume for offer in taker.offers] == ["replay", "reconnect"]
    assert (pushed.resume, pushed.resumed_at) == ("replay", ENDS[1])  # the one that saved the most


async def test_a_replay_that_differs_has_it_deleted(sending: Sending, receiver_identity: Identity) -> None:
    taker, told = Taker(), []
    taker.arrived.raw += bytes(ENDS[1])
    taker.arrived.segments = segments_of(bytes(ENDS[1]), ENDS[1])

    async def hears(peer: Peer) -> None:
        await taker.offered(peer)
        with pytest.raises(Stopped) as stopped:
            await taker.arrived.take(peer)
        told.append(stopped.value.said)
        await peer.say(messages.Stopped(offset=0))
        await peer.gone()

    async with receiving(receiver_identity, hears) as receiver:
        with pytest.raises(DifferentBytes, match="are not those that arrived before"):
            await sending(receiver.endpoint, resume="replay")
    assert [said.keep for said in told] == [False]
    assert taker.arrived.taken == []


@pytest.mark.parametrize("changed", [{"dataset": "tank/copy"}, {"snapshot": "then"}])
@pytest.mark.parametrize("at_end", [False, True])
async def test_that_the_same_snapshot_is_stored_elsewhere_is_no_receipt(
    sending: Sending, receiver_identity: Identity, changed: dict[str, str], *, at_end: bool
) -> None:
    """A replica has the same GUIDs."""
    taker = Taker()

    async def knows(peer: Peer) -> None:
        if at_end:
            await taker.offered(peer)
            await taker.arrived.take(peer)
        else:
            await taker.greeted(peer)
        await peer.say(messages.Stored(receipt=receipt_of(BLOCKS, **changed)))
        await peer.gone()

    async with receiving(receiver_identity, knows) as receiver:
        with pytest.raises(ReceiptMismatch, match=f"has {next(iter(changed))}"):
            await sending(receiver.endpoint)


async def test_a_replay_that_is_stored_after_all(sending: Sending, receiver_identity: Identity) -> None:
    async def knows(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Stored(receipt=receipt_of(BLOCKS)))
        await peer.ended()

    async with receiving(receiver_identity, knows) as receiver:
        receipt = await sending(receiver.endpoint, resume="replay")
    assert isinstance(receipt, Receipt)


def test_what_was_pushed_is_said() -> None:
    receipt = receipt_of(BLOCKS)
    assert Pushed(receipt, 0, 1.0).line() == "tank/data@now (full) is stored already; nothing was sent"
    assert Pushed(receipt, 5, 1.0).line().endswith("in 0:00:01")
    said = Pushed(receipt, 5, 1.0, "token", 4 << 20)
    assert said.line().endswith(", resumed at 4.0 MiB (token)")
    assert (said.to_dict()["resume"], said.to_dict()["resumed_at"]) == ("token", 4 << 20)
