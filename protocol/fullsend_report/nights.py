"""The calendar of nights: what each day was, and the drawing of it.

A day is *whole* (a stream came), *unchanged* (its host reported that there is nothing new), *damaged* (a stream of that
day is damaged, or cannot be restored), *missing* (due, and nothing came), *late* (overdue, and not due anew on that
day; or overdue today, which is not over), *idle* (not due), or *unknown*: nothing is known of it, because it lies
before the record, or because it is not known how often the dataset should come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, tzinfo
from itertools import pairwise
from statistics import median
from typing import Final, Literal

from fullsend_protocol.shared.units import plural
from fullsend_report.facts import DatasetFacts
from fullsend_report.figures import MONTHS, day_name, day_of, number

DayState = Literal["whole", "unchanged", "damaged", "missing", "late", "idle", "unknown"]

#: The weeks of a calendar, this one included.
WEEKS: Final = 13
_WEEK: Final = 7
_DAY_SECONDS: Final = 86400
#: Weeks without which the weekdays tell no rhythm.
_WEEKS_TELL: Final = 3
#: Of an interval of 26 h each day counts, and one of 6 d 20 h is a week.
_NEARLY: Final = 0.25
#: Days of the strip beside a dataset's name.
STRIP_DAYS: Final = 28

#: What the legend, and the sentence below a calendar, say of each state; in this order.
STATES: Final[Mapping[DayState, str]] = {
    "whole": "received",
    "unchanged": "unchanged",
    "damaged": "damaged",
    "missing": "missing",
    "late": "late",
    "idle": "not expected",
    "unknown": "unknown",
}
#: What a person must see, each of them named below the calendar.
_BAD: Final[tuple[DayState, ...]] = ("damaged", "missing", "late")
#: Days, or runs of days, named below a calendar, of each state.
_NAMED: Final = 6

_PITCH: Final = 14
_LEFT: Final = 26
_TOP: Final = 16
_CELL: Final = 10


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days of a dataset. `first`: as datetime.date.toordinal; `states`: of that day, and of each day after it, up
    to today.
    """

    first: int
    states: tuple[DayState, ...]

    @property
    def today(self) -> int:
        """The last day."""
        return self.first + len(self.states) - 1

    def of(self, state: DayState) -> list[int]:
        """Return the days of this state."""
        return [self.first + at for at, each in enumerate(self.states) if each == state]


@dataclass(frozen=True, slots=True)
class _Rhythm:
    """When a dataset is due. `known`: whether anybody knows; `period`: days from one arrival to the next, None: it is
    never due; `quiet`: the weekdays on which it does not come; `punctual`: days without an arrival between two that
    were in time; `late`: whether it is overdue now.
    """

    known: bool
    period: int | None
    quiet: frozenset[int]
    punctual: frozenset[int]
    late: bool

    def empty(self, day: int, before: int, *, is_last: bool) -> DayState:
        """Return what a day was on which nothing came. `before`: the last day on which something came; `is_last`:
        whether nothing has come since.
        """
        if not self.known:
            return "unknown"
        if self.period is None:
            return "idle"
        overdue = day - before - self.period
        if overdue < 0 or day in self.punctual or (is_last and not self.late):
            return "idle"
        if date.fromordinal(day).weekday() in self.quiet:
            return "idle"
        return "late" if overdue % self.period else "missing"


