"""Kinds of values in receiver.toml that several of its tables have."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator

_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def _daily(value: object) -> object:
    """Read a time of day, HH:MM; "never" is None."""
    if value == "never" or isinstance(value, time):
        return None if value == "never" else value
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        msg = f'{value!r} is not a time of day such as "03:30", nor "never"'
        raise ValueError(msg)
    return time.fromisoformat(value)


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        msg = f"{str(path)!r} is not an absolute path"
        raise ValueError(msg)
    return path


#: An absolute path.
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
#: A time of day, in the file HH:MM; None: "never".
DailyTime = Annotated[time | None, BeforeValidator(_daily)]
