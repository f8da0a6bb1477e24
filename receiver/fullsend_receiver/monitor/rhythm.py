"""Learns how often a dataset comes. Pure: times in, seconds out.

A gap is the time between one coming and the next. The usual gap is one that covers a good part of the time: of a
nightly push the 24 hours, however many streams each night has; where no push is made at the weekend also those 72
hours. An outage is a gap too, and covers little of a long time: it is not learnt.

After a push on a Friday the gap of a weekend may follow, and after one on a Monday it may not. So what is expected now
depends on the last coming: it is the usual gap of those that began at the same time of the week.

What came since the last long gap may have a rhythm of its own: a person tries a push, and weeks later the nights begin.
It counts alone as soon as it is enough to learn from. Gaps that belong to a rhythm, such as weekends, come again before
that.

The newest comings of a dataset that comes each hour span a few days. Its weekends are learnt from its calendar. An
outage is much of the time of a few comings, and little of that of the calendar, which has the last word.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

#: Comings, and seconds from the first to the last, without which nothing is known: two weekends are among them.
LEAST: Final = 5
LEAST_SPAN: Final = 15 * 86400.0
#: What is allowed until more is known, in seconds: to one that came on few days, and to one that came on some; and how
#: many times its longest gap.
_ONCE_LEAST: Final = 35 * 86400.0
_FEW_LEAST: Final = 7 * 86400.0
_FEW_TIMES: Final = 3
#: Days of the calendar that are looked at: a summer without weekends is forgotten by the winter.
_DAYS: Final = 90
_DAY: Final = 86400.0
_WEEK: Final = 7 * _DAY
#: Gaps that cover less of the time, together, are outages.
_OUTAGES: Final = 0.15
#: A gap that is larger by less than this is no outage: nothing was left out, and something came late.
_JITTER: Final = 1.9
#: The same, of gaps that are usual at any time of the week.
_ALIKE: Final = 1.5
#: Seconds by which two comings at the same time of the week may differ.
_SAME_TIME: Final = 6 * 3600.0
#: So many gaps that began at the same time of the week tell what follows; of so many the longest may be an outage.
_MATCHES: Final = 2
_MATCHES_MANY: Final = 4


def learn(times: Iterable[float], days: Sequence[int]) -> float | None:
    """Return after how many seconds, from its last coming on, a dataset should come again; None: too little is known.

    `times`: of the newest comings, seconds since the epoch, in any order and none in the future; `days`: those on which
    something came, as in `Night.day`, in order.
    """
    ordered = sorted(set(times))
    days = days[bisect_left(days, days[-1] - _DAYS) :] if days else days
    spans = ordered[-1] - ordered[0] if ordered else 0.0, (days[-1] - days[0]) * _DAY if days else 0.0
    if len(ordered) < LEAST or max(spans) < LEAST_SPAN:
        return None
    dates = [day * _DAY for day in days]
    if len(dates) < LEAST or spans[1] < LEAST_SPAN:
        dates = []
    every, lately = _learn(ordered, dates), (_lately(ordered), _lately(dates))
    return every if lately == (ordered, dates) else min(every, _learn(*lately))


def _learn(ordered: Sequence[float], dates: Sequence[float]) -> float:
    """Return what `learn` returns. `ordered`: of enough comings, or of those that enough `dates` explain; `dates`: of
    days, in seconds, none: too few.
    """
    if not dates:
        return _expected(ordered)
    coarse = _expected(dates)
    # Of a whole week: what comes at about midnight may be noted on the day before. The day is from the first moment of
    # one to the last of another.
    most = max(_expected(dates[:count]) for count in range(max(2, len(dates) - 6), len(dates) + 1)) + _DAY
    if ordered[-1] - ordered[0] >= LEAST_SPAN:
        return min(most, _expected(ordered))
    # It comes several times a day. Which days it leaves out, the calendar knows.
    fine = _usual([after - before for before, after in pairwise(ordered)])
    return min(most, max(fine, coarse) if coarse > _DAY else fine)


def _lately(times: Sequence[float]) -> Sequence[float]:
    """Return the times since the last long gap; all of them if that is not enough to learn from."""
    gaps = [after - before for before, after in pairwise(times)]
    if not gaps:
        return times
    most = _JITTER * median(gaps)
    lately = times[max((number for number, gap in enumerate(gaps, 1) if gap > most), default=0) :]
    return lately if len(lately) >= LEAST and lately[-1] - lately[0] >= LEAST_SPAN else times


def provisional(times: Iterable[float], days: Sequence[int]) -> float | None:
    """Return after how many seconds a dataset of which too little is known should come again at the latest; None: it
    has never come. `times`, `days`: as in `learn`.

    Without this, one that stops in its first days would never be missed. It is generous: a push each month is allowed
    until a few have come on other days than the first.
    """
    ordered = sorted(set(times))
    if not ordered:
        return None
    longest = max((after - before for before, after in pairwise(ordered)), default=0.0)
    least = _FEW_LEAST if len(ordered) >= LEAST and len(days) >= LEAST - 1 else _ONCE_LEAST
    return max(least, _FEW_TIMES * longest)


def _expected(times: Sequence[float]) -> float:
    """Return the gap that is usual after the last of these times."""
    gaps = [after - before for before, after in pairwise(times)]
    usual = _usual(gaps)
    often = _covering(gaps, 0.5)
    least = max(gap for gap in gaps if gap <= _ALIKE * often)
    alike = [gap for begin, gap in zip(times[:-1], gaps, strict=True) if _is_same_time(begin, times[-1])]
    if len(alike) >= _MATCHES_MANY:
        alike.remove(max(alike))
    return usual if len(alike) < _MATCHES else min(usual, max(least, *alike))


def _usual(gaps: Sequence[float]) -> float:
    """Return the largest gap that is no outage."""
    covering = _covering(gaps, _OUTAGES)
    return max(gap for gap in gaps if gap <= _JITTER * covering)


def _covering(gaps: Sequence[float], share: float) -> float:
    """Return the smallest gap so that all larger ones together cover no more than this share of the time."""
    left = share * sum(gaps)
    ordered = sorted(gaps, reverse=True)
    for gap in ordered:
        if gap > left:
            return gap
        left -= gap
    return median(ordered)  # they cover nothing: all are 0


def _is_same_time(one: float, other: float) -> bool:
    """Whether two moments are at about the same time of the week."""
    apart = (one - other) % _WEEK
    return min(apart, _WEEK - apart) <= _SAME_TIME
