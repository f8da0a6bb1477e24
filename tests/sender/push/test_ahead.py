"""The next stream is begun, and offered, while the one before it waits for its receipt."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.sender.peer import Peer, partial_entry, receipt_of, receiving

from fullsend_protocol.shared.errors import ErrorCode, Unreachable
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.frames import FrameHeader, FrameType
from fullsend_sender.host.options import SendOptions
from fullsend_sender.push import ahead
from fullsend_sender.push.ahead import may_begin
from fullsend_sender.push.job import PushItem, PushSummary
from fullsend_sender.push.plan import PlannedSend
from fullsend_sender.transfer.send import StreamContext
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.inventory import Dataset, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.sender.zfs_host import Host

    from fullsend_sender.host.identity import Identity

NAMES = ("tank/a", "tank/b", "tank/c")


@pytest.fixture
async def three(host: Host) -> AsyncGenerator[Host]:
    """A host with three datasets, and a receiver that takes offers ahead. A push leaves nothing that runs."""
    for name in NAMES:
        host.fake.create(name)
    host.keeper.features = [messages.PIPELINED]
    yield host
    assert {"begin ahead", "ask ahead"}.isdisjoint(task.get_name() for task in asyncio.all_tasks())


def offered(host: Host) -> list[str]:
    return [offer.dataset for offer in host.keeper.offers]


async def without_receipt(peer: Peer, *features: str) -> bytes:
    """Take the first stream, and the offer behind it if there is to be one. Returns: its bytes."""
    await peer.greet(*features)
    assert (await peer.hear()).dataset == NAMES[0]
    await peer.say(messages.Accept(offset=0, segments=[], record=None))
    raw, _finish = await peer.take_stream()
    if features:
        assert (await peer.hear()).dataset == NAMES[1]
    return raw


async def test_each_offer_comes_before_the_receipt_of_the_stream_before(three: Host) -> None:
    """One way and back a dataset, then, instead of two."""
    three.keeper.ahead = 2  # the receipts wait for it
    assert await three.push(*NAMES) == PushSummary(pushed=3)
    assert offered(three) == [receipt.receipt.dataset for receipt in three.pushed] == [*NAMES]
    assert three.keeper.connections == 2  # one asks what is stored
    assert all(three.fake.holds(name) == [] for name in NAMES)
    assert all(len(three.fake.names("bookmarks", name)) == 1 for name in NAMES)


async def test_a_second_signal_leaves_no_zfs_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the pipeline of the stream that was begun still ends."""
    begun, ending, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    @contextlib.asynccontextmanager
    async def opened(*_arguments: object, **_more: object) -> AsyncGenerator[None]:
        begun.set()
        try:
            await asyncio.Event().wait()
            yield None
        finally:
            ending.set()
            await may_end.wait()
            ended.append("pipeline")

    @contextlib.asynccontextmanager
    async def send(*_arguments: object) -> AsyncGenerator[SimpleNamespace]:
        try:
            yield SimpleNamespace(fd=0, succeeded=None)
        finally:
            ended.append("zfs send")

    async def outgoing() -> Any:
        return SimpleNamespace(about=StreamContext(), endpoint=None, identity=None, options=None, progress=None)

    monkeypatch.setattr(ahead, "opened", opened)
    zfs: Any = SimpleNamespace(send=send)
    link: Any = SimpleNamespace(finished=0)
    stream = ahead.BegunStream(zfs, [], outgoing, link)
    await begun.wait()
    closing = asyncio.create_task(stream.close())
    await ending.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert ended == ["zfs send"]
    may_end.set()
    await asyncio.gather(stream._task, return_exceptions=True)
    assert ended == ["zfs send", "pipeline"]


async def test_receiver_of_before_gets_each_offer_after_the_receipt(three: Host, receiver_identity: Identity) -> None:
    """Its connection would refuse any other. The next `zfs send` is begun all the same."""

    async def begun(peer: Peer) -> None:
        """Give the first receipt only when the next stream has been begun."""
        raw = await without_receipt(peer)
        async with asyncio.timeout(30):
            while not any("tank/b@" in line and "-nP" not in line for line in three.ran("send")):
                await asyncio.sleep(0.01)
        await peer.say(messages.Committed(receipt=receipt_of(raw)))
        for _name in NAMES[1:]:
            offer = await peer.hear()
            assert isinstance(offer, messages.Push)
            assert await three.keeper._take(peer, offer)
        await peer.ended()

    async with receiving(receiver_identity, three.keeper, begun) as state:
        three.endpoint = state.endpoint
        assert await three.push(*NAMES) == PushSummary(pushed=3)


