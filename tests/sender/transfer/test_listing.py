from __future__ import annotations

import pytest
from tests.sender.peer import Peer, entry, partial_entry, receiving

from fullsend_protocol.shared.errors import PeerError, RemoteProtocolError
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Asked
from fullsend_sender.host.identity import Identity
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import entries, partials


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
