from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any, Final

import pytest
from tests.report_facts import at

from fullsend_report.drills import DrillFacts, HostDrills

GIB: Final = 1 << 30
DRILL: Final = DrillFacts(
    at=at(6), snapshot="s1", ok=True, text="equal", seconds=100.0, raw_bytes=20 * GIB, succeeded=at(6)
)


def drills(**found: DrillFacts) -> HostDrills:
    return HostDrills(found, UTC)


def test_the_speed_is_that_of_its_own_drill_else_of_its_hosts_newest() -> None:
    both = drills(a=replace(DRILL, at=at(9), seconds=400.0), b=DRILL)
    speeds = [both.speed(name) for name in "abc"]
    assert [each and (each.rate, each.source) for each in speeds] == [
        (20 * GIB / 400, "its restore drill, 2026-11-19 02:00"),
        (20 * GIB / 100, "its restore drill, 2026-11-22 02:00"),
        (20 * GIB / 100, "the restore drill of b, 2026-11-22 02:00"),
    ]


@pytest.mark.parametrize("change", [{"ok": False}, {"seconds": 0.0}, {"raw_bytes": 0}])
def test_what_measures_no_speed(change: dict[str, Any]) -> None:
    assert drills(a=replace(DRILL, **change)).speed("a") is None
    other = drills(a=replace(DRILL, **change), b=DRILL).speed("a")
    assert other is not None
    assert other.source.startswith("the restore drill of b")


def test_without_a_drill_there_is_no_speed() -> None:
    assert drills().speed("a") is None


def test_drills_are_told() -> None:
    assert drills(a=DRILL).line("a") == "2026-11-22 02:00: @s1, equal, in 2 min"
    failed = replace(DRILL, ok=False, text="2 files differ")
    assert drills(a=failed).line("a") == (
        "FAILED 2026-11-22 02:00: @s1, 2 files differ; the last good one: 2026-11-22 02:00"
    )
    assert drills(a=replace(failed, succeeded=None)).line("a").endswith("; none has ever succeeded")
    assert drills(a=DRILL).line("b") == ""
