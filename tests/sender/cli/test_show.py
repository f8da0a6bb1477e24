"""`fullsend show`, against a scripted receiver."""

from __future__ import annotations

import json

from tests.sender.command import Fullsend, answering_each
from tests.sender.peer import entry, receiving, status

from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity


async def test_show(fullsend: Fullsend, receiver_identity: Identity) -> None:
    said = messages.Entries(entries=[entry(), entry(dataset="tank/b", guid="2", base_guid="9", kind="incremental")])
    scripts = [answering_each((messages.Done(),), (said, messages.Done())) for _ in range(5)]
    async with receiving(receiver_identity, *scripts) as receiver:
        ended = await fullsend(receiver, "show", "tank/data@now")
        assert (ended.code, ended.err) == (0, "")
        assert b"snapshot           now\n" in ended.out
        ended = await fullsend(receiver, "show", "--json", "tank/data@now")
        assert (ended.code, json.loads(ended.out)) == (0, entry().model_dump())
        ended = await fullsend(receiver, "show", "--commands", "tank/data@now")
        assert (ended.code, ended.out.count(b"zfs receive")) == (0, 1)
        ended = await fullsend(receiver, "show", "--commands", "tank/b@now")
        assert (ended.code, ended.out) == (1, b"")
        assert "tank/b@now: cannot be restored: " in ended.line
        ended = await fullsend(receiver, "show", "tank/c@now")
        assert (ended.code, ended.out) == (1, b"")
        assert "tank/c@now" in ended.line


async def test_an_older_state_is_not_shown_as_the_newest(fullsend: Fullsend, receiver_identity: Identity) -> None:
    stored = messages.Status(now="2026-11-23T07:00:00Z", datasets=[status("tank/data", streams=2)])
    listed = messages.Entries(entries=[entry()])
    told = (stored, messages.Done())
    script = answering_each(told, (listed, messages.Done()), told)
    async with receiving(receiver_identity, script, script) as receiver:
        ended = await fullsend(receiver, "show", "tank/data")
        assert (ended.code, ended.out) == (2, b"")
        assert "it is not certain which state is the newest" in ended.line
        ended = await fullsend(receiver, "show", "tank/data@now")
        assert (ended.code, ended.err) == (0, "")