async def test_each_job_has_offers_ahead_of_its_own(three: Host) -> None:
    for name in ("tank/d", "tank/e", "tank/f"):
        three.fake.create(name)
    three.keeper.ahead = 1
    assert (await three.push("tank/a", *NAMES[1:], "tank/d", "tank/e", "tank/f", settings={"jobs": 2})).pushed == 6
    assert len(three.keeper.offers) == 6


async def test_refusal_of_a_stream_is_not_one_of_the_offer_behind_it(three: Host, receiver_identity: Identity) -> None:
    async def refusing(peer: Peer) -> None:
        await without_receipt(peer, messages.PIPELINED)
        await peer.say(messages.Error(code=ErrorCode.STREAM, message="refused by the test"))
        await peer.gone()

    keeper = three.keeper
    async with receiving(receiver_identity, keeper, refusing, always=keeper) as state:
        three.endpoint = state.endpoint
        summary = await three.push(*NAMES)
    assert offered(three) == [*NAMES[1:]]
    ((name, error),) = summary.failures
    assert (name.partition("@")[0], "refused by the test" in str(error)) == ("tank/a", True)
    assert [dataset for dataset, _kind in three.kinds()] == [*NAMES[1:]]
    assert len(three.fake.holds("tank/a")) == 1
    assert three.fake.holds("tank/b") == three.fake.holds("tank/c") == []


async def test_lost_receipt_is_fetched_before_the_next_is_offered_again(
    three: Host, receiver_identity: Identity
) -> None:
    raws: list[bytes] = []

    async def lost(peer: Peer) -> None:
        raws.append(await without_receipt(peer, messages.PIPELINED))

    async def asked_again(peer: Peer) -> None:
        await peer.greet(messages.PIPELINED)
        again = await peer.hear()
        assert isinstance(again, messages.Push)
        assert (again.dataset, again.resume, again.whole is not None) == ("tank/a", "reconnect", True)
        await peer.say(messages.Stored(receipt=receipt_of(raws[0])))
        following = await peer.hear()
        assert isinstance(following, messages.Push)
        assert following.dataset == "tank/b"
        assert await three.keeper._take(peer, following)
        await peer.gone()

    async with receiving(receiver_identity, three.keeper, lost, asked_again) as state:
        three.endpoint = state.endpoint
        assert await three.push(*NAMES[:2]) == PushSummary(pushed=2)
    assert [dataset for dataset, _kind in three.kinds()] == [*NAMES[:2]]


async def test_receiver_that_goes_away_with_an_offer_ahead(three: Host, receiver_identity: Identity) -> None:
    async def lost(peer: Peer) -> None:
        await without_receipt(peer, messages.PIPELINED)

    async with receiving(receiver_identity, three.keeper, lost) as state:
        three.endpoint = state.endpoint
        summary = await three.push(*NAMES, settings={"retry_for": "0s"})
    assert [isinstance(error, Unreachable) for _name, error in summary.failures] == [True, True]
    assert [name.partition("@")[0] for name, _error in summary.failures] == ["tank/a", "2 more"]
    # The next run sends all, and lets go of what this one holds.
    async with receiving(receiver_identity, always=three.keeper) as state:
        three.endpoint = state.endpoint
        assert (await three.push(*NAMES)).failures == []
    assert all(three.fake.holds(name) == [] for name in NAMES)


@pytest.mark.parametrize("code", [ErrorCode.BUSY, ErrorCode.SPACE])
async def test_refused_offer_is_one_datasets(three: Host, code: ErrorCode) -> None:
    three.keeper.ahead = 1
    three.keeper.refuse = [None, code]
    summary = await three.push(*NAMES)
    assert [name.partition("@")[0] for name, _error in summary.failures] == ["tank/b"]
    assert [getattr(error, "code", None) for _name, error in summary.failures] == [code]
    assert [dataset for dataset, _kind in three.kinds()] == ["tank/a", "tank/c"]


