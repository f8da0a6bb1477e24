"""What receiver.toml says about copies in another store: the table [copy].

[copy]
to = "/etc/fullsend/offsite.toml"   # the receiver.toml of the other store
at = "05:00"                        # local time, once a day; or every = "6h"; "never": only `fullsendd copy`
bwlimit = "20M"
what = ["alpha", "beta/tank/home"]  # default: all
alarm-after = "3d"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import time
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fullsend_protocol.shared.settings import Duration, Settings, Size
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.access.values import AbsolutePath, DailyTime

_DAY: Final = 86400.0
#: Seconds without a complete copy after which that is an alarm, at least: two nights may fail.
_ALARM_LEAST: Final = 3 * _DAY
#: So many runs may fail before that is an alarm, if they are farther apart than a day.
_ALARM_RUNS: Final = 3


def _name(text: str) -> str:
    sender, slash, dataset = text.partition("/")
    if not is_sender_name(sender) or (slash and not dataset):
        msg = f"{text!r} is neither SENDER nor SENDER/DATASET"
        raise ValueError(msg)
    return text


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[Annotated[str, AfterValidator(_name)], ...], BeforeValidator(_listed)]


@dataclass(frozen=True, slots=True)
class CopyScope:
    """Which streams a run copies. `what`: SENDER or SENDER/DATASET of each, empty: all; `everything`: also what is
    older than the newest copy.
    """

    what: tuple[str, ...] = ()
    everything: bool = False

    def covers(self, other: CopyScope) -> bool:
        """Whether all that the other one has is in this one."""
        if other.everything and not self.everything:
            return False
        return not self.what or (bool(other.what) and all(_is_among(name, self.what) for name in other.what))


def _is_among(name: str, names: Iterable[str]) -> bool:
    return any(each in {name, name.partition("/")[0]} for each in names)


class CopySettings(Settings):
    """The table [copy]. Times are seconds."""

    to: AbsolutePath  # the receiver.toml of the other store
    at: DailyTime = time(5)  # local time of the daemon's copy; None ("never"): it makes none
    every: Annotated[Duration, Field(ge=60.0)] | None = None  # seconds from one to the next, in place of `at`
    bwlimit: Size = 0  # stored bytes a second; 0: no limit
    what: Names = ()  # SENDER or SENDER/DATASET; empty: all
    all: bool = False  # also what is older than the newest copy
    alarm_after: Duration | None = None  # an alarm if no copy was complete for so long; 0: none; None: see `limit`

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if self.every is not None and "at" in self.model_fields_set:
            msg = "`at` and `every` are both there: name one of them"
            raise ValueError(msg)
        return self

    @property
    def scope(self) -> CopyScope:
        """Which streams are copied."""
        return CopyScope(self.what, self.all)

    @property
    def limit(self) -> float | None:
        """The age of the last complete copy, in seconds, from which on there is an alarm; None: there is none."""
        if self.alarm_after is not None:
            return self.alarm_after or None
        return max(_ALARM_LEAST, _ALARM_RUNS * (self.every or _DAY))
