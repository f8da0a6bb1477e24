"""Numbers, times and names as the page shows them. All of it is safe inside an element, and inside an attribute."""

from __future__ import annotations

import html
from datetime import date, datetime, tzinfo
from typing import Final

from fullsend_protocol.shared.units import format_size, format_time, printable

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_DAYS_SHOWN: Final = 2  # an age of less is shown in hours
_HOURS_SHOWN: Final = 2  # one of less in minutes


def text(what: str) -> str:
    """Return text from outside for HTML. Control characters, and those that change the direction of others, become
    escapes, as on a terminal.
    """
    return html.escape(printable(what))


def local(epoch: float, zone: tzinfo | None) -> datetime | None:
    """Return a time in a zone, None: that of this process; None if no calendar has that time."""
    try:
        return datetime.fromtimestamp(epoch, zone).astimezone(zone)
    except (OverflowError, ValueError, OSError):
        return None


def moment(epoch: float | None, zone: tzinfo | None) -> str:
    """Return a time to the minute, in that zone; None: "never"."""
    if epoch is None:
        return "never"
    at = local(epoch, zone)
    return format_time(epoch) if at is None else f"{at:%Y-%m-%d %H:%M}"


def zone_name(epoch: float, zone: tzinfo | None) -> str:
    """Return the zone's offset at that time: `UTC+01:00`."""
    at = local(epoch, zone)
    offset = "" if at is None else f"{at:%z}"
    return f"UTC{offset[:3]}:{offset[3:5]}" if offset.strip("+0") else "UTC"


def day_of(epoch: float, zone: tzinfo | None) -> int | None:
    """Return the day in that zone, as datetime.date.toordinal; None: no calendar has it."""
    at = local(epoch, zone)
    return None if at is None else at.toordinal()


def day_name(day: int) -> str:
    """Return a day for a person: `Thu 12 Nov`."""
    at = date.fromordinal(day)
    return f"{_WEEKDAYS[at.weekday()]} {at.day} {MONTHS[at.month - 1]}"


#: Not those of the locale: the page is in English.
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def span(seconds: float) -> str:
    """Return a duration for a person, with one unit: `40 s`, `25 min`, `7 h`, `12 days`."""
    if seconds < _MINUTE:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < _HOURS_SHOWN * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < _DAYS_SHOWN * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} days"


def age(then: float | None, now: float) -> str:
    """Return how long ago a time is: `7 h ago`; None: "never"; one that has not come yet: "in the future"."""
    if then is None:
        return "never"
    if then - now > _MINUTE:
        return "in the future"
    return f"{span(now - then)} ago"


def seen(then: float | None, seconds: float | None) -> str:
    """Return how long ago something came. `then`: None: "never"; `seconds`: the age, None: unknown, because a clock was
    wrong.
    """
    if then is None:
        return "never"
    return "unknown" if seconds is None else f"{span(seconds)} ago"


def size(bytes_: float) -> str:
    """Return a size, `41.7 GiB`, with a space that does not break."""
    return format_size(bytes_).replace(".0 ", " ").replace(" ", "\u00a0")


def ratio(raw: int, stored: int) -> str:
    """Return how far what is stored was compressed: `1.83 : 1`; "unknown" if nothing is stored."""
    return f"{raw / stored:.2f}\u00a0:\u00a01" if raw and stored else "unknown"


def number(value: float) -> str:
    """Return a coordinate of a drawing, with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")
