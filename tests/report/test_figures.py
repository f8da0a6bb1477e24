from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_report import figures

HOUR = 3600.0
BERLIN = timezone(timedelta(hours=1))


@given(st.text(st.characters()))
def test_text_has_no_markup_and_no_control_characters(what: str) -> None:
    shown = figures.text(what)
    assert not set(shown) & set("<>\"'")
    assert shown.isprintable()
    shown.encode()


def test_text_keeps_what_is_harmless() -> None:
    assert figures.text("tank/Grüße 家") == "tank/Grüße 家"
    assert figures.text("a<b>&\u202e\x07") == "a&lt;b&gt;&amp;\\u202e\\x07"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((-5, "0 s"), (40, "40 s"), (90, "2 min"), (119 * 60, "119 min"), (7 * HOUR, "7 h"), (47 * HOUR, "47 h")),
        *((48 * HOUR, "2 days"), (21 * 24 * HOUR, "21 days")),
    ],
)
def test_span(seconds: float, shown: str) -> None:
    assert figures.span(seconds) == shown


def test_age() -> None:
    assert figures.age(None, 0) == "never"
    assert figures.age(1000 + HOUR, 1000) == "in the future"
    assert figures.age(1030, 1000) == "0 s ago"
    assert figures.age(1000, 1000 + 3 * HOUR) == "3 h ago"


def test_when_something_came() -> None:
    assert figures.seen(None, None) == "never"
    assert figures.seen(1e12, None) == "unknown"
    assert figures.seen(0, 3 * HOUR) == "3 h ago"


def test_times_are_those_of_the_zone() -> None:
    assert figures.moment(None, UTC) == "never"
    assert figures.moment(0, UTC) == "1970-01-01 00:00"
    assert figures.moment(0, BERLIN) == "1970-01-01 01:00"
    assert figures.zone_name(0, UTC) == "UTC"
    assert figures.zone_name(0, BERLIN) == "UTC+01:00"
    assert figures.zone_name(0, timezone(-timedelta(hours=9, minutes=30))) == "UTC-09:30"
    assert figures.day_of(86399, BERLIN) == (figures.day_of(0, UTC) or 0) + 1


def test_a_time_beyond_all_calendars_is_shown_as_a_number() -> None:
    assert figures.moment(1e18, UTC) == "@1000000000000000000"
    assert figures.day_of(1e18, UTC) is None
    assert figures.zone_name(1e18, UTC) == "UTC"


def test_sizes_and_ratios() -> None:
    assert figures.size(1 << 30) == "1\u00a0GiB"
    assert figures.size(1500) == "1.5\u00a0KiB"
    assert figures.ratio(300, 200) == "1.50\u00a0:\u00a01"
    assert figures.ratio(0, 0) == "unknown"


def test_days_have_names() -> None:
    assert figures.day_name(739948) == "Sat 28 Nov"
