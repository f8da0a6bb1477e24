"""What receiver.toml says about retention: the table [retention], and its tables [retention."SENDER/PATTERN"].

    [retention]                     # for all
    daily = 7
    weekly = 5
    monthly = 12

    [retention."alpha/tank/vm/**"]  # for these datasets of the sender alpha: other values, the rest as for all
    hourly = 24
    monthly = 3

Where several patterns match (patterns.py), the later one counts, value by value. Without a rule that keeps something, a
dataset has no policy: nothing of it is ever deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from fullsend_protocol.shared.settings import Duration, Settings
from fullsend_receiver.access.patterns import check_pattern, matches

#: The rules that keep one snapshot a period. The longest period first.
Period = Literal["yearly", "monthly", "weekly", "daily", "hourly"]
PERIODS: Final[tuple[Period, ...]] = ("yearly", "monthly", "weekly", "daily", "hourly")
#: All rules that keep something. The others only say how they are applied, and what stays in any case.
KEEP_RULES: Final = (*PERIODS, "within", "last")

Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is kept of a dataset. Times are seconds.

    `last`: so many newest snapshots; `within`: all that were received less than this before the newest one; `yearly` to
    `hourly`: the first snapshot of a period, for so many newest periods with a snapshot. Never dropped, whatever these
    say: what is within `minimum_count` or younger than `minimum_age`. `time`: what the periods and `within` are judged
    by; "created" trusts the sender's clock. `where`: the tables that made this policy, as in the file.
    """

    last: int = 0
    within: float = 0.0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    minimum_count: int = 3
    minimum_age: float = 2 * 86400.0
    time: Literal["received", "created"] = "received"
    where: str = "[retention]"

    def periods(self, period: Period) -> int:
        """For how many periods it keeps a snapshot."""
        count: int = getattr(self, period)
        return count


class PolicyTable(Settings):
    """A table of rules. None: the table does not say."""

    last: Count | None = None
    within: Duration | None = None
    hourly: Count | None = None
    daily: Count | None = None
    weekly: Count | None = None
    monthly: Count | None = None
    yearly: Count | None = None
    minimum_count: Count | None = None
    minimum_age: Duration | None = None
    time: Literal["received", "created"] | None = None

    def said(self) -> dict[str, Any]:
        """Return the values that the table has, by the names in Policy."""
        found = {each.name: getattr(self, each.name, None) for each in fields(Policy)}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def keeps(self) -> bool:
        """Whether it has a rule that keeps something; a rule of 0 counts, because somebody wrote it on purpose."""
        return any(name in self.said() for name in KEEP_RULES)


def _table(value: object) -> object:
    """Refuse a value that is no table as what it is: an unknown rule."""
    if not isinstance(value, dict | PolicyTable):
        raise PydanticKnownError("extra_forbidden")
    return value


class Retention(PolicyTable, extra="allow"):
    """The table [retention], with the tables for some datasets in it."""

    __pydantic_extra__: dict[str, Annotated[PolicyTable, BeforeValidator(_table)]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, table in self.tables.items():
            check_pattern(name, "retention")
            if not (self.keeps or table.keeps):
                raise ValueError(_keeps_nothing(f'[retention."{name}"]'))
        if not (self.keeps or self.tables):
            raise ValueError(_keeps_nothing("it"))
        return self

    @property
    def tables(self) -> dict[str, PolicyTable]:
        """The tables for some datasets, by SENDER/PATTERN, in the order of the file."""
        return self.__pydantic_extra__

    def policy(self, sender: str, dataset: str) -> Policy | None:
        """Return the policy for a dataset; None: no rule keeps anything of it, so all of it stays."""
        said, where, keeps = self.said(), ["[retention]"] * bool(self.said()), self.keeps
        for name, table in self.tables.items():
            if matches(name, sender, dataset):
                said |= table.said()
                where.append(f'[retention."{name}"]')
                keeps = keeps or table.keeps
        return Policy(**said, where=" + ".join(where)) if keeps else None


def _keeps_nothing(what: str) -> str:
    return (
        f"{what} has no rule that keeps anything: write one, such as daily = 7, or last = 0 if only minimum-count and"
        " minimum-age are to hold"
    )
