"""Says, by an event each, when an alarm begins and when it has ended: the document alarms.json has those that last.

    {"format": 1, "alarms": [{"code", "level", "text", "sender", "dataset", "since", "count"}, ...]}

So a restart repeats none, and an alarm keeps the time at which it began.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, get_args

from pydantic import Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel
from fullsend_receiver.events.emit import emit
from fullsend_receiver.monitor.alarm_events import alarm_changes
from fullsend_receiver.monitor.overview import Alarm, AlarmCode, Level, Overview
from fullsend_receiver.store.api import Documents, update
from fullsend_receiver.store.event_recorder import settle_events

log: Final = logging.getLogger("fullsendd")

_DOCUMENT: Final = "alarms.json"
_CODES: Final = frozenset(get_args(AlarmCode))
_LEVELS: Final = frozenset(get_args(Level))


class _AlarmEntry(DiskModel):
    code: str
    level: str
    text: str
    sender: str | None = None
    dataset: str | None = None
    since: float | None = Field(default=None, allow_inf_nan=False)
    count: int = 0  # an earlier version has none: what it counts now is told once


class _Lasting(DiskModel):
    format: int = Field(default=1, ge=1, le=1)
    alarms: list[_AlarmEntry] = Field(default_factory=list)


def read_alarms(documents: Documents) -> tuple[Alarm, ...]:
    """Return the alarms that last, as of the daemon's last look; without those of a later version. None are returned
    if the document is missing, or cannot be read. Raises: OSError.
    """
    found = documents.get(_DOCUMENT)
    try:
        said = _Lasting() if found is None else _Lasting.model_validate_json(found.data)
    except ValidationError:
        log.warning(".state/%s: cannot be read, and is made anew", _DOCUMENT)
        return ()
    known = (each for each in said.alarms if each.code in _CODES and each.level in _LEVELS)
    return tuple(Alarm(**each.model_dump()) for each in known)


class AlarmLog:
    """The alarms of one daemon, for one thread at a time."""

    def __init__(self, documents: Documents) -> None:
        """Reads nothing before the first question."""
        self._documents = documents
        self._known: tuple[Alarm, ...] | None = None  # None: not read yet
        self._written: tuple[Alarm, ...] = ()

    def known(self) -> Sequence[Alarm]:
        """Return the alarms of the last look, also that of an earlier process; none if that cannot be read: then those
        that last are said again.
        """
        if self._known is None:
            try:
                self._known = self._written = read_alarms(self._documents)
            except OSError as error:
                log.warning(".state/%s: cannot be read, and what lasts is said again: %s", _DOCUMENT, error)
                self._known = ()
        return self._known

    def note(self, overview: Overview) -> None:
        """Say what has begun, become worse or ended since the last look."""
        self._change(overview.alarms)

    def note_failure(self, why: str) -> None:
        """Say that nobody can look: an alarm until the next look. What lasted before lasts."""
        alarm = Alarm(code="unread", level="critical", text=why)
        self._change((*(each for each in self.known() if each.key != alarm.key), alarm))

    def _change(self, alarms: tuple[Alarm, ...]) -> None:
        for event, level in alarm_changes(self.known(), alarms):
            emit(event, level)
        self._known = alarms
        changed = _told_of(self._written) != _told_of(self._known)
        # The events first: if the daemon is killed in between, the next one says them again, and no hook misses them.
        if changed and settle_events():
            self._write(self._known)

    def _write(self, alarms: tuple[Alarm, ...]) -> None:
        said = _Lasting(alarms=[_AlarmEntry(**asdict(each)) for each in alarms])
        data = said.model_dump_json(indent=1).encode() + b"\n"
        try:
            update(self._documents, _DOCUMENT, lambda _before: data)
        except OSError as error:  # a full disk: there is an alarm for it, and it is tried again
            log.debug("the alarms cannot be noted: %s", error)
            return
        self._written = alarms


def _told_of(alarms: Sequence[Alarm]) -> set[tuple[tuple[str, str, str], Level, int]]:
    """Return what decides whether there is an event to say."""
    return {(each.key, each.level, each.count) for each in alarms}
