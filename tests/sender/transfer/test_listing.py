from __future__ import annotations

import pytest
from tests.sender.command import answering_each
from tests.sender.peer import Peer, entry, partial_entry, receiving, status

from fullsend_protocol.shared.errors import PeerError, RemoteProtocolError
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Asked
from fullsend_sender.host.identity import Identity
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import all_stored, entries, is_of_copy, partials, unlisted


async def test_pages_become_one_list(identity: Identity, receiver_identity: Identity) -> None:
    asked = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        asked.append(await peer.hear())
        await peer.say(messages.Entries(entries=[entry(snapshot="a"), entry(snapshot="b")]))
        await peer.say(messages.Entries(entries=[]), messages.Entries(entries=[entry(snapshot="c")]), messages.Done())
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        assert [found.snapshot async for found in entries(link, "tank/data")] == ["a", "b", "c"]
    assert asked == [messages.List(dataset="tank/data")]


async def test_something_else_in_between(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        peer.connection.state = Asked("check")
        await peer.say(messages.Health(program="x", free_bytes=1, problems=[]))
        await peer.gone()

    with pytest.raises((RemoteProtocolError, PeerError)):
        async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _):
            _ = [found async for found in entries(link, None)]


async def test_what_has_arrived_in_part(identity: Identity, receiver_identity: Identity) -> None:
    asked = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        asked.append(await peer.hear())
        await peer.say(
            messages.Partials(partials=[partial_entry(snapshot="a"), partial_entry(snapshot="b", guid=None)])
        )
        await peer.say(messages.Partials(partials=[]), messages.Partials(partials=[partial_entry(snapshot="c")]))
        await peer.say(messages.Done())
        asked.append(await peer.hear())
        await peer.say(messages.Done())
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        assert [found.snapshot for found in await partials(link)] == ["a", "b", "c"]
        assert await partials(link) == []
    assert asked == [messages.PartialsWanted()] * 2


@pytest.mark.parametrize(
    ("after", "missing"), [({"a": 3, "b": 2}, {"a": 2}), ({"a": 1}, {}), ({"a": 2, "b": 9}, {"a": 1})]
)
async def test_what_is_pruned_while_it_is_listed_is_not_missing(
    identity: Identity, receiver_identity: Identity, after: dict[str, int], missing: dict[str, int]
) -> None:
    def told(of: dict[str, int]) -> tuple[messages.Status, messages.Done]:
        found = [status(name, streams=streams) for name, streams in of.items()]
        return messages.Status(now="2026-11-23T07:00:00Z", datasets=found), messages.Done()

    listed = [entry(dataset="a"), entry(dataset="b"), entry(dataset="b", snapshot="later")]
    script = answering_each(told({"a": 3, "b": 2}), (messages.Entries(entries=listed), messages.Done()), told(after))
    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        found, said = await all_stored(link)
    assert found == listed
    assert unlisted(said, {"a": 1, "b": 2}) == missing


@pytest.mark.parametrize(("base", "guid", "unchanged", "copy"), [
    ("1", "1", "2026-11-24T02:00:01Z", True),
    ("1", "1", "2026-11-24T02:00:00Z", False),  # within a second nobody knows
    ("1", "1", None, False),
    ("1", "2", "2026-11-25T02:00:00Z", False),
    (None, None, "2026-11-25T02:00:00Z", False),
])  # fmt: skip
def test_what_was_reported_after_a_stream_on_it_has_a_copy(
    base: str | None, guid: str | None, unchanged: str | None, copy: bool
) -> None:
    on_it = entry(dataset="b", base_guid=base, received="2026-11-24T02:00:00Z")
    assert is_of_copy(on_it, status("a", guid=guid, unchanged=unchanged)) == copy
