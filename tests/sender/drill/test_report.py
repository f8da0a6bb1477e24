from __future__ import annotations

import logging
from typing import Any

import pytest
from tests.protocol.helpers import DRILL
from tests.sender.peer import Peer, receiving
from tests.sender.restore.test_chains import entry

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, PeerError
from fullsend_protocol.wire import messages
from fullsend_sender.drill.report import last_drills, report
from fullsend_sender.host.identity import Identity


class DrillDesk:
    """A receiver that keeps drills, or refuses: with these codes, or by closing, one connection after another."""

    def __init__(self, *refusals: ErrorCode | None) -> None:
        self.refusals = list(refusals)
        self.said: list[messages.Drilled] = []

    async def __call__(self, peer: Peer) -> None:
        await peer.greet()
        said = await peer.hear()
        if self.refusals:
            code = self.refusals.pop(0)
            if code is None:
                return
            await peer.say(messages.Error(code=code, message="message that cannot be read: x"))
        elif isinstance(said, messages.Drilled):
            self.said.append(said)
            await peer.say(messages.Noted())
        else:
            await peer.say(messages.Drills(now="x", drills=[DRILL]), messages.Done())
        await peer.gone()


async def told(desk: DrillDesk, receiver_identity: Identity, identity: Identity, **about: Any) -> bool:
    said: dict[str, Any] = {"ok": True, "compared": "files", "text": "fine", "seconds": 1.2345} | about
    said |= {"raw_bytes": 10, "files": 3}
    async with receiving(receiver_identity, always=desk) as state:
        return await report(state.endpoint, identity, entry("tank/a@1", 7), retry_for=60, **said)


async def test_a_drill_is_reported(receiver_identity: Identity, identity: Identity) -> None:
    desk = DrillDesk()
    assert await told(desk, receiver_identity, identity, text="x" * 2000) is True
    assert desk.said == [
        messages.Drilled(
            dataset="tank/a",
            snapshot="1",
            guid="7",
            ok=True,
            compared="files",
            text="x" * limits.DRILL_TEXT_MAX,
            milliseconds=1234,
            raw_bytes=10,
            files=3,
        )
    ]


async def test_a_receiver_that_was_lost_is_told_when_it_is_back(
    receiver_identity: Identity, identity: Identity
) -> None:
    desk = DrillDesk(None, ErrorCode.SHUTDOWN)
    assert await told(desk, receiver_identity, identity) is True
    assert len(desk.said) == 1


async def test_an_older_receiver_is_named_in_one_line(
    receiver_identity: Identity, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fullsend")
    assert await told(DrillDesk(ErrorCode.PROTOCOL), receiver_identity, identity) is False
    assert caplog.messages == [
        "nas is older and keeps no results of drills; this one is known here alone: update fullsendd there"
    ]
    async with receiving(receiver_identity, always=DrillDesk(ErrorCode.PROTOCOL)) as state:
        assert await last_drills(state.endpoint, identity) == {}
    async with receiving(receiver_identity, always=DrillDesk()) as state:
        assert await last_drills(state.endpoint, identity) == {"tank/data": DRILL}


async def test_any_other_refusal_is_an_error(receiver_identity: Identity, identity: Identity) -> None:
    with pytest.raises(PeerError):
        await told(DrillDesk(ErrorCode.STORE), receiver_identity, identity)
    async with receiving(receiver_identity, always=DrillDesk(ErrorCode.STORE)) as state:
        with pytest.raises(PeerError):
            await last_drills(state.endpoint, identity)
