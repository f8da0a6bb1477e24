"""Sizes, durations and times as people write and read them.

Sizes take K, M, G, T (binary, so `4M` is 4,194,304 bytes), durations `90s 15m 26h 30d`; output says MiB, GiB.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from fullsend_protocol.shared.errors import UsageError

_SIZE_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: The number of digits is limited: more are a typing error.
_NUMBER: Final = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
_SIZE: Final = re.compile(_NUMBER + r"\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_DURATION: Final = re.compile(_NUMBER + r"\s*([smhd])")
_STEP: Final = 1024.0
_ISO_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def parse_size(text: str) -> int:
    """Read a size such as `512K`, `1.5G` or `4096`.

    Returns: bytes. Raises: UsageError, which quotes the text.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        msg = f"{text!r} is not a size: write a number with K, M, G or T, such as 512M"
        raise UsageError(msg)
    return int(Decimal(match[1]) * _SIZE_UNITS[match[2].upper()])


def parse_duration(text: str) -> float:
    """Read a duration such as `90s`, `15m`, `26h` or `30d`.

    Returns: seconds. Raises: UsageError, which quotes the text.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        msg = f"{text!r} is not a duration: write a number with s, m, h or d, such as 15m"
        raise UsageError(msg)
    return float(match[1]) * _TIME_UNITS[match[2]]


def format_size(size: float) -> str:
    """Write a size in bytes for a person: `999 B`, `41.7 GiB`."""
    if round(size) < _STEP:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= _STEP
        if round(size, 1) < _STEP:
            return f"{size:.1f} {unit}"
    return f"{size / _STEP:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Write a duration in seconds for a person: `0:00:46`, `2d 03:04:05`."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02}:{minutes:02}:{secs:02}"
    return f"{hours}:{minutes:02}:{secs:02}"


def format_time(epoch: float) -> str:
    """Write a time (seconds since the epoch) as ISO 8601 in UTC, to the second: `2026-11-23T06:30:00Z`.

    A time beyond year 9999 (a BEGIN record may claim any u64) is shown as the number of seconds.
    """
    try:
        return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"@{int(epoch)}"


def parse_time(text: str) -> float | None:
    """Read a time as `format_time` writes it. Returns: seconds since the epoch; None where it is not one."""
    if text.startswith("@"):
        return float(text[1:]) if text[1:].isdecimal() else None
    if not _ISO_TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()  # strptime takes ten times as long
    except ValueError:
        return None


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: `1 dataset`, `2 datasets`. `noun`: one whose plural ends in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str, *, has_escapes: bool = False) -> str:
    """Make text from outside safe for a terminal: control characters and backslashes become escapes. `has_escapes`: its
    backslashes are those of escapes, and stay.
    """
    special = "" if has_escapes else "\\"
    if text.isprintable() and (has_escapes or special not in text):
        return text
    return "".join(c if c.isprintable() and c != special else c.encode("unicode_escape").decode("ascii") for c in text)
