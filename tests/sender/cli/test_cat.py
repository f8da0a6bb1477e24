"""`fullsend cat`, against a scripted receiver."""

from __future__ import annotations

from tests.sender.command import Ended, Fullsend, answering
from tests.sender.peer import chunks_of, manifest_of, receiving
from tests.sender.transfer.test_pipeline import large

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity


async def test_cat(fullsend: Fullsend, receiver_identity: Identity) -> None:
    raw = large(10 << 20)
    whole = answering(messages.Sending(manifest=manifest_of(raw)), *chunks_of(raw), messages.Done())
    missing = messages.Error(code=ErrorCode.NOT_FOUND, message="x: no such stream")
    async with receiving(receiver_identity, whole, answering(missing)) as receiver:
        assert await fullsend(receiver, "cat", "tank/data@now") == Ended(0, raw, "")
        ended = await fullsend(receiver, "cat", "x")
    assert (ended.code, ended.out, ended.line) == (1, b"", "fullsend: nas: x: no such stream")
