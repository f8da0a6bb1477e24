"""`fullsend verify`, against a scripted receiver."""

from __future__ import annotations

import json

from tests.sender.command import Ended, Fullsend, answering
from tests.sender.peer import receiving

from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity


async def test_verify(fullsend: Fullsend, receiver_identity: Identity) -> None:
    whole = messages.Verdict(file="f", dataset="tank/a", snapshot="1", raw_bytes=1 << 20, damage=[])
    damaged = messages.Verdict(file="g", dataset="tank/a", snapshot="2", raw_bytes=1, damage=["chunk 1", "chunk 2"])
    done = messages.Done()
    scripts = answering(whole, done), answering(whole, done), answering(whole, damaged, done), answering(damaged, done)
    async with receiving(receiver_identity, *scripts) as receiver:
        assert await fullsend(receiver, "verify") == Ended(0, b"", "")
        assert await fullsend(receiver, "verify", "-v") == Ended(0, b"1 stream is whole, 1.0 MiB raw\n", "")
        ended = await fullsend(receiver, "verify", "tank/a")
        assert (ended.code, ended.line) == (1, "fullsend: damaged: 1 of 2 streams")
        assert ended.out.decode().splitlines() == ["tank/a@2: g: chunk 1", "tank/a@2: g: chunk 2"]
        ended = await fullsend(receiver, "verify", "--json")
        assert ended.code == 1
        assert json.loads(ended.out) == {
            "file": "g",
            "dataset": "tank/a",
            "snapshot": "2",
            "raw_bytes": 1,
            "damage": ["chunk 1", "chunk 2"],
        }


async def test_what_is_not_stored_is_named(fullsend: Fullsend, receiver_identity: Identity) -> None:
    nothing = answering(messages.Done())
    async with receiving(receiver_identity, nothing, nothing) as receiver:
        ended = await fullsend(receiver, "verify", "tank/typo")
        assert (ended.code, ended.out) == (2, b"")
        assert ended.line == "fullsend: no stream of tank/typo is stored, so none was read (see `fullsend list`)"
        ended = await fullsend(receiver, "verify")
        assert (ended.code, ended.out) == (1, b"")
        assert ended.line == "fullsend: no stream is stored, so none was read (see `fullsend list`)"
