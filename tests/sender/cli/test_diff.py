"""`fullsend diff`, against a scripted receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.sender.cli.test_file_question import hearing
from tests.sender.command import Ended
from tests.sender.peer import receiving

from fullsend_sender.restore.files import difference

if TYPE_CHECKING:
    from tests.sender.command import Fullsend

    from fullsend_sender.host.identity import Identity


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], difference("tank@a", "tank@b")),
        (["-FH", "--prefix", "/tank"], difference("tank@a", "tank@b", types=True, script=True, prefix=b"/tank")),
        (["--json"], difference("tank@a", "tank@b", as_json=True)),
    ],
    ids=range(3),
)
async def test_diff(fullsend: Fullsend, receiver_identity: Identity, options: list[str], wanted: object) -> None:
    async with receiving(receiver_identity, hearing(wanted, b"M\t/a\n")) as receiver:
        assert await fullsend(receiver, "diff", *options, "tank@a", "@b") == Ended(0, b"M\t/a\n", "")
