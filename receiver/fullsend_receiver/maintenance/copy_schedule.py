"""Decides when the daemon copies into another store. Pure: no I/O, and the caller's clock.

A run that has left something behind, or did not come to its end, is tried again before its time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.maintenance.copy_records import CopyRecord
from fullsend_receiver.maintenance.daily_prune import is_due as is_daily_due

#: Seconds until a run that failed is tried again: the other store may be away for a moment.
AGAIN: Final = 3600.0
#: Seconds until then, at most, if it came to its end: what it left behind then is seldom mended by a second try, which
#: may read and send much for nothing.
_AGAIN_MOST: Final = 86400.0
#: Doublings after which `_AGAIN_MOST` is reached.
_DOUBLINGS: Final = 5


def is_due(
    record: CopyRecord, settings: CopySettings, now: float, *, local: Callable[[float], datetime] | None = None
) -> bool:
    """Whether it is time for a copy. `record`: how the copies stand; `now`: seconds since the epoch; `local`: makes a
    local time of a moment, None: this host's.
    """
    if settings.every is None and settings.at is None:
        return False
    began = parse_time(record.began or "")
    if began is None:  # a daily one is at its time, not when it was first wanted
        since = parse_time(record.since or "")
        return settings.every is not None or (since is not None and _is_time(now, since, settings, local))
    if not (record.has_ended and record.ok) and now - began >= _wait(record):
        return True
    return _is_time(now, began, settings, local)


def _is_time(now: float, before: float, settings: CopySettings, local: Callable[[float], datetime] | None) -> bool:
    if before > now:  # the clock was set back
        return True
    if settings.every is not None:
        return now - before >= settings.every
    return settings.at is not None and is_daily_due(now, before, settings.at, again=False, local=local)


def _wait(record: CopyRecord) -> float:
    """Return for how many seconds a run that was not complete is not repeated."""
    if not record.has_ended or record.why is not None:
        return AGAIN
    return min(_AGAIN_MOST, AGAIN * 2.0 ** min(max(0, record.tries - 1), _DOUBLINGS))
