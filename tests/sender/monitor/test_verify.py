from __future__ import annotations

import pytest
from tests.sender.peer import Peer, receiving

from fullsend_protocol.shared.errors import RemoteProtocolError
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Asked
from fullsend_sender.host.identity import Identity
from fullsend_sender.monitor.verify import describe, verdicts
from fullsend_sender.transfer.link import connect


def verdict(*damage: str) -> messages.Verdict:
    return messages.Verdict(
        file="alpha/x.zfs.zst", dataset="tank/a", snapshot="s\x1b", raw_bytes=9, damage=list(damage)
    )


async def test_verdicts_as_they_come(identity: Identity, receiver_identity: Identity) -> None:
    asked = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        asked.append(await peer.hear())
        await peer.say(verdict())
        await peer.beat("disk")
        await peer.say(verdict("chunk 3"), messages.Done())
        await peer.ended()

    async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        assert [found async for found in verdicts(link, None)] == [verdict(), verdict("chunk 3")]
    assert asked == [messages.Verify(dataset=None)]


async def test_something_else_in_between(identity: Identity, receiver_identity: Identity) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        peer.connection.state = Asked("list")
        await peer.say(messages.Entries(entries=[]))
        await peer.gone()

    with pytest.raises(RemoteProtocolError):
        async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _):
            _ = [found async for found in verdicts(link, None)]


def test_one_line_for_each_damage() -> None:
    assert list(describe(verdict())) == []
    assert list(describe(verdict("chunk 1", "chunk 2\n"))) == [
        r"tank/a@s\x1b: alpha/x.zfs.zst: chunk 1",
        r"tank/a@s\x1b: alpha/x.zfs.zst: chunk 2\n",
    ]
