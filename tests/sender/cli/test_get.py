"""`fullsend get`, against a scripted receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sender.cli.test_file_question import hearing
from tests.sender.command import AWAY, Ended
from tests.sender.peer import receiving

from fullsend_sender.restore.files import question

if TYPE_CHECKING:
    from tests.sender.command import Fullsend

    from fullsend_sender.host.identity import Identity


async def test_get(fullsend: Fullsend, receiver_identity: Identity) -> None:
    wanted = question("tank@now", "tar", [b"a"], [b"*.x"], special=True, setuid=True)
    async with receiving(receiver_identity, hearing(wanted, b"\x1b\0")) as receiver:
        chosen = ["tank@now", "a", "--name", "*.x", "--special", "--setuid"]
        assert await fullsend(receiver, "get", "--tar", *chosen) == Ended(0, b"\x1b\0", "")


async def test_usage(fullsend: Fullsend) -> None:
    ended = await fullsend(AWAY, "get", "--tar", "tank@now")
    assert (ended.code, ended.line) == (2, "fullsend: name the files, or / for all of them")
    ended = await fullsend(AWAY, "get", "tank@now", "/")
    assert ended.code == 2
    assert "--tar" in ended.line
