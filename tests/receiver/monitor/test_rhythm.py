"""What is learnt of regular senders, with jitter: no false alarm, and one within a bound where they stop."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullsend_receiver.monitor.history import RECEPTIONS_MAX, local_day
from fullsend_receiver.monitor.overview import Expectation
from fullsend_receiver.monitor.rhythm import _expected, learn, provisional

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
#: A Monday, 01:00.
START: Final = datetime(2026, 11, 2, 1, tzinfo=UTC).timestamp()
#: Of a sender's interval: how much too early or too late it may come, and by how much more a gap may then be.
JITTER: Final = 0.12


def limit(times: Sequence[float]) -> float | None:
    """Return the age from which on a dataset that came at these times is late."""
    every = learn(times[-RECEPTIONS_MAX:], days_of(times))
    return None if every is None else Expectation(every=every, source="learnt").limit


def days_of(times: Sequence[float]) -> list[int]:
    return sorted({day for at in times if (day := local_day(at)) is not None})


def alarms(times: Sequence[float]) -> list[float]:
    """Return the comings before which there was an alarm that the dataset is late."""
    found = []
    for number in range(1, len(times)):
        allowed = limit(times[:number])
        if allowed is not None and times[number] - times[number - 1] > allowed:
            found.append(times[number])
    return found


@st.composite
def regular(draw: st.DrawFn, period: float, count: int, weekdays: int = 7, hours: int = 24) -> list[float]:
    """Draw the times of a sender that comes each `period` seconds on so many first days of a week, in so many first
    hours of a day, each time a little too early or too late.
    """
    random = draw(st.randoms(use_true_random=False))
    most = JITTER * period
    slots = [START + number * period for number in range(count)]
    open_ = [at for at in slots if (at - START) % (7 * DAY) < weekdays * DAY and (at - START) % DAY < hours * HOUR]
    return [at + random.uniform(-most, most) for at in open_]


REGULAR: Final = [
    pytest.param(regular(HOUR, 24 * 17), HOUR, id="hourly"),
    pytest.param(regular(6 * HOUR, 4 * 40), 6 * HOUR, id="every 6 hours"),
    pytest.param(regular(DAY, 60), DAY, id="nightly"),
    pytest.param(regular(7 * DAY, 30), 7 * DAY, id="weekly"),
    pytest.param(regular(30 * DAY, 20), 30 * DAY, id="monthly"),
    pytest.param(regular(DAY, 70, weekdays=5), 3 * DAY, id="on weekdays"),
    pytest.param(regular(HOUR, 24 * 30, weekdays=5, hours=10), 3 * DAY, id="in office hours"),
    pytest.param(regular(DAY, 90, weekdays=2), 6 * DAY, id="two nights a week"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sender", "longest"), REGULAR)
@settings(max_examples=20)
@given(data=st.data())
def test_a_regular_sender_raises_no_alarm(
    data: st.DataObject, sender: st.SearchStrategy[list[float]], longest: float
) -> None:
    times = data.draw(sender)
    assert alarms(times) == []
    assert (limit(times) or 0.0) <= 2 * longest + HOUR


@pytest.mark.parametrize(("sender", "longest"), REGULAR)
@settings(max_examples=40)
@given(data=st.data())
def test_a_sender_that_stops_is_late_within_a_bound(
    data: st.DataObject, sender: st.SearchStrategy[list[float]], longest: float
) -> None:
    """The bound: its longest gap, and half of it, but an hour at least, and a week at most."""
    times = data.draw(sender)
    found = limit(times)
    assert found is not None
    gap = max(after - before for before, after in pairwise(times))
    assert gap <= longest * (1 + 2 * JITTER)
    assert found <= gap + min(max(gap / 2, HOUR), 7 * DAY)


def test_after_a_monday_no_weekend_is_waited_for() -> None:
    times = [START + day * DAY for day in range(36) if day % 7 < 5]
    assert learn(times, days_of(times)) == DAY
    until_friday = times[:-1]
    assert learn(until_friday, days_of(until_friday)) == 3 * DAY


def test_streams_of_one_night_are_one_coming() -> None:
    times = [START + day * DAY + stream * 20 * 60 for day in range(40) for stream in range(20)]
    every = learn(times[-RECEPTIONS_MAX:], days_of(times))
    assert every == DAY - 19 * 20 * 60


def test_an_outage_is_not_learnt() -> None:
    times = [START + day * DAY for day in range(60) if day not in range(30, 35)]
    assert learn(times, days_of(times)) == DAY


@pytest.mark.parametrize("outage", [1, 5, 13, 20, 40])
@pytest.mark.parametrize("period", [HOUR, DAY])
def test_one_that_stops_again_after_an_outage_is_missed_soon(period: float, outage: int) -> None:
    before = [START + number * period for number in range(int(60 * DAY / period))]
    back = before[-1] + outage * DAY
    for days in range(1, 8):
        times = [*before, *(back + number * period for number in range(int(days * DAY / period)))]
        allowed = limit(times)
        assert allowed is not None
        assert allowed <= 3 * DAY


@pytest.mark.parametrize(("streams", "latest"), [(1, 36 * HOUR), (3, 3 * DAY), (20, 36 * HOUR)])
@pytest.mark.parametrize("trial", [4, 15, 45, 80])
def test_a_trial_long_before_the_nights_hides_no_night_that_is_missing(trial: int, streams: int, latest: float) -> None:
    """As soon as the nights alone are enough to learn from, what was before them does not count. Of few streams each
    night the calendar tells, in whole days.
    """
    for nights in range(16, 60):
        days = [0, *range(trial, trial + nights)]
        times = [START + day * DAY + number * 1200 for day in days for number in range(streams)]
        assert (limit(times) or 0.0) <= latest, nights


def test_several_trials_before_the_nights_hide_none_either() -> None:
    days = [0, 1, 9, *range(40, 60)]
    assert limit([START + day * DAY for day in days]) == 36 * HOUR


def test_an_hourly_push_after_a_trial_is_missed_within_days() -> None:
    times = [START, *(START + 45 * DAY + number * HOUR for number in range(24 * 16))]
    assert (limit(times) or 0.0) <= 3 * HOUR


@pytest.mark.parametrize(("weeks", "weekdays"), [(1, (5, 6)), (2, (5, 6)), (1, (6,)), (1, (0, 2, 4, 6))])
def test_pauses_of_a_rhythm_are_learnt_as_before(weeks: int, weekdays: tuple[int, ...]) -> None:
    """They come again before what is between them is enough to learn from. `weeks`: in one of so many there is none."""
    out = [day for day in range(91) if day % 7 in weekdays and day // 7 % weeks == 0]
    times = [START + day * DAY for day in range(91) if day not in out]
    for number in range(1, len(times)):
        known = times[:number]
        if (every := learn(known, days_of(known))) is not None:
            assert every == _expected_of_all(known), number


def _expected_of_all(times: Sequence[float]) -> float:
    """What is learnt of one coming a day, if nothing is left out."""
    dates = [day * DAY for day in days_of(times)]
    most = max(_expected(dates[:count]) for count in range(max(2, len(dates) - 6), len(dates) + 1)) + DAY
    return min(most, _expected(times))


@pytest.mark.parametrize("count", [0, 1, 4, 14])
def test_too_little_is_not_enough(count: int) -> None:
    times = [START + day * DAY for day in range(count)]
    assert learn(times, days_of(times)) is None


def test_two_weekends_are_enough() -> None:
    times = [START + day * DAY for day in range(16)]
    assert learn(times, days_of(times)) == DAY


def test_times_that_are_all_the_same_are_one_coming() -> None:
    assert learn([START] * 20, days_of([START])) is None


def test_one_that_stops_in_its_first_days_is_missed() -> None:
    once = [START]
    assert provisional(once, days_of(once)) == 35 * DAY
    few = [START, START + HOUR, START + 2 * HOUR, START + 3 * HOUR, START + DAY]  # a person has tried it
    assert provisional(few, days_of(few)) == 35 * DAY
    nightly = [START + day * DAY for day in range(10)]
    assert learn(nightly, days_of(nightly)) is None
    assert provisional(nightly, days_of(nightly)) == 7 * DAY
    weekly = [START + week * 7 * DAY for week in range(5)][:4]
    assert provisional(weekly, days_of(weekly)) == 35 * DAY
    assert provisional([], []) is None
