"""`fullsendd unpin`."""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.receiver.running import Receiver


def test_unpin(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, _incr = filled
    done = receiver.fullsendd("unpin", f"alpha/{full.name}")
    assert done.returncode == 2
    assert "is not pinned" in done.stderr
    receiver.fullsendd("pin", f"alpha/{full.name}")
    assert receiver.fullsendd("unpin", f"alpha/{full.name}").returncode == 0
    assert all(row["pinned"] is None for row in receiver.listed())
