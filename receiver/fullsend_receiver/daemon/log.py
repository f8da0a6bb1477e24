"""The daemon's log: lines on stderr, as text or as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Literal

from fullsend_receiver.events.emit import event_of, level_name
from fullsend_receiver.events.records import facts_of


class _Json:
    """One JSON object per line: time, level, message, and the traceback if there is one."""

    def __init__(self) -> None:
        self._traceback = logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": level_name(record),
            "message": record.getMessage(),
        }
        event = event_of(record)
        if event is not None:  # its text is the message
            facts = facts_of(event, at=record.created, level=level_name(record))
            fields |= {name: value for name, value in facts.items() if name not in {*fields, "text"}}
        if record.exc_info:
            fields["traceback"] = self._traceback.formatException(record.exc_info)
        return json.dumps(fields)


def set_up(log_format: Literal["text", "json"], *, verbose: bool) -> None:
    """Send the log to stderr. systemd's journal adds the time itself; elsewhere text lines have it."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_Json())  # type: ignore[arg-type]
    elif "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    else:
        formatter = logging.Formatter("%(asctime)sZ %(levelname)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    log = logging.getLogger("fullsendd")
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
