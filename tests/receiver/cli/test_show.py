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


def test_a_dataset_is_no_stream_and_its_last_one_is_named(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    """It was said that nothing is stored."""
    receiver, _full, _incr = filled
    snapshot = receiver.listed()[-1]["snapshot"]
    newest = f"alpha/tank/plain@{snapshot}"
    says = f"alpha/tank/plain is a dataset: name a stream of it, such as {newest}, which came last (`fullsendd list "
    for command in ("show", "cat", "pin", "unpin", "ls"):
        fails(receiver.fullsendd(command, "alpha/tank/plain"), 2, says)
    assert receiver.fullsendd("show", newest, "--commands").returncode == 0
