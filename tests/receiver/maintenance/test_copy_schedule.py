"""When the daemon copies into another store."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any, Final

import pytest

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.maintenance import copy_schedule
from fullsend_receiver.maintenance.copy_records import CopyRecord

HOUR: Final = 3600.0
NOON: Final = parse_time("2026-11-27T12:00:00Z") or 0.0


def is_due(hours: float, record: dict[str, Any], **settings: Any) -> bool:
    """Whether it is time so many hours after noon. `record`: times are hours after noon."""
    said: dict[str, Any] = {
        name: format_time(NOON + value * HOUR) if name in {"since", "began", "ended"} and value is not None else value
        for name, value in record.items()
    }
    return copy_schedule.is_due(
        CopyRecord(**said),
        CopySettings(to=Path("/o.toml"), **settings),
        NOON + hours * HOUR,
        local=lambda at: datetime.fromtimestamp(at, UTC).replace(tzinfo=None),
    )


GOOD: Final = {"since": -100, "began": 0, "ended": 1, "ok": True}
PART: Final = GOOD | {"ok": False, "left": 1, "tries": 1}
FAILED: Final = GOOD | {"ok": False, "why": "the store is away", "tries": 9}
RUNS: Final = GOOD | {"ended": None}


@pytest.mark.parametrize(
    ("hours", "record", "settings", "due"),
    [
        (1000, GOOD, {"at": "never"}, False),
        (1000, FAILED, {"at": "never"}, False),
        # Once a day, the first time not before its time.
        (0, {}, {}, False),
        (16, {"since": 0}, {}, False),
        (17, {"since": 0}, {}, True),
        (16.9, GOOD, {}, False),
        (17, GOOD, {}, True),
        (17, GOOD | {"began": 17, "ended": 17.1}, {}, False),
        (5, GOOD, {"at": time(16, 30)}, True),
        # At intervals, at once the first time.
        (0, {}, {"every": 6 * HOUR}, True),
        (5.9, GOOD, {"every": 6 * HOUR}, False),
        (6, GOOD, {"every": 6 * HOUR}, True),
        (-1, GOOD, {"every": 6 * HOUR}, True),  # the clock was set back
        # What failed, or was killed, is tried again within the hour, however often.
        (0.9, FAILED, {}, False),
        (1, FAILED, {}, True),
        (1, RUNS, {}, True),
        # What came to its end, and left something behind, ever later.
        (1, PART, {}, True),
        (1, PART | {"tries": 2}, {}, False),
        (2, PART | {"tries": 2}, {}, True),
        (23, PART | {"tries": 99}, {"every": 999 * HOUR}, False),
        (24, PART | {"tries": 99}, {"every": 999 * HOUR}, True),
        (17, PART | {"tries": 99}, {}, True),
    ],
)
def test_time_of_the_next_copy(
    hours: float,
    record: dict[str, Any],
    settings: dict[str, Any],
    due: bool,
) -> None:
    assert is_due(hours, record, **settings) is due
