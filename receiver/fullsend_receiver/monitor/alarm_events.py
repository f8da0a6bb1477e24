"""The difference of two sets of alarms, as events. No I/O. `AlarmLog` alone decides when there is one to say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from fullsend_protocol.shared.units import format_time, printable
from fullsend_receiver.events.records import AlarmCleared, AlarmRaised
from fullsend_receiver.monitor.overview import Alarm, Level

_LEVELS: Final[dict[Level, int]] = {"warning": logging.WARNING, "critical": logging.ERROR}


def alarm_changes(before: Iterable[Alarm], after: Iterable[Alarm]) -> Iterator[tuple[AlarmRaised | AlarmCleared, int]]:
    """Yield an event for each alarm that ended, began, became critical, or tells of more streams; each with its level,
    as in `logging`. The ended ones come first: one may have become another, and who shows the newest event alone must
    not show an end.
    """
    known = {each.key: each for each in before}
    present = {each.key: each for each in after}
    for key, alarm in known.items():
        if key not in present:
            text = printable(f"{alarm.code}: has ended: {alarm.text}")
            yield AlarmCleared(text=text, lasting=len(present), **_fields(alarm)), logging.INFO
    for key, alarm in present.items():
        old = known.get(key)
        if old is None or (old.level, alarm.level) == ("warning", "critical") or alarm.count > old.count:
            yield AlarmRaised(text=printable(f"{alarm.code}: {alarm.text}"), **_fields(alarm)), _LEVELS[alarm.level]


def _fields(alarm: Alarm) -> dict[str, str]:
    return {
        "code": alarm.code,
        "severity": alarm.level,
        "sender": alarm.sender or "",
        "dataset": alarm.dataset or "",
        "since": "" if alarm.since is None else format_time(alarm.since),
    }
