"""Stages by themselves, and beside another core that is busy."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from bench import stages
from bench.measure import ZFS_HOST, wait_for
from bench.stages import Costs, Stage


def costs(seconds: float, alone: float | None, feed: float) -> Costs:
    found = [Stage(ZFS_HOST, "hash", seconds, alone)]
    return Costs(found, found, found, found, feed=feed, ratio=2)


def test_the_median_of_each_stage_counts() -> None:
    found = stages._medians([costs(1, 4, 9), costs(3, 5, 7), costs(2, 6, 8)])
    assert found == costs(2, 5, 8)
    assert stages._medians([costs(1, None, 1)]) == costs(1, None, 1)


def compressing(path: Path) -> list[str]:
    """The processes that compress this file."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"zstd" and os.fsencode(path) in words:
                found.append(place.name)
    return found


def test_another_process_compresses_again_and_again_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % each).digest() for each in range(100_000)))
    seen: set[str] = set()
    with stages.another_core_busy(path):

        def two() -> bool:
            seen.update(compressing(path))
            return len(seen) > 1

        wait_for(two, "two processes")
    assert not compressing(path)