def calendar_of(dataset: DatasetFacts, now: float, zone: tzinfo | None) -> Calendar:
    """Return what each day of the last weeks was for a dataset. `now`: seconds since the epoch."""
    today = day_of(now, zone) or 1
    first = max(1, today - date.fromordinal(today).weekday() - (WEEKS - 1) * _WEEK)
    came = {each.day: each for each in dataset.days if each.received or each.unchanged}
    bad = _damaged_days(dataset, zone)
    rhythm = _rhythm(dataset, sorted(came), zone)
    # Of the day on which the record begins, only a part is known.
    since = None if dataset.recorded_since is None else day_of(dataset.recorded_since, zone)
    known = today + 1 if since is None else since + 1
    last = max(came, default=0)
    before = max((day for day in came if day < first), default=None)
    states: list[DayState] = []
    for day in range(first, today + 1):
        if day in bad:
            state: DayState = "damaged"
        elif day == today and dataset.late:
            state = "late"
        elif day in came:
            state = "whole" if came[day].received else "unchanged"
        elif day == today:  # it may still come
            state = "idle" if rhythm.known else "unknown"
        elif before is None or day < min(known, last):
            state = "unknown"  # since its last arrival all is known: the newest stream, and the last report, stay
        else:
            state = rhythm.empty(day, before, is_last=day > last)
        states.append(state)
        if day in came:
            before = day
    return Calendar(first, tuple(states))


def _rhythm(dataset: DatasetFacts, came: Sequence[int], zone: tzinfo | None) -> _Rhythm:
    """Return when a dataset is due. `came`: the days on which something came, in order.

    What was learnt tells how long the next arrival may take: on a Friday three days, if nothing comes at weekends. So
    the nights before are judged by the usual gap, and by the weekdays on which something usually comes.
    """
    known = dataset.source != "unknown"
    if not known or dataset.every is None:
        return _Rhythm(known, None, frozenset(), frozenset(), dataset.late)
    period = max(1, math.floor(dataset.every / _DAY_SECONDS + _NEARLY))
    quiet = frozenset[int]()
    if dataset.source == "learnt":
        lately = [day for day in came if day > came[-1] - WEEKS * _WEEK]
        gaps = [after - before for before, after in pairwise(lately)]
        period = min([period, *([math.ceil(median(gaps))] if gaps else [])])
        if period == 1:
            quiet = _quiet_weekdays(lately)
    return _Rhythm(known, period, quiet, _punctual_days(dataset, zone), dataset.late)


def _quiet_weekdays(came: Sequence[int]) -> frozenset[int]:
    """Return the weekdays on which less than half of the weeks had something. `came`: days, in order."""
    if not came or came[-1] - came[0] < _WEEKS_TELL * _WEEK:
        return frozenset()
    there = Counter(date.fromordinal(day).weekday() for day in came)
    all_ = Counter(date.fromordinal(day).weekday() for day in range(came[0], came[-1] + 1))
    return frozenset(weekday for weekday in range(_WEEK) if there[weekday] < all_[weekday] / 2)


def _damaged_days(dataset: DatasetFacts, zone: tzinfo | None) -> frozenset[int]:
    times = (each.received for each in dataset.streams if each.damaged or not each.restorable)
    days = (day_of(time, zone) for time in times if time is not None)
    return frozenset(day for day in days if day is not None)


def _punctual_days(dataset: DatasetFacts, zone: tzinfo | None) -> frozenset[int]:
    """Return the days between two arrivals that were in time: one just before midnight, the next just after another."""
    if dataset.every is None:
        return frozenset()
    days: set[int] = set()
    for one, other in pairwise(dataset.times):
        if other - one <= (dataset.limit or dataset.every):
            days.update(range((day_of(one, zone) or 0) + 1, day_of(other, zone) or 0))
    return frozenset(days)


# --- drawing


def draw(calendar: Calendar) -> str:
    """Return the calendar as SVG: a column a week, Monday first."""
    width = _LEFT + WEEKS * _PITCH
    height = _TOP + _WEEK * _PITCH
    places = {calendar.first + at: _place(at) for at in range(len(calendar.states))}
    labels = [f'<text x="{_LEFT + week * _PITCH}" y="10">{month}</text>' for week, month in _months(calendar.first)]
    labels += [
        f'<text x="0" y="{_TOP + row * _PITCH + 9}">{name}</text>' for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"))
    ]
    x, y = places[calendar.today]
    frame = f'<path class="today" d="M{x - 2} {y - 2}h{_CELL + 4}v{_CELL + 4}h-{_CELL + 4}z"/>'
    return (
        f'<svg class="cal" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{summary(calendar)}">{"".join(labels)}{frame}{_paths(calendar, places, _CELL)}</svg>'
    )


