"""`fullsend get`, against a scripted receiver."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING

import pytest
from tests.sender.cli.test_file_question import hearing
from tests.sender.command import AWAY, Ended, answering
from tests.sender.peer import Peer, receiving

from fullsend_protocol.dataset.entry import Entry
from fullsend_protocol.dataset.nodes import Time
from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.pack import PackWriter
from fullsend_sender.restore.files import question

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sender.command import Fullsend

    from fullsend_sender.host.identity import Identity


def packed(mode: int = 0o644, special: int = 0) -> bytes:
    """A pack with a file of this mode, and with something of this type."""
    pieces: list[bytes] = []
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    time = Time(1_700_000_000, 1)
    no: dict[str, None] = {"device": None, "target": None}
    writer.file(b"f", Entry(stat.S_IFREG | mode, 3, 0, 0, time, time, **no, xattrs={}))
    writer.data(0, b"abc")
    writer.end_file()
    if special:
        writer.special(b"s\n", Entry(special | 0o600, 0, 0, 0, time, time, **no, xattrs={}))
    writer.end()
    return b"".join(pieces)


def volume() -> bytes:
    pieces: list[bytes] = []
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    writer.volume(1 << 40)
    writer.data(4096, b"abc")
    writer.end()
    return b"".join(pieces)


async def test_an_archive(fullsend: Fullsend, receiver_identity: Identity) -> None:
    wanted = question("tank@now", "tar", [b"a"], [b"*.x"], special=True, setuid=True)
    async with receiving(receiver_identity, hearing(wanted, b"\x1b\0")) as receiver:
        chosen = ["tank@now", "a", "--name", "*.x", "--special", "--setuid"]
        assert await fullsend(receiver, "get", "--tar", *chosen) == Ended(0, b"\x1b\0", "")


async def test_a_folder(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    wanted = question("tank@now", "pack", [b"a"], [b"*.x"], special=True, setuid=True)
    async with receiving(receiver_identity, hearing(wanted, packed())) as receiver:
        chosen = ["tank@now", "a", "--name", "*.x", "--special", "--setuid"]
        assert await fullsend(receiver, "get", "--into", str(tmp_path / "o"), *chosen) == Ended(0, b"", "")
    assert [(each.name, each.read_bytes()) for each in (tmp_path / "o").iterdir()] == [("f", b"abc")]


async def test_a_volume(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    wanted = question("tank@now", "volume", [], [])
    async with receiving(receiver_identity, hearing(wanted, volume())) as receiver:
        assert await fullsend(receiver, "get", "tank@now", "--volume", str(tmp_path / "v")) == Ended(0, b"", "")
    found = (tmp_path / "v").stat()
    assert (found.st_size, found.st_blocks <= 16) == (1 << 40, True)


async def test_what_the_receiver_could_not_give_back_is_named(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path
) -> None:
    async with receiving(receiver_identity, hearing(None, packed(), 1, r"a\n: has an NFSv4 ACL")) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "o"))
    assert (ended.code, ended.err.splitlines()) == (
        1,
        [
            r"fullsend: nas: a\n: has an NFSv4 ACL",
            f"fullsend: {tmp_path / 'o'} is not whole: it lacks what the lines above name",
        ],
    )
    assert (tmp_path / "o" / "f").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("data", "code"), [(packed()[:-1], 1), (packed()[:-1], 0), (packed(), 2)], ids=["failed", "lies", "refused"]
)
async def test_half_an_answer_leaves_nothing(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path, data: bytes, code: int
) -> None:
    async with receiving(receiver_identity, hearing(None, data, code)) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "o"))
    assert ended.code == (code or 1)
    assert f"{tmp_path / 'o'}: what was written there is not whole, and is removed" in ended.err
    assert list((tmp_path / "o").iterdir()) == []
    async with receiving(receiver_identity, hearing(None, volume()[:-1], code)) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "--volume", str(tmp_path / "v"))
    assert ended.code == (code or 1)
    assert [each.name for each in tmp_path.iterdir() if each.name.strip(".").startswith("v")] == []


async def test_a_connection_that_is_lost_leaves_nothing(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path
) -> None:
    async def cut(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.FilesPart(data=base64.b64encode(packed()).decode()))

    async with receiving(receiver_identity, cut) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "o"))
    assert ended.code == 75
    assert "is not whole, and is removed" in ended.err
    assert list((tmp_path / "o").iterdir()) == []


async def test_a_hostile_receiver(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    pieces: list[bytes] = []
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    writer.directory(b"../evil")
    writer.end()
    async with receiving(receiver_identity, hearing(None, b"".join(pieces))) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "o"))
    assert ended.code == 1
    assert "no pack of files: it has an impossible path" in ended.err
    assert not (tmp_path / "evil").exists()
    # Nor does a link that was made before lead anywhere.
    link = Entry(stat.S_IFLNK | 0o777, 2, 0, 0, Time(0, 0), Time(0, 0), None, b"..", {})
    pieces.clear()
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    writer.special(b"l", link)
    writer.directory(b"l/evil")
    writer.special(b"l/evil", link)
    writer.link(b"l/evil", b"l")
    writer.end()
    async with receiving(receiver_identity, hearing(None, b"".join(pieces))) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "q"))
    assert (ended.code, ended.err.count("l/evil: cannot be made here: Not a directory")) == (1, 3), ended.err
    assert not (tmp_path / "evil").exists()
    # What nobody asked for is not made, whatever the receiver sends.
    async with receiving(receiver_identity, hearing(None, packed(0o4755, stat.S_IFIFO))) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "p"))
    assert ended.err.splitlines() == [
        "fullsend: left out: 1 devices, fifos or sockets (--special makes them)",
        "fullsend: without setuid or setgid bit: 1 file (--setuid keeps it)",
    ]
    assert [(each.name, stat.S_IMODE(each.stat().st_mode)) for each in (tmp_path / "p").iterdir()] == [("f", 0o755)]


async def test_what_cannot_be_made_here_is_named(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path
) -> None:
    pieces: list[bytes] = []
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    for number in range(25):
        writer.link(b"a\n%d" % number, b"none")
    writer.end()
    async with receiving(receiver_identity, hearing(None, b"".join(pieces))) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "/", "--into", str(tmp_path / "o"))
    assert ended.code == 1
    said = ended.err.splitlines()
    assert said[0] == r"fullsend: a\n0: cannot be made here: No such file or directory"
    assert (len(said), said[-1]) == (21, "fullsend: and 5 more such lines")


async def test_a_receiver_that_is_too_old(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    old = answering(messages.Error(code=ErrorCode.PROTOCOL, message="message that cannot be read"))
    async with receiving(receiver_identity, old) as receiver:
        ended = await fullsend(receiver, "get", "tank@now", "--volume", str(tmp_path / "v"))
    assert (ended.code, ended.line) == (
        3,
        "fullsend: nas is too old to answer this about files: update fullsendd there",
    )
    assert not (tmp_path / "v").exists()


async def test_usage(fullsend: Fullsend, tmp_path: Path) -> None:
    for how in (["--tar"], ["--into", str(tmp_path / "o")]):
        ended = await fullsend(AWAY, "get", *how, "tank@now")
        assert (ended.code, ended.line) == (2, "fullsend: name the files, or / for all of them")
    ended = await fullsend(AWAY, "get", "tank@now", "/")
    assert ended.code == 2
    assert "--tar" in ended.line
    ended = await fullsend(AWAY, "get", "--tar", "--into", "x", "tank@now", "/")
    assert ended.code == 2
    for more in ("/", "--special", "--setuid", "--name=a"):
        ended = await fullsend(AWAY, "get", "--volume", str(tmp_path / "v"), "tank@now", more)
        assert (ended.code, "it excludes paths" in ended.line) == (2, True)
    (tmp_path / "there").touch()
    ended = await fullsend(AWAY, "get", "--into", str(tmp_path), "tank@now", "/")
    assert (ended.code, ended.line) == (1, f"fullsend: {tmp_path} is not empty: name a new folder, or an empty one")
