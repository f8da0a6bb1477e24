from __future__ import annotations

import pytest
from tests.report_facts import alarm, report

from fullsend_report.facts import AlarmLevel


@pytest.mark.parametrize(
    ("levels", "worst"),
    [((), None), (("warning",), "warning"), (("warning", "critical"), "critical"), (("critical",), "critical")],
)
def test_the_level_is_that_of_the_worst_alarm(levels: tuple[AlarmLevel, ...], worst: AlarmLevel | None) -> None:
    assert report(alarms=tuple(alarm(level, "late", "x") for level in levels)).level == worst
