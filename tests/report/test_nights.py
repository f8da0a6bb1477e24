from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.markup import read
from tests.report_facts import DAY, NOW, TODAY, at, dataset, days, home, stopped, stream, vm, weekly, young

from fullsend_report import nights
from fullsend_report.facts import DatasetFacts, RhythmSource
from fullsend_report.nights import DayState


def states(facts: DatasetFacts, ago: Iterable[int]) -> list[DayState]:
    """Return what the days so many days ago were."""
    calendar = nights.calendar_of(facts, NOW, UTC)
    return [calendar.states[TODAY - each - calendar.first] for each in ago]


def nightly(came: Iterable[int], unchanged: Iterable[int] = (), **changed: object) -> DatasetFacts:
    """Return a dataset of which something came on these days, so many days ago."""
    return dataset("tank/a", (), days=days(came, unchanged), **changed)


def weekdays() -> list[int]:
    """Return how many days ago the days were that are not of a weekend."""
    return [ago for ago in range(91) if date.fromordinal(TODAY - ago).weekday() < 5]


def test_thirteen_weeks_from_a_monday_to_today() -> None:
    calendar = nights.calendar_of(home(), NOW, UTC)
    assert date.fromordinal(calendar.first).weekday() == 0
    assert calendar.today == TODAY
    assert 12 * 7 < len(calendar.states) <= 13 * 7


def test_a_night_without_a_stream_or_a_report_is_missing() -> None:
    assert states(nightly([0, 1, 3], [4]), range(5)) == ["whole", "whole", "missing", "whole", "unchanged"]


def test_today_is_not_missing_while_it_lasts() -> None:
    assert states(nightly([1, 2]), [0]) == ["idle"]
    assert states(nightly([1, 2], late=True), [0]) == ["late"]


def test_of_a_weekly_dataset_only_the_day_on_which_it_is_due_is_missing() -> None:
    facts = weekly()
    assert states(facts, range(13)) == ["late"] * 5 + ["missing"] + ["idle"] * 6 + ["whole"]


def test_after_two_weeks_a_weekly_dataset_is_missing_twice() -> None:
    facts = nightly([20], every=7 * DAY, late=True)
    assert [ago for ago, state in zip(range(20), states(facts, range(20)), strict=True) if state == "missing"] == [
        6,
        13,
    ]


@pytest.mark.parametrize("every", [35 * DAY, 7 * DAY, None])
def test_without_a_rhythm_a_day_on_which_nothing_came_is_unknown(every: float | None) -> None:
    """What the surveyor allows until more is known is no rhythm. A receiver that tells no history has no interval."""
    young_ = nightly([1, 5], every=every, source="unknown")
    assert states(young_, range(7)) == ["unknown", "whole", *["unknown"] * 3, "whole", "unknown"]
    assert states(replace(young_, late=True), [0, 2]) == ["late", "unknown"]


def test_a_dataset_that_nobody_waits_for_is_never_due() -> None:
    assert states(nightly([2, 5], every=None), range(7)) == ["idle"] * 2 + ["whole"] + ["idle"] * 2 + [
        "whole",
        "unknown",
    ]


def test_before_the_record_no_day_is_missing() -> None:
    facts = nightly([0, 1, 6, 12], recorded_since=at(4))
    assert states(facts, [2, 3, 4, 5, 7, 13]) == ["missing", "missing", "unknown", "unknown", "unknown", "unknown"]


def test_without_a_record_no_day_is_missing() -> None:
    assert states(nightly([1, 6], recorded_since=None), range(7)) == ["idle", "whole", *["unknown"] * 4, "whole"]


def test_since_its_last_arrival_all_is_known() -> None:
    """The newest stream, and the last report, are never dropped. So nothing has come since."""
    stopped_ = nightly([4, 6], recorded_since=None, late=True)
    assert states(stopped_, range(7)) == ["late", "missing", "missing", "missing", "whole", "unknown", "whole"]


def test_before_the_first_arrival_nothing_was_missing() -> None:
    assert states(nightly([0, 1]), [2, 30]) == ["unknown", "unknown"]


def test_a_day_of_a_damaged_stream_is_damaged() -> None:
    assert states(vm(), [9, 10, 0]) == ["damaged", "whole", "damaged"]


def test_a_dataset_that_stopped_is_missing_ever_since() -> None:
    assert states(stopped(), range(22)) == ["late", *["missing"] * 20, "whole"]


def test_arrivals_just_before_and_just_after_midnight_are_in_time() -> None:
    came = nightly([0, 1, 3, 4], limit=26 * 3600)
    assert states(came, [2]) == ["missing"]
    assert states(replace(came, times=(at(3, 23.9), at(1, 0.1))), [2]) == ["idle"]
    assert states(replace(came, times=(at(3, 2), at(1, 2))), [2]) == ["missing"]


@pytest.mark.parametrize(("hours", "missing"), [(1, 6), (23.9, 6), (26, 6), (36, 6), (48, 3), (165, 0), (7 * 24, 0)])
def test_which_of_six_days_without_arrivals_are_missing(hours: float, missing: int) -> None:
    calendar = nights.calendar_of(nightly([0, 7, 8], every=hours * 3600), NOW, UTC)
    assert len(calendar.of("missing")) == missing