async def test_stream_that_cannot_be_begun_fails_at_its_turn(three: Host) -> None:
    three.fake.fail("tank/b@", "cut")
    summary = await three.push(*NAMES)
    ((name, error),) = summary.failures
    assert name.startswith("tank/b@")
    assert isinstance(error, ZfsError)
    assert [dataset for dataset, _kind in three.kinds()] == ["tank/a", "tank/c"]


async def test_base_that_is_lost_with_an_offer_ahead(three: Host) -> None:
    """The full takes a connection of its own, and the offer waits."""
    assert (await three.push(*NAMES)).pushed == 3
    for name in NAMES:
        three.fake.change(name)
    three.keeper.orphans = three.keeper.ahead = 1
    assert (await three.push(*NAMES)).failures == []
    assert three.kinds() == [
        ("tank/a", "incremental"),
        ("tank/a", "full"),
        ("tank/b", "incremental"),
        ("tank/c", "incremental"),
    ]


async def test_cancelled_with_an_offer_ahead(three: Host, receiver_identity: Identity) -> None:
    waits, ended = asyncio.Event(), asyncio.Event()

    async def waiting(peer: Peer) -> None:
        await without_receipt(peer, messages.PIPELINED)
        waits.set()
        await peer.gone()
        ended.set()

    async with receiving(receiver_identity, three.keeper, waiting, always=three.keeper) as state:
        three.endpoint = state.endpoint
        task = asyncio.create_task(three.push(*NAMES))
        await waits.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await ended.wait()
        assert all(len(three.fake.holds(name)) == 1 for name in NAMES)
        assert (await three.push(*NAMES)).failures == []
    assert all(three.fake.holds(name) == [] for name in NAMES)


async def test_snapshot_that_is_named_is_held_before_it_is_sent(three: Host) -> None:
    """So nothing of it is begun before its turn."""
    for name in NAMES:
        three.fake.snapshot(f"{name}@mon")
    assert (await three.push(*(f"{name}@mon" for name in NAMES))).pushed == 3
    done = [line.split() for line in three.fake.commands if "-nP" not in line]
    done = [words for words in done if words[0] in {"hold", "send"}]
    assert [(words[0], words[-1]) for words in done] == [
        (what, f"{name}@mon") for name in NAMES for what in ("hold", "send")
    ]


async def test_receiver_that_answers_the_offer_first_is_not_believed(three: Host, receiver_identity: Identity) -> None:
    async def lying(peer: Peer) -> None:
        await without_receipt(peer, messages.PIPELINED)
        payload = messages.encode(messages.Accept(offset=0, segments=[], record=None))
        await peer.say_raw(FrameHeader(FrameType.CONTROL, len(payload)).encode() + payload)
        await peer.gone()

    async with receiving(receiver_identity, three.keeper, lying, always=three.keeper) as state:
        three.endpoint = state.endpoint
        summary = await three.push(*NAMES)
    ((name, error),) = summary.failures
    assert name.startswith("tank/a@")
    assert "'accept' from the receiver in state ahead" in str(error)
    assert [dataset for dataset, _kind in three.kinds()] == [*NAMES[1:]]


async def test_receipt_of_the_offered_stream_is_not_taken_for_the_one_before(
    three: Host, receiver_identity: Identity
) -> None:
    async def lying(peer: Peer) -> None:
        raw = await without_receipt(peer, messages.PIPELINED)
        receipt = receipt_of(raw, dataset="tank/b")
        await peer.say(messages.Committed(receipt=receipt))
        await peer.gone()

    async with receiving(receiver_identity, three.keeper, lying, always=three.keeper) as state:
        three.endpoint = state.endpoint
        summary = await three.push(*NAMES)
    ((name, error),) = summary.failures
    assert name.startswith("tank/a@")
    assert "do not rely on it" in str(error)
    assert [dataset for dataset, _kind in three.kinds()] == [*NAMES[1:]]


def test_only_what_is_new_and_held_is_begun() -> None:
    snapshot = Snapshot("mon", "1", 1, 0, 0, 0)
    dataset = Dataset("tank/a", "filesystem", "1", 0, 0, False, False, [snapshot], [])
    new, named = (PlannedSend(dataset, each, None, "@", ()) for each in (None, snapshot))
    assert may_begin(PushItem(new, SendOptions(), (dataset,)))
    assert not may_begin(PushItem(named, SendOptions(), (dataset,)))
    assert not may_begin(PushItem(new, SendOptions(), (dataset,), begun=partial_entry()))
