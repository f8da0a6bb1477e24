from __future__ import annotations

import contextlib
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sender.peer import Peer, Receiving, receiving

from fullsend_protocol.shared.errors import ErrorCode, PeerError, UsageError
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.invitation import Invitation
from fullsend_sender.host import durable
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.transfer import pairing
from fullsend_sender.transfer.link import WrongReceiver
from fullsend_sender.transfer.pairing import join


def invitation(receiver: Receiving | Endpoint, sender: str = "alpha", host: str = "127.0.0.1") -> str:
    endpoint = receiver.endpoint if isinstance(receiver, Receiving) else receiver
    return Invitation(sender, host, endpoint.port, endpoint.fingerprint, "a-secret").encode()


class Enrolling:
    """A receiver that takes one `join`."""

    def __init__(self, answer: messages.Joined | messages.Error | None = None) -> None:
        self.answer = answer or messages.Joined(sender="alpha", store="id")
        self.heard: messages.Join | None = None

    async def __call__(self, peer: Peer) -> None:
        assert peer.certificate is None
        await peer.hello(None)
        self.heard = await peer.hear()
        await peer.say(self.answer)
        await peer.gone()


SPENT = messages.Error(code=ErrorCode.INVITATION, message="this invitation is spent")


async def test_a_new_host(tmp_path: Path, receiver_identity: Identity) -> None:
    config = str(tmp_path / "etc" / "sender.toml")
    enrolling = Enrolling()
    async with receiving(receiver_identity, enrolling) as receiver:
        paired = await join(config, invitation(receiver))
    assert (paired.sender, paired.receiver, paired.config) == ("alpha", "receiver", config)
    identity = Identity.beside(config)
    assert enrolling.heard == messages.Join(secret="a-secret", certificate=identity.pem())
    assert tomllib.loads(Path(config).read_text(encoding="utf-8")) == {
        "receivers": {
            "receiver": {
                "address": f"127.0.0.1:{receiver.endpoint.port}",
                "fingerprint": receiver_identity.fingerprint(),
                "sender": "alpha",
            }
        }
    }
    assert sorted(os.listdir(tmp_path / "etc")) == ["cert.pem", "key.pem", "sender.toml"]


async def test_several_daemons_of_one_store(tmp_path: Path, receiver_identity: Identity) -> None:
    config = str(tmp_path / "sender.toml")
    async with receiving(receiver_identity, Enrolling()) as receiver:
        line = replace(Invitation.decode(invitation(receiver)), others=(("::1", 1),)).encode()
        await join(config, line)
    (table,) = tomllib.loads(Path(config).read_text(encoding="utf-8"))["receivers"].values()
    assert table["address"] == [f"127.0.0.1:{receiver.endpoint.port}", "[::1]:1"]


async def test_a_second_receiver_and_a_name_of_ones_own(tmp_path: Path, receiver_identity: Identity) -> None:
    config = tmp_path / "sender.toml"
    config.write_text(
        f"# mine\nlevel = 5\n[receivers.old]\naddress = 'x:1'\nfingerprint = '{'1' * 64}'\nsender = 'a'\n"
    )
    async with receiving(receiver_identity, Enrolling()) as receiver:
        assert (await join(str(config), invitation(receiver), "nas")).receiver == "nas"
    text = config.read_text()
    assert text.startswith("# mine\nlevel = 5\n")
    assert list(tomllib.loads(text)["receivers"]) == ["old", "nas"]


async def test_key_and_name_are_kept_when_it_is_repeated(tmp_path: Path, receiver_identity: Identity) -> None:
    config = str(tmp_path / "sender.toml")
    again = Enrolling(messages.Joined(sender="beta", store="id"))
    async with receiving(receiver_identity, Enrolling(), again) as receiver:
        await join(config, invitation(receiver), "nas")
        key = Path(Identity.beside(config).key).read_bytes()
        assert (await join(config, invitation(receiver))).receiver == "nas"
    assert Path(Identity.beside(config).key).read_bytes() == key
    assert tomllib.loads(Path(config).read_text(encoding="utf-8"))["receivers"]["nas"]["sender"] == "beta"


async def test_a_spent_invitation_that_we_have_spent_ourselves(tmp_path: Path, receiver_identity: Identity) -> None:
    async def enrolled(peer: Peer) -> None:
        await peer.greet()
        await peer.ended()

    config = str(tmp_path / "sender.toml")
    async with receiving(receiver_identity, Enrolling(SPENT), enrolled) as receiver:
        assert (await join(config, invitation(receiver))).sender == "alpha"
    assert os.path.exists(config)