def test_a_time_beyond_all_calendars_breaks_nothing() -> None:
    wrong = stream(1, 1, received=1e18, damaged=True)
    assert states(dataset("tank/a", (wrong,), days=days([1])), [1]) == ["whole"]


def test_weekends_without_arrivals_are_learnt_and_not_missing() -> None:
    came = [ago for ago in weekdays() if ago != 17]  # a Wednesday
    learnt = nightly(came, every=3 * DAY, source="learnt")
    calendar = nights.calendar_of(learnt, NOW, UTC)
    assert calendar.of("missing") == [TODAY - 17]
    assert len(calendar.of("idle")) == 25


def test_weekends_are_missing_where_the_configuration_expects_them() -> None:
    calendar = nights.calendar_of(nightly(weekdays(), every=DAY), NOW, UTC)
    assert len(calendar.of("missing")) == 24


def test_two_weeks_tell_no_weekdays() -> None:
    short = nightly([ago for ago in weekdays() if ago < 14], every=DAY, source="learnt")
    assert nights.calendar_of(short, NOW, UTC).of("missing")


def test_what_is_not_late_is_not_missing_since_its_last_arrival() -> None:
    assert states(nightly([3, 4, 5]), range(4)) == ["idle", "idle", "idle", "whole"]
    assert states(nightly([3, 4, 5], late=True), range(4)) == ["late", "missing", "missing", "whole"]


@given(
    came=st.sets(st.integers(0, 120)),
    unchanged=st.sets(st.integers(0, 120)),
    recorded=st.none() | st.integers(0, 120),
    rhythm=st.fixed_dictionaries(
        {
            "every": st.none() | st.floats(60, 60 * DAY),
            "late": st.booleans(),
            "source": st.sampled_from(get_args(RhythmSource)),
        }
    ),
)
def test_what_came_is_never_missing_and_what_is_not_known_neither(
    came: set[int], unchanged: set[int], recorded: int | None, rhythm: dict[str, Any]
) -> None:
    facts = nightly(came, unchanged, recorded_since=None if recorded is None else at(recorded), **rhythm)
    calendar = nights.calendar_of(facts, NOW, UTC)
    seen = {TODAY - ago for ago in came | unchanged}
    missing = set(calendar.of("missing"))
    assert not missing & seen
    assert not missing or (rhythm["every"] is not None and rhythm["source"] != "unknown")
    assert not missing or (recorded is not None or min(missing) > max(seen))
    assert all(day > TODAY - (recorded or 0) or day > max(seen) for day in missing)
    assert set(calendar.of("whole")) | set(calendar.of("unchanged")) <= seen
    assert all(
        state in {"whole", "unchanged", "damaged", "late"}
        for day, state in enumerate(calendar.states, calendar.first)
        if day in seen
    )


# --- drawing


@pytest.mark.parametrize("facts", [home(), vm(), stopped(), weekly(), young()])
def test_the_drawing_has_a_shape_for_each_day(facts: DatasetFacts) -> None:
    calendar = nights.calendar_of(facts, NOW, UTC)
    drawing = read(nights.draw(calendar)).children[0]
    paths = {path.attributes["class"]: path.attributes["d"] for path in drawing.every("path")}
    for state in nights.STATES:
        moves = paths.get(state, "").count("M")
        assert moves == len(calendar.of(state)), state
    assert drawing.attributes["aria-label"] == nights.summary(calendar)


def test_each_state_has_a_shape_of_its_own() -> None:
    shapes = {nights.glyph(state, 0, 0, 10) for state in nights.STATES}
    assert len(shapes) == len(nights.STATES)


def test_the_strip_has_the_last_four_weeks() -> None:
    drawing = read(nights.draw_strip(nights.calendar_of(stopped(), NOW, UTC))).children[0]
    paths = {path.attributes["class"]: path.attributes["d"].count("M") for path in drawing.every("path")}
    assert paths == {"whole": 7, "missing": 20, "late": 1}
    assert drawing.attributes["aria-hidden"] == "true"


def test_the_summary_counts_each_state() -> None:
    calendar = nights.calendar_of(stopped(), NOW, UTC)
    assert nights.summary(calendar) == "90 days up to Sat 28 Nov: 69 received, 20 missing, 1 late"


def test_bad_days_are_named() -> None:
    assert nights.bad_days(nights.calendar_of(stopped(), NOW, UTC)) == (
        "missing: Sun 8 Nov to Fri 27 Nov; late: Sat 28 Nov"
    )
    assert not nights.bad_days(nights.calendar_of(home(), NOW, UTC))


def test_many_bad_days_are_counted() -> None:
    every_other = nightly(range(0, 90, 2))
    said = nights.bad_days(nights.calendar_of(every_other, NOW, UTC))
    assert said.startswith("missing: Fri 27 Nov, Wed 25 Nov, ")
    assert said.endswith(" and 38 days before")
