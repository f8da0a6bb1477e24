"""`fullsend check`, against a scripted receiver."""

from __future__ import annotations

import json

from tests.programs import free_port
from tests.sender.command import Fullsend, answering
from tests.sender.peer import receiving

from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint


async def test_check(fullsend: Fullsend, receiver_identity: Identity) -> None:
    health = answering(messages.Health(program="fullsendd 1", free_bytes=1 << 30, problems=[]))
    async with receiving(receiver_identity, health) as receiver:
        ended = await fullsend(receiver, "check")
    assert (ended.code, ended.err) == (0, "")
    assert b"ok      nas: 1.0 GiB free\n" in ended.out
    ended = await fullsend(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32), "check", "--json")
    assert ended.code == 75
    assert [json.loads(line)["ok"] for line in ended.out.splitlines()] == [True, True, True, True, False]
