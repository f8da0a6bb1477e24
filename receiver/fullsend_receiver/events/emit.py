"""Says that an event has happened: one line of the log, which carries the event.

The log's handlers decide where it goes. The daemon, and each command that changes the store, has one for the event
journal (`store.event_recorder`).
"""

from __future__ import annotations

import logging
from typing import Final

from fullsend_receiver.events.records import Event

log: Final = logging.getLogger("fullsendd")
_ATTRIBUTE: Final = "fullsend_event"


def emit(event: Event, level: int = logging.INFO) -> None:
    """Log an event: its text is the line. `level`: as in `logging`. Does not block."""
    log.log(level, "%s", event.text, extra={_ATTRIBUTE: event})


def event_of(record: logging.LogRecord) -> Event | None:
    """Return the event of a line of the log; None: it is only a line."""
    found = getattr(record, _ATTRIBUTE, None)
    return found if isinstance(found, Event) else None


def level_name(record: logging.LogRecord) -> str:
    """Return the level of a line as both formats of JSON lines have it."""
    return record.levelname.lower()
