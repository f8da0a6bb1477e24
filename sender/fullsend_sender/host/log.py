"""The log on stderr: lines for a person, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from typing import Final, Literal

from fullsend_protocol.shared.units import format_time, printable

#: Clears a live progress line; fullsend writes no other unfinished line.
_CLEAR: Final = "\r\x1b[K"

log: Final = logging.getLogger("fullsend")

#: `extra` of a message whose names are escaped already: its backslashes stay.
ESCAPED: Final = {"has_escapes": True}


def configure(style: Literal["text", "json"], *, verbose: bool) -> None:
    """Set the format and the level of the log. May be called again after the configuration is read."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(style, clear=_CLEAR if sys.stderr.isatty() else ""))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.INFO if verbose else logging.WARNING)


class _Formatter(logging.Formatter):
    """Text: `fullsend: ` and the message. JSON: time, level, program, message. Both with the traceback, if any."""

    def __init__(self, style: Literal["text", "json"], *, clear: str) -> None:
        super().__init__()
        self._json = style == "json"
        self._clear = clear

    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        if not self._json:
            # Messages have names from streams and texts from the peer: neither may control the terminal.
            message = printable(record.getMessage(), has_escapes=getattr(record, "has_escapes", False))
            line = f"{self._clear}fullsend: {message}"
            return f"{line}\n{traceback}" if traceback else line
        entry = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "program": "fullsend",
            "message": record.getMessage(),
        }
        if traceback:
            entry["traceback"] = traceback
        return self._clear + json.dumps(entry, ensure_ascii=False)
