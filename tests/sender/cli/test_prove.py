"""`fullsend prove`, against a scripted receiver."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.genuine_zfs import GenuineZfs
from tests.sender.command import Ended, Fullsend
from tests.sender.monitor.test_prove import FULL, HOME, ONE, Desk, facts_of, snapshot, with_another_hole
from tests.sender.peer import receiving

from fullsend_protocol.shared.errors import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_sender.host.identity import Identity


async def test_prove(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    zfs = GenuineZfs.make(tmp_path / "zfs")
    desk = Desk()
    desk.keep(FULL)
    zfs.dataset(HOME)
    zfs.add(HOME, snapshot(FULL), str(facts_of(FULL).guid))
    zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    full, one = (f"{HOME}@{snapshot(raw)}" for raw in (FULL, ONE))
    async with receiving(receiver_identity, always=desk) as receiver:

        async def prove(*arguments: str) -> Ended:
            return await fullsend(receiver, "prove", *arguments, FULLSEND_ZFS_COMMAND=zfs.program)

        assert await prove() == Ended(0, b"", "")
        said = f"{full}: is the same as `zfs send`\n1 stream proven\n"
        assert await prove("-v") == Ended(0, said.encode(), "")

        desk.keep(ONE)  # which the pool does not have
        ended = await prove("-v", HOME)
        assert ended.out.decode().splitlines()[1:] == [
            f"{one}: cannot be proven: the pool has no such snapshot",
            "1 stream proven, 1 cannot be proven by this host",
        ]
        # Who asks for it must not take silence for a proof.
        assert await prove(one) == Ended(0, f"{one}: cannot be proven: the pool has no such snapshot\n".encode(), "")

        zfs.add(HOME, snapshot(ONE), str(facts_of(ONE).guid))
        zfs.sends(with_another_hole(ONE), "-i", full, one)
        ended = await prove()
        assert (ended.code, ended.line) == (1, "fullsend: not the same, or not compared: 1 of 2 streams")
        assert ended.out.decode().startswith(f"{one}: is not proven: its bytes are equal but for FREE records")
        ended = await prove("--json")
        rows: list[dict[str, Any]] = [json.loads(line) for line in ended.out.splitlines()]
        assert (ended.code, [row["result"] for row in rows]) == (1, ["same", "differs"])

        assert (await prove("tank/typo")).code == 2
        desk.refuse["merged?"] = ErrorCode.PROTOCOL
        ended = await prove()
        assert (ended.code, ended.out) == (1, b"")
        assert ended.line == (
            "fullsend: nas is older and cannot compare what it stores with `zfs send`: update fullsendd there"
        )


async def test_nothing_is_merged(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    zfs = GenuineZfs.make(tmp_path / "zfs")
    async with receiving(receiver_identity, always=Desk()) as receiver:
        ended = await fullsend(receiver, "prove", "-v", FULLSEND_ZFS_COMMAND=zfs.program)
    assert ended == Ended(0, b"nothing is left to prove\n", "")
    assert zfs.commands == []
