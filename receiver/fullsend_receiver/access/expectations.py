"""What receiver.toml says about how often datasets come: `expect-every`, and the tables [expect."SENDER/PATTERN"].

    expect-every = "26h"            # for all; "learn", the default: from what has come so far; "never": no alarm

    [expect."alpha/tank/vm/**"]     # for these datasets of the sender alpha
    every = "2h"

    [expect."*/tank/old"]
    every = "never"

Where several patterns match, the later one counts (patterns.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, model_validator
from pydantic_core import PydanticKnownError

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import Settings
from fullsend_protocol.shared.units import parse_duration
from fullsend_receiver.access.patterns import check_pattern, matches

_WORDS: Final = frozenset({"learn", "never"})
#: Seconds; what comes more often than this is not late before the next look at it.
_LEAST: Final = 60.0
_DAY: Final = 86400.0


def _every(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    if isinstance(value, str) and value in _WORDS:
        return value
    try:
        seconds = parse_duration(value) if isinstance(value, str) else value
    except UsageError:
        seconds = None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not _LEAST <= seconds < float("inf"):
        msg = f'{value!r} is neither a duration of a minute or more, such as "26h", nor "learn", nor "never"'
        raise ValueError(msg)
    return float(seconds)


def _days(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    """Read a number of days, or a duration such as "14d". Returns: seconds."""
    try:
        seconds = parse_duration(value) if isinstance(value, str) else value * _DAY
    except (UsageError, TypeError):
        seconds = None
    if isinstance(value, bool) or seconds is None or not 0 <= seconds < float("inf"):
        msg = f'{value!r} is neither a number of days nor a duration such as "14d"'
        raise ValueError(msg)
    return float(seconds)


#: Seconds; or "learn": from what has come so far; or "never": no alarm.
Every = Annotated[float | Literal["learn", "never"], BeforeValidator(_every)]
#: Seconds; in the file a number of days, or a duration.
Days = Annotated[float, BeforeValidator(_days)]


class ExpectTable(Settings):
    """A table for some datasets."""

    every: Every


def _table(value: object) -> object:
    """Refuse a value that is no table as what it is: an unknown key."""
    if not isinstance(value, dict | ExpectTable):
        raise PydanticKnownError("extra_forbidden")
    return value


class Expect(Settings, extra="allow"):
    """The table [expect], which has only the tables for some datasets in it."""

    __pydantic_extra__: dict[str, Annotated[ExpectTable, BeforeValidator(_table)]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.tables:
            check_pattern(name, "expect")
        return self

    @property
    def tables(self) -> dict[str, ExpectTable]:
        """The tables, by SENDER/PATTERN, in the order of the file."""
        return self.__pydantic_extra__

    def every(self, sender: str, dataset: str) -> float | Literal["learn", "never"] | None:
        """Return how often a dataset should come; None: no table says so."""
        found = [table.every for name, table in self.tables.items() if matches(name, sender, dataset)]
        return found[-1] if found else None

    def of_sender(self, sender: str, usual: Every) -> list[Every]:
        """Return what counts for datasets of a sender, whatever their names. `usual`: what `expect-every` says."""
        found = [usual]
        for name, table in self.tables.items():
            host, _, pattern = name.partition("/")
            if matches(f"{host}/x", sender, "x"):
                found = [table.every] if pattern == "**" else [*found, table.every]
        return found
