"""`fullsend ls`, against a scripted receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.sender.cli.test_file_question import hearing
from tests.sender.command import Ended
from tests.sender.peer import receiving

from fullsend_sender.restore.files import question

if TYPE_CHECKING:
    from tests.sender.command import Fullsend

    from fullsend_sender.host.identity import Identity


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], question("tank@now", "names", [b"/a"], [])),
        (["-l", "-R"], question("tank@now", "long", [b"/a"], [], recursive=True)),
        (["--json", "--name", "*.x"], question("tank@now", "json", [b"/a"], [b"*.x"])),
    ],
    ids=range(3),
)
async def test_ls(fullsend: Fullsend, receiver_identity: Identity, options: list[str], wanted: object) -> None:
    async with receiving(receiver_identity, hearing(wanted, b"a\n")) as receiver:
        assert await fullsend(receiver, "ls", *options, "tank@now", "/a") == Ended(0, b"a\n", "")
