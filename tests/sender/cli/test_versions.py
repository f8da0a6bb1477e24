"""`fullsend versions`, against a scripted receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.sender.cli.test_file_question import hearing
from tests.sender.peer import receiving

from fullsend_sender.restore.files import versions

if TYPE_CHECKING:
    from tests.sender.command import Fullsend

    from fullsend_sender.host.identity import Identity


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], versions("tank", b"/a")),
        (["--json", "--last", "7"], versions("tank", b"/a", as_json=True, last=7)),
    ],
    ids=range(2),
)
async def test_versions(fullsend: Fullsend, receiver_identity: Identity, options: list[str], wanted: object) -> None:
    async with receiving(receiver_identity, hearing(wanted, b"a\n", 1, "said")) as receiver:
        ended = await fullsend(receiver, "versions", *options, "tank", "/a")
    assert (ended.code, ended.out, ended.line) == (1, b"a\n", "fullsend: nas: said")
