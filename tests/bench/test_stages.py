"""Stages by themselves, and beside another core that is busy."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from bench import stages
from bench.measure import ZFS_HOST
from bench.stages import Costs, Stage

if TYPE_CHECKING:
    from pathlib import Path


def costs(seconds: float, alone: float | None, feed: float) -> Costs:
    found = [Stage(ZFS_HOST, "hash", seconds, alone)]
    return Costs(found, found, found, found, feed=feed, ratio=2)


def test_the_median_of_each_stage_counts() -> None:
    found = stages._medians([costs(1, 4, 9), costs(3, 5, 7), costs(2, 6, 8)])
    assert found == costs(2, 5, 8)
    assert stages._medians([costs(1, None, 1)]) == costs(1, None, 1)


def children() -> set[str]:
    found = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                name, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        if rest.split()[1] == str(os.getpid()):
            found.add(name.partition("(")[2])
    return found


def test_another_process_compresses_meanwhile_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % each).digest() for each in range(100)))
    with stages.another_core_busy(path):
        assert "bash" in children()
    assert "bash" not in children()