async def test_a_spent_invitation(tmp_path: Path, receiver_identity: Identity) -> None:
    async def somebody_else(peer: Peer) -> None:
        await peer.hello("beta")
        await peer.gone()

    config = str(tmp_path / "sender.toml")
    async with receiving(receiver_identity, Enrolling(SPENT), somebody_else) as receiver:
        with pytest.raises(PeerError, match="this invitation is spent"):
            await join(config, invitation(receiver))
    async with receiving(receiver_identity, Enrolling(SPENT)) as receiver:
        with pytest.raises(PeerError, match="this invitation is spent"):
            await join(config, invitation(receiver))
    assert not os.path.exists(config)


async def test_any_other_refusal(tmp_path: Path, receiver_identity: Identity) -> None:
    refusal = messages.Error(code=ErrorCode.LIMIT, message="too many tries")
    async with receiving(receiver_identity, Enrolling(refusal)) as receiver:
        with pytest.raises(PeerError, match="too many tries"):
            await join(str(tmp_path / "sender.toml"), invitation(receiver))
    assert len(receiver.peers) == 1


async def test_a_man_in_the_middle_gets_nothing(
    tmp_path: Path, receiver_identity: Identity, identity: Identity
) -> None:
    got = bytearray()

    async def listen(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            await peer.hello(None)
            got.extend(await peer.reader.read(1000))

    async with receiving(receiver_identity, listen, all_must_come=False) as receiver:
        line = Invitation("alpha", "127.0.0.1", receiver.endpoint.port, identity.fingerprint(), "a-secret").encode()
        with pytest.raises(WrongReceiver):
            await join(str(tmp_path / "sender.toml"), line)
    assert not got


# --- nothing is sent -------------------------------------------------------------------------------------------


async def test_no_invitation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a whole invitation"):
        await join(str(tmp_path / "sender.toml"), "fullsend1-abc")
    assert os.listdir(tmp_path) == []


async def test_a_key_that_cannot_be_written(tmp_path: Path, receiver_identity: Identity) -> None:
    (tmp_path / "etc").write_text("a file where a folder must be")
    async with receiving(receiver_identity) as receiver:
        with pytest.raises(UsageError, match="cannot"):
            await join(str(tmp_path / "etc" / "sender.toml"), invitation(receiver))
    assert not receiver.peers


async def test_a_configuration_that_is_wrong(tmp_path: Path, receiver_identity: Identity) -> None:
    (tmp_path / "sender.toml").write_text("levle = 3")
    async with receiving(receiver_identity) as receiver:
        with pytest.raises(UsageError, match="unknown key 'levle'"):
            await join(str(tmp_path / "sender.toml"), invitation(receiver))
    assert not receiver.peers
    assert os.listdir(tmp_path) == ["sender.toml"]


async def test_a_configuration_that_cannot_be_extended(tmp_path: Path, receiver_identity: Identity) -> None:
    (tmp_path / "sender.toml").write_text("receivers = {}")
    async with receiving(receiver_identity) as receiver:
        with pytest.raises(UsageError, match="please add these lines"):
            await join(str(tmp_path / "sender.toml"), invitation(receiver))
    assert not receiver.peers


async def test_a_folder_that_cannot_be_written(
    tmp_path: Path, receiver_identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "elsewhere" / "sender.toml"
    config.parent.mkdir()
    config.write_text("")
    (tmp_path / "sender.toml").symlink_to(config)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(config.parent))
    async with receiving(receiver_identity) as receiver:
        with pytest.raises(UsageError, match="elsewhere cannot be written"):
            await join(str(tmp_path / "sender.toml"), invitation(receiver))
    assert not receiver.peers


async def test_a_name_that_is_taken(tmp_path: Path, receiver_identity: Identity) -> None:
    config = tmp_path / "sender.toml"
    config.write_text(f"[receivers.nas]\naddress = 'x:1'\nfingerprint = '{'1' * 64}'\nsender = 'a'\n")
    async with receiving(receiver_identity) as receiver:
        with pytest.raises(UsageError, match="another receiver is called 'nas' already: choose a name for this one"):
            await join(str(config), invitation(receiver), "nas")
    assert not receiver.peers


async def test_disk_is_full_at_the_end(
    tmp_path: Path, receiver_identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "replace", fail)
    async with receiving(receiver_identity, Enrolling()) as receiver:
        with pytest.raises(UsageError, match="this host is enrolled, so run the same join again"):
            await join(str(tmp_path / "sender.toml"), invitation(receiver))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("nas", "nas"),
        ("nas.example.org", "nas"),
        ("192.0.2.1", "receiver"),
        ("2001:db8::1", "receiver"),
        ("n_a s", "n_a-s"),
        (".x", "receiver"),
    ],
)
def test_what_a_receiver_is_called(host: str, name: str) -> None:
    assert pairing._name_of_host(host) == name
