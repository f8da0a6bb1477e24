"""`fullsend` as a test runs it, and scripts for the receiver that it meets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests import streams
from tests.sender.peer import Peer, Script, receipt_of

from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.cli.main import main
from fullsend_sender.host.options import Endpoint

AWAY = Endpoint("nas", "127.0.0.1", 1, "00" * 32)
RAW = streams.substream()

Fullsend = Callable[..., Awaitable["Ended"]]


@dataclass
class Ended:
    code: int
    out: bytes
    err: str

    @property
    def line(self) -> str:
        """What was said on stderr: one line, and never a traceback."""
        assert self.err.count("\n") == 1, self.err
        return self.err.rstrip("\n")


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run the command in this process."""
    code = main(arguments)
    captured = capsys.readouterr()
    return Ended(code, captured.out.encode(), captured.err)


def taking(raw: bytes, **receipt: Any) -> Script:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert (await peer.take_stream())[0] == raw
        await peer.say(messages.Committed(receipt=receipt_of(raw, **receipt)))
        await peer.gone()

    return script


def answering(*said: messages.ReceiverMessage | Chunk) -> Script:
    """The answer to one question."""
    return answering_each(said)


def answering_each(*answers: Sequence[messages.ReceiverMessage | Chunk]) -> Script:
    """The answer to each of several questions, one after the other."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for said in answers:
            await peer.hear()
            await peer.say(*said)
        await peer.gone()

    return script
