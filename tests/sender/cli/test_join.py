"""`fullsend join`, against a scripted receiver."""

from __future__ import annotations

from pathlib import Path

from tests.sender.command import Fullsend
from tests.sender.peer import Peer, receiving

from fullsend_protocol.wire import messages
from fullsend_protocol.wire.invitation import Invitation
from fullsend_sender.host.identity import Identity


async def test_join(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(None)
        assert isinstance(await peer.hear(), messages.Join)
        await peer.say(messages.Joined(sender="alpha", store="id"))
        await peer.gone()

    new = str(tmp_path / "new" / "sender.toml")
    async with receiving(receiver_identity, script) as receiver:
        line = Invitation("alpha", "127.0.0.1", receiver.endpoint.port, receiver.endpoint.fingerprint, "s").encode()
        ended = await fullsend(receiver, "join", line, "--as", "nas", "--config", new)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.decode() == f"paired: receiver 'nas' knows this host as 'alpha' (written to {new})\n"
