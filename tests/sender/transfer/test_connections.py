"""Connections that stay open from one stream to the next."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from tests import streams
from tests.sender.peer import Keeper, Peer, receiving
from tests.sender.transfer.test_pipeline import flowing

from fullsend_cli.progress import Progress
from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.shared.errors import ErrorCode, PeerError, Unreachable
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.transfer.connections import Connections
from fullsend_sender.transfer.link import DEFAULT_TIMEOUTS, Link
from fullsend_sender.transfer.send import Pushed, StreamContext, TransferOptions, opened, transfer


async def push(place: Endpoint, identity: Identity, connections: Connections, guid: int = 2) -> Pushed | Receipt:
    """Push a stream, and never wait for a receiver that is away."""
    raw = streams.substream(name=f"tank/a@{guid}", guid=guid)
    options = TransferOptions(1, threads=2, retry_for=0, connections=connections)
    async with flowing(raw) as fd:
        return await transfer(
            fd, place, identity, options, about=StreamContext(reached=True), progress=Progress(time.monotonic())
        )


async def test_streams_share_one(identity: Identity, receiver_identity: Identity) -> None:
    keeper = Keeper()
    async with receiving(receiver_identity, always=keeper) as receiver, Connections() as connections:
        for guid in (2, 3, 4):
            assert isinstance(await push(receiver.endpoint, identity, connections, guid), Pushed)
    assert (len(keeper.streams), keeper.connections) == (3, 1)


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_one_with_an_offer_is_for_the_stream_that_is_offered(
    identity: Identity, receiver_identity: Identity, withdrawn: bool
) -> None:
    keeper, offering = Keeper(), list[asyncio.Task[None]]()
    keeper.features, keeper.ahead = [messages.PIPELINED], 1
    async with receiving(receiver_identity, always=keeper) as receiver, Connections() as connections:
        options = TransferOptions(1, threads=2, retry_for=0, connections=connections)
        begin = partial(opened, endpoint=receiver.endpoint, identity=identity, options=options)
        raws = [streams.substream(name=f"tank/{name}@now", guid=guid) for guid, name in enumerate("ab", 2)]

        def offer(link: Link) -> None:
            offering.append(asyncio.create_task(second.offer_ahead(link, link.finished)))

        async with (
            flowing(raws[1]) as fd,
            begin(fd, about=StreamContext(reached=True), progress=Progress(time.monotonic())) as second,
            flowing(raws[0]) as other,
            begin(
                other,
                about=StreamContext(reached=True, sent=offer),
                progress=Progress(time.monotonic()),
            ) as first,
        ):
            assert isinstance(await first.run(), Pushed)
            await offering[0]
            assert second._ahead is not None
            connect = partial(connections.connect, receiver.endpoint, identity)
            async with connect(timeouts=DEFAULT_TIMEOUTS, throttle=None) as (_link, used):
                assert not used
            if withdrawn:
                await second.withdraw()
            assert isinstance(await second.run(), Pushed)
    assert (len(keeper.streams), keeper.connections) == (2, 2)
    assert [offer.dataset for offer in keeper.offers] == ["tank/a", "tank/b", *(["tank/b"] if withdrawn else [])]


async def test_no_offer_behind_a_stream_of_another_job(identity: Identity, receiver_identity: Identity) -> None:
    """The connection went to another job meanwhile: a stream of that job waits for its receipt now."""
    keeper, offering = Keeper(), list[asyncio.Task[None]]()
    keeper.features = [messages.PIPELINED]
    async with receiving(receiver_identity, always=keeper) as receiver, Connections() as connections:
        options = TransferOptions(1, threads=2, retry_for=0, connections=connections)
        begin = partial(opened, endpoint=receiver.endpoint, identity=identity, options=options)
        raws = [streams.substream(name=f"tank/{name}@now", guid=guid) for guid, name in enumerate("ab", 2)]

        def offer(link: Link) -> None:
            assert link.takes_offer
            offering.append(asyncio.create_task(second.offer_ahead(link, link.finished - 1)))

        async with (
            flowing(raws[1]) as fd,
            begin(fd, about=StreamContext(reached=True), progress=Progress(time.monotonic())) as second,
            flowing(raws[0]) as other,
            begin(other, about=StreamContext(reached=True, sent=offer), progress=Progress(time.monotonic())) as first,
        ):
            assert isinstance(await first.run(), Pushed)
            await offering[0]
            assert second._ahead is None
            assert isinstance(await second.run(), Pushed)
    assert [offered.dataset for offered in keeper.offers] == ["tank/a", "tank/b"]


async def test_at_the_same_time_each_has_its_own(identity: Identity, receiver_identity: Identity) -> None:
    keeper = Keeper()
    async with receiving(receiver_identity, always=keeper) as receiver, Connections() as connections:
        for _turn in range(2):
            connect = partial(connections.connect, receiver.endpoint, identity)
            async with (
                connect(timeouts=DEFAULT_TIMEOUTS, throttle=None) as (one, _used),
                connect(timeouts=DEFAULT_TIMEOUTS, throttle=None) as (other, _used),
            ):
                assert one is not other
    assert keeper.connections == 2


async def test_after_a_refusal_a_new_one(identity: Identity, receiver_identity: Identity) -> None:
    keeper = Keeper()
    keeper.refuse = [None, ErrorCode.BASE, None]
    async with receiving(receiver_identity, always=keeper) as receiver, Connections() as connections:
        await push(receiver.endpoint, identity, connections, 2)
        with pytest.raises(PeerError, match="refused by the test"):
            await push(receiver.endpoint, identity, connections, 3)
        await push(receiver.endpoint, identity, connections, 4)
    assert (len(keeper.streams), len(keeper.offers), keeper.connections) == (2, 3, 2)


@pytest.mark.parametrize("how", ["closed", "closed at the offer", "told"])
async def test_one_that_is_lost_between_streams_is_no_failure(
    identity: Identity, receiver_identity: Identity, how: str
) -> None:
    """Such as by a receiver that was restarted, or one that closes after each stream."""
    keeper, closed = Keeper(), asyncio.Event()

    async def once(peer: Peer) -> None:
        await peer.greet()
        offer = await peer.hear()
        assert isinstance(offer, messages.Push)
        assert await keeper._take(peer, offer)
        if how != "closed":
            assert isinstance(await peer.hear(), messages.Push)
        if how == "told":
            await peer.say(messages.Error(code=ErrorCode.SHUTDOWN, message="restarts"))
            await peer.gone()
        closed.set()

    async with receiving(receiver_identity, once, always=keeper) as receiver, Connections() as connections:
        await push(receiver.endpoint, identity, connections, 2)
        if how == "closed":
            await closed.wait()
        assert isinstance(await push(receiver.endpoint, identity, connections, 3), Pushed)
    assert (len(keeper.streams), len(receiver.peers)) == (2, 2)


async def test_a_receiver_that_went_away_is_away(identity: Identity, receiver_identity: Identity) -> None:
    keeper = Keeper()
    async with Connections() as connections:
        async with receiving(receiver_identity, keeper) as receiver:
            await push(receiver.endpoint, identity, connections, 2)
            receiver.peers[0].writer.close()
        with pytest.raises(Unreachable, match="cannot connect"):
            await push(receiver.endpoint, identity, connections, 3)


async def test_one_that_is_lost_after_its_answer_waits(identity: Identity, receiver_identity: Identity) -> None:
    """A stream that was accepted and lost is one that is away: it is not tried at once, and here not at all."""
    keeper = Keeper()

    async def twice(peer: Peer) -> None:
        await peer.greet()
        offer = await peer.hear()
        assert isinstance(offer, messages.Push)
        assert await keeper._take(peer, offer)
        assert isinstance(await peer.hear(), messages.Push)
        await peer.say(messages.Accept(offset=0, segments=[], record=None))

    async with receiving(receiver_identity, twice, always=keeper) as receiver, Connections() as connections:
        await push(receiver.endpoint, identity, connections, 2)
        with pytest.raises(Unreachable):
            await push(receiver.endpoint, identity, connections, 3)
    assert len(receiver.peers) == 1
