"""Files of the receiver, by a scripted one: nothing but a whole answer is a success."""

from __future__ import annotations

import base64
import errno
import os
from typing import TYPE_CHECKING, Final

import pytest
from tests.sender.command import answering
from tests.sender.peer import Peer, receiving
from tests.sender.restore.test_cat import reading

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, PeerError, RemoteProtocolError, Unreachable, UsageError
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import messages
from fullsend_sender.restore.files import ReceiverTooOld, SafeLines, difference, fetch_files, question, versions

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_sender.host.identity import Identity

END: Final = messages.Files(code=0, said=[])
TAR: Final = question("tank@now", "tar", [b"/"], [])
NAMES: Final = question("tank@now", "names", [], [])


def part(data: bytes) -> messages.FilesPart:
    return messages.FilesPart(data=base64.b64encode(data).decode())


async def test_an_answer_is_written_as_it_comes(identity: Identity, receiver_identity: Identity) -> None:
    data = [os.urandom(limits.FILES_PART), b"", b"\x1b\n"]
    lines = [b"a\n\x1b[2", b"J\\x0a\nc", b"\x9b\xff"]
    scripts = [answering(*map(part, data), END), answering(*map(part, lines), END)]
    async with receiving(receiver_identity, *scripts) as receiver:
        async with reading() as pipe:
            assert await fetch_files(receiver.endpoint, identity, TAR, pipe.write) == END
        assert pipe.data == b"".join(data)
        async with reading() as pipe:
            assert await fetch_files(receiver.endpoint, identity, NAMES, pipe.write) == END
        assert pipe.data == b"a\n\\x1b[2J\\x0a\nc\\x9b\\xff"


async def test_a_connection_that_is_cut_is_no_end(identity: Identity, receiver_identity: Identity) -> None:
    async def cut(peer: Peer) -> None:
        await peer.greet()
        assert await peer.hear() == TAR
        await peer.say(part(b"half"))

    async with receiving(receiver_identity, cut) as receiver, reading() as pipe:
        with pytest.raises(Unreachable):
            await fetch_files(receiver.endpoint, identity, TAR, pipe.write)


async def test_a_file_that_the_disk_has_not_kept_is_no_success(
    identity: Identity, receiver_identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    async with receiving(receiver_identity, answering(part(b"data"), END)) as receiver:
        with (tmp_path / "x.tar").open("wb") as file, pytest.raises(OSError, match="No space left"):
            await fetch_files(receiver.endpoint, identity, TAR, file.fileno())


async def test_refusals(identity: Identity, receiver_identity: Identity) -> None:
    old = messages.Error(code=ErrorCode.PROTOCOL, message="message that cannot be read")
    missing = messages.Error(code=ErrorCode.NOT_FOUND, message="tank@now: no such stream")
    scripts = [answering(old), answering(missing), answering(messages.FilesPart(data="A"))]
    async with receiving(receiver_identity, *scripts) as receiver, reading() as pipe:
        with pytest.raises(ReceiverTooOld, match="nas is too old to answer this about files: update fullsendd there"):
            await fetch_files(receiver.endpoint, identity, TAR, pipe.write)
        with pytest.raises(PeerError, match="no such stream"):
            await fetch_files(receiver.endpoint, identity, TAR, pipe.write)
        with pytest.raises(RemoteProtocolError, match="not base64"):
            await fetch_files(receiver.endpoint, identity, TAR, pipe.write)
    assert pipe.data == b""


async def test_a_reader_that_closes_the_pipe_ends_it(identity: Identity, receiver_identity: Identity) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        async with receiving(receiver_identity, answering(part(b"x"), END)) as receiver:
            with pytest.raises(BrokenPipeError):
                await fetch_files(receiver.endpoint, identity, TAR, write)
    finally:
        os.close(write)


def test_more_than_a_message_may_have_is_a_usage_error() -> None:
    path = b"x" * limits.FILES_PATH_MAX
    assert question("a@b", "names", [path] * limits.FILES_PATHS, [path] * limits.FILES_NAMES).stream == "a@b"
    for stream, paths, names in (
        ("a@b", [path] * (limits.FILES_PATHS + 1), []),
        ("a@b", [path + b"x"], []),
        ("a@b", [], [path] * (limits.FILES_NAMES + 1)),
        ("a@b", [], [path + b"x"]),
        ("a\udcff@b", [], []),
        ("a" * 5000, [], []),
    ):
        with pytest.raises(UsageError):
            question(stream, "names", paths, names)


def test_lines_of_any_receiver_are_safe() -> None:
    lines = SafeLines()
    assert lines.feed(b"a\r\nb") == b"a\\r\n"
    assert lines.feed(b"") == b""
    assert lines.end() == b"b"
    with pytest.raises(RemoteProtocolError):
        lines.feed(b"x" * (limits.CONTROL_MAX + 1))
    lines = SafeLines(tabs=True)
    assert lines.feed(b"R\ta\x1b\tb\n") == b"R\ta\\x1b\tb\n"
    assert printable("a\\x0a\u202e", has_escapes=True) == "a\\x0a\\u202e"


def test_questions_about_changes() -> None:
    asked = difference("tank@a", "@b", prefix=b"\xff", types=True)
    assert (asked.stream, asked.other, asked.prefix, asked.form) == ("tank@a", "tank@b", "/w==", "lines")
    assert (asked.types, asked.script, difference("tank@a", "guid:1").other) == (True, False, "guid:1")
    wanted = versions("tank", b"/a", as_json=True, last=2)
    assert (wanted.dataset, wanted.path, wanted.form, wanted.last) == ("tank", "L2E=", "json", 2)
    long = b"x" * (limits.FILES_PATH_MAX + 1)
    for wrong in (
        lambda: difference("tank@a", "\udcff"),
        lambda: difference("a" * 5000, "@b"),
        lambda: difference("tank@a", "@b", prefix=long),
        lambda: versions("tank", long),
        lambda: versions("x" * 5000, b"a"),
        lambda: versions("tank", b"a", last=-1),
        lambda: versions("tank", b"a", last=1 << 64),
    ):
        with pytest.raises(UsageError):
            wrong()


async def test_tabs_of_differences_stay(identity: Identity, receiver_identity: Identity) -> None:
    scripts = [answering(part(b"M\t/a\n"), END)] * 2
    async with receiving(receiver_identity, *scripts) as receiver:
        for wanted, expected in ((difference("t@a", "@b"), b"M\t/a\n"), (versions("t", b"a"), b"M\\t/a\n")):
            async with reading() as pipe:
                assert await fetch_files(receiver.endpoint, identity, wanted, pipe.write) == END
            assert pipe.data == expected
