"""The command line of `fullsend drill`; tests/sender/drill/test_run.py runs whole drills."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakezfs import FakeZfs
from tests.sender.command import Fullsend
from tests.sender.monitor.test_prove import Desk
from tests.sender.peer import receiving

from fullsend_sender.host.identity import Identity


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no place to restore into: set `drill-into` in sender.toml"),
        (["--into", "tank@x"], "--drill-into: 'tank@x' is not a name or pattern of datasets"),
        (["--into", "tank/no"], "tank/no: there is no such filesystem to restore into: create it with `zfs create"),
        (["--into", "tank/disk"], "tank/disk: there is no such filesystem to restore into"),
    ],
)
async def test_without_a_place_nothing_is_done(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path, arguments: list[str], line: str
) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank")
    fake.create("tank/disk", kind="volume")
    async with receiving(receiver_identity, always=Desk()) as receiver:
        ended = await fullsend(receiver, "drill", *arguments, FULLSEND_ZFS_COMMAND=fake.program)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.line.startswith(f"fullsend: {line}")
    assert not [each for each in fake.commands if not each.startswith("list")]
