"""`fullsendd show`."""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.receiver.command import fails
from tests.receiver.running import Receiver


def test_show_prints_the_lines_that_restore_without_us(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    lines = receiver.fullsendd("show", f"alpha/{incr.name}", "--commands").stdout.splitlines()
    assert [line for line in lines if line.startswith("zstd")] == [
        f'zstd -dc {file} | zfs receive -u -o canmount=noauto "$TARGET"' for file in (full, incr)
    ]
    assert receiver.fullsendd("show", f"alpha/{incr.name}", "--commands", "--json").returncode == 2
    (receiver.store / full).unlink()
    fails(receiver.fullsendd("show", f"alpha/{incr.name}", "--commands"), 1, f"cannot be restored: {full} is damaged")