def draw_strip(calendar: Calendar) -> str:
    """Return the last days as one row, for the line of a dataset; screen readers have the calendar."""
    days = range(max(calendar.first, calendar.today - STRIP_DAYS + 1), calendar.today + 1)
    places = {day: (1.0 + at * 8, 1.0) for at, day in enumerate(days)}
    width = STRIP_DAYS * 8
    return (
        f'<svg class="strip" viewBox="0 0 {width} 8" width="{width}" height="8" aria-hidden="true">'
        f"{_paths(calendar, places, 6)}</svg>"
    )


def summary(calendar: Calendar) -> str:
    """Return the calendar in one line, for a screen reader."""
    counts = Counter(calendar.states)
    said = [f"{counts[state]} {name}" for state, name in STATES.items() if counts[state]]
    return f"{plural(len(calendar.states), 'day')} up to {day_name(calendar.today)}: {', '.join(said)}"


def bad_days(calendar: Calendar) -> str:
    """Return the days that a person must see, by name; empty: there is none."""
    return "; ".join(f"{STATES[state]}: {_names(days)}" for state in _BAD if (days := calendar.of(state)))


def glyph(state: DayState, x: float, y: float, cell: float) -> str:
    """Return the path of a state's shape in a square of this size. Each state has a shape of its own."""
    half, inner = cell / 2, cell - 2
    n = number
    match state:
        case "whole":
            return f"M{n(x)} {n(y)}h{n(cell)}v{n(cell)}h-{n(cell)}z"
        case "unchanged":
            return f"M{n(x + 1)} {n(y + 1)}h{n(inner)}v{n(inner)}h-{n(inner)}z"
        case "damaged":
            d = n(half + 1)
            return f"M{n(x + half)} {n(y - 1)}l{d} {d}l-{d} {d}l-{d}-{d}z"
        case "missing":
            return f"M{n(x + 1)} {n(y + 1)}l{n(inner)} {n(inner)}m0-{n(inner)}l-{n(inner)} {n(inner)}"
        case "late":
            return f"M{n(x + half)} {n(y)}l{n(half)} {n(cell)}h-{n(cell)}z"
        case "idle":
            return f"M{n(x + half)} {n(y + half)}h.01"
        case "unknown":
            return f"M{n(x + 1)} {n(y + half)}h{n(inner)}"


def _paths(calendar: Calendar, places: Mapping[int, tuple[float, float]], cell: float) -> str:
    """Return one path for each state."""
    drawn = []
    for state in STATES:
        shapes = [glyph(state, *places[day], cell) for day in calendar.of(state) if day in places]
        if shapes:
            drawn.append(f'<path class="{state}" d="{"".join(shapes)}"/>')
    return "".join(drawn)


def _place(at: int) -> tuple[int, int]:
    week, row = divmod(at, _WEEK)
    return _LEFT + week * _PITCH + 2, _TOP + row * _PITCH + 1


def _months(first: int) -> Iterable[tuple[int, str]]:
    """Yield the weeks above which the name of a month stands: those in which one begins, and the first one."""
    last = -WEEKS
    for week in range(WEEKS):
        monday = date.fromordinal(first + week * _WEEK)
        if (monday.day <= _WEEK or week == 0) and week - last > 1:
            # The first column's month is named only if the next name leaves room for it.
            if week == 0 and date.fromordinal(first + _WEEK).day <= _WEEK:
                continue
            last = week
            yield week, MONTHS[monday.month - 1]


def _names(days: Sequence[int]) -> str:
    """Return days by name, the newest first; those that follow one another as one: `Mon 2 Nov to Thu 5 Nov`."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    shown = runs[: -_NAMED - 1 : -1]
    named = ", ".join(
        day_name(run[0]) if len(run) == 1 else f"{day_name(run[0])} to {day_name(run[-1])}" for run in shown
    )
    more = sum(map(len, runs[:-_NAMED]))
    return f"{named} and {plural(more, 'day')} before" if more else named
