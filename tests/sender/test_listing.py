from __future__ import annotations

import pytest

from fullsend_protocol import messages
from fullsend_protocol.errors import PeerError, RemoteProtocolError
from fullsend_sender.identity import Identity
from fullsend_sender.link import connect
from fullsend_sender.listing import entries, row, table
from tests.sender.peer import Peer, entry, receiving


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
        peer.connection.state = type(peer.connection.state).CHECKING
        await peer.say(messages.Health(program="x", free_bytes=1, problems=[]))
        await peer.gone()

    with pytest.raises((RemoteProtocolError, PeerError)):
        async with receiving(receiver_identity, script) as receiver, connect(receiver.endpoint, identity) as (link, _):
            _ = [found async for found in entries(link, None)]


def test_table() -> None:
    rows = [
        row(entry()),
        row(entry(snapshot="next", kind="incremental", flags="Le", base="tank/data@now", base_guid="1234")),
        row(entry(dataset="tank/far", kind="incremental", base="tank/data@now", base_guid="1234", restorable=False)),
        row(entry(kind="package", base_guid="77", flags="p", damaged="chunk 3", restorable=False, raw_bytes=5)),
    ]
    assert list(table(rows)) == [
        "STREAM          KIND         BASE           FLAGS  RECEIVED                   RAW   STORED  STATE",
        "tank/data@now   full         -              -      2026-11-23T06:30:01Z  10.0 MiB  4.0 MiB  ok",
        "tank/data@next  incremental  @now           Le     2026-11-23T06:30:01Z  10.0 MiB  4.0 MiB  ok",
        (
            "tank/far@now    incremental  tank/data@now  -      2026-11-23T06:30:01Z  10.0 MiB  4.0 MiB  "
            "not restorable: a base is missing or damaged"
        ),
        "tank/data@now   package      guid:77        p      2026-11-23T06:30:01Z       5 B  4.0 MiB  damaged: chunk 3",
    ]


def test_names_cannot_steer_the_terminal() -> None:
    cells = row(entry(dataset="tank/\x1b[2J", damaged="\r\nok"))
    assert "\x1b" not in "".join(cells)
    assert "\n" not in "".join(cells)
