"""The stages of several measurements."""

from __future__ import annotations

from bench import stages
from bench.measure import ZFS_HOST
from bench.stages import Costs, Stage


def costs(seconds: float, alone: float | None, feed: float) -> Costs:
    found = [Stage(ZFS_HOST, "hash", seconds, alone)]
    return Costs(found, found, found, found, feed=feed, ratio=2)


def test_the_median_of_each_stage_counts() -> None:
    found = stages.medians([costs(1, 4, 9), costs(3, 5, 7), costs(2, 6, 8)])
    assert found == costs(2, 5, 8)
    assert stages.medians([costs(1, None, 1)]) == costs(1, None, 1)
