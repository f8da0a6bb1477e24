"""What goes to stderr: lines for a person, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Final, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

#: Clears what a live progress line may have left there; nothing else of ours ever stands in an unfinished line.
_CLEAR: Final = "\r\x1b[K"

log: Final = logging.getLogger("fullsend")


def configure(style: Literal["text", "json"], *, verbose: bool) -> None:
    """Say how and how much is logged, from now on. May be called again once the configuration is read."""
    handler = logging.StreamHandler(sys.stderr)
    make: Callable[[TextIO], logging.Formatter] = _Json if style == "json" else _Text
    handler.setFormatter(make(sys.stderr))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.INFO if verbose else logging.WARNING)


class _Text(logging.Formatter):
    """`fullsend: ` and the message; a traceback where one is given."""

    def __init__(self, stream: TextIO) -> None:
        clear = _CLEAR if stream.isatty() else ""
        super().__init__(f"{clear}fullsend: %(message)s")


class _Json(logging.Formatter):
    """time, level, message, and the traceback where one is given."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._clear = _CLEAR if stream.isatty() else ""

    def format(self, record: logging.LogRecord) -> str:
        from fullsend_protocol.units import format_time

        entry = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "program": "fullsend",
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return self._clear + json.dumps(entry, ensure_ascii=False)
