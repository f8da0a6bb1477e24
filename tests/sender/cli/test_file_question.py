"""What `ls` and `get` make of the end of an answer."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from tests.sender.peer import Peer, receiving

from fullsend_protocol.wire import messages

if TYPE_CHECKING:
    from tests.sender.command import Fullsend
    from tests.sender.peer import Script

    from fullsend_sender.host.identity import Identity


def hearing(wanted: object, data: bytes, code: int = 0, *said: str) -> Script:
    """A receiver that is asked this, and answers with these bytes."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        heard = await peer.hear()
        assert wanted is None or heard == wanted
        await peer.say(messages.FilesPart(data=base64.b64encode(data).decode()))
        await peer.say(messages.Files(code=code, said=list(said)))
        await peer.gone()

    return script


@pytest.mark.parametrize(("there", "here"), [(0, 0), (1, 1), (2, 2), (3, 3), (75, 1), (130, 1), (1 << 40, 1)])
async def test_exit_codes(fullsend: Fullsend, receiver_identity: Identity, there: int, here: int) -> None:
    async with receiving(receiver_identity, hearing(None, b"a\n", there, "left\x1b out")) as receiver:
        ended = await fullsend(receiver, "ls", "tank@now")
    assert (ended.code, ended.out, ended.line) == (here, b"a\n", r"fullsend: nas: left\x1b out")
