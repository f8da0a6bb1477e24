"""`fullsend status`: how old the backups are, as a monitoring plugin says it.

Judged is what is stored and still there at home, and what the configuration wants pushed. A dataset that has been
destroyed or renamed here gets no newer, and must not ring the alarm for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from fullsend_protocol import messages
from fullsend_protocol.errors import UsageError
from fullsend_protocol.lost_spills import restoring_loses
from fullsend_protocol.units import format_duration, format_size, format_time, parse_time, plural, printable
from fullsend_sender.link import connect
from fullsend_sender.selection import Selection, is_pattern
from fullsend_sender.zfs import ZfsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fullsend_sender.config import SenderSettings
    from fullsend_sender.identity import Identity
    from fullsend_sender.link import Endpoint
    from fullsend_sender.zfs import Zfs

#: Seconds by which two clocks may differ before it is said.
_CLOCK_ERROR: Final = 86400.0
#: Names in the first line, which is all that many a monitoring system shows.
_NAMED: Final = 3


class State(IntEnum):
    """As the plugins of Nagios exit (nagios-plugins.org, guidelines)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """One dataset's backups. `about`: None: nothing is stored of it; `age`: seconds since the dataset was as it is
    stored, None: nothing restorable is; `why`: what is wrong.
    """

    dataset: str
    state: State
    about: messages.DatasetStatus | None
    age: float | None
    why: str = ""

    def line(self) -> str:
        """Say it to a person."""
        age = "never" if self.age is None else f"{format_duration(self.age)} ago"
        what = (
            f"{self.about.streams} stored, {format_size(self.about.stored_bytes)}" if self.about else "nothing stored"
        )
        return printable(f"{self.state.name:<8}  {self.dataset}: {age}, {what}{f': {self.why}' if self.why else ''}")

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of one dataset."""
        about = self.about.model_dump() if self.about else {}
        age = None if self.age is None else round(self.age)
        return {**about, "dataset": self.dataset, "age": age, "state": self.state.name, "why": self.why}


async def status(
    settings: SenderSettings,
    endpoint: Endpoint,
    identity: Identity,
    zfs: Zfs,
    patterns: Sequence[str],
    *,
    max_age: float | None,
) -> list[Judged]:
    """Ask the receiver, and judge. `patterns`: which datasets, none: all; `max_age`: in seconds, None: any age will do.

    Returns: a judgement of each, in the order of their names. Raises: Unreachable, PeerError, UsageError, ZfsError.
    """
    async with connect(endpoint, identity) as (link, _name):
        now = format_time(time.time())  # where nothing is stored, no page comes
        stored: dict[str, messages.DatasetStatus] = {}
        async for page in link.pages(messages.StatusWanted(), messages.Status):
            now = page.now
            stored |= {about.dataset: about for about in page.datasets}
    here = await _datasets(zfs)
    wanted: set[str] = set()
    for table in settings.push:
        if (table.receiver or settings.receiver) in {None, endpoint.name}:
            # What is named, also where it is not here: its pool may not have been imported, and nothing is pushed.
            named = [name for name in table.datasets if not is_pattern(name)]
            selection = Selection(tuple(table.datasets), table.recursive, tuple(table.exclude))
            wanted.update(selection.choose([*(here or ()), *named]))
    names = {name for name in stored if here is None or name in here} | wanted
    if patterns:
        selection = Selection(tuple(patterns))
        names = set(selection.choose([*stored, *wanted]))
        missing = selection.missing(sorted(names))
        if missing:
            raise UsageError(
                f"{', '.join(missing)}: nothing of that name is stored here or wanted by the configuration"
            )
    clock = parse_time(now) or time.time()
    ahead = time.time() - clock
    return [judge(name, stored.get(name), max_age, clock, ahead=ahead) for name in sorted(names)]


async def _datasets(zfs: Zfs) -> set[str] | None:
    """Return what there is; None where that can't be told, so that all that is stored is judged."""
    try:
        return set(await zfs.names())
    except (ZfsError, UsageError):
        return None


def judge(
    dataset: str, about: messages.DatasetStatus | None, max_age: float | None, now: float, *, ahead: float = 0.0
) -> Judged:
    """Judge one dataset. `now`: seconds since the epoch, by the receiver's clock, which alone tells ages; `ahead`:
    seconds that this host's clock is ahead of it.
    """
    if about is None:
        return Judged(dataset, State.CRITICAL, None, None, "it has never been pushed")
    if about.begun is None or about.created is None:
        return Judged(dataset, State.CRITICAL, about, None, "nothing of it can be restored")
    begun = parse_time(about.begun)
    last = max(filter(None, (begun, parse_time(about.unchanged or ""))), default=None)
    if last is None:
        return Judged(dataset, State.CRITICAL, about, None, f"the receiver says that it came at {about.begun}")
    age = max(0.0, now - last)
    if max_age is not None and age > max_age:
        return Judged(dataset, State.CRITICAL, about, age, f"older than {format_duration(max_age)}")
    doubts = list(_doubts(about, begun, ahead))
    return Judged(dataset, State.WARNING if doubts else State.OK, about, age, "; ".join(doubts))


def _doubts(about: messages.DatasetStatus, begun: float | None, ahead: float) -> Iterator[str]:
    """Yield what is wrong with backups that are young enough. `begun`: seconds since the epoch."""
    if about.broken:
        yield f"{about.broken} of its streams are damaged or lack a base (see `fullsend list {about.dataset}`)"
    if about.lost_spill_count:
        yield (
            f"{restoring_loses(about.lost_spill_count)}: push a full without -e and -w (see `fullsend list"
            f" {about.dataset}`)"
        )
    if abs(ahead) > _CLOCK_ERROR:
        how = "ahead of" if ahead > 0 else "behind"
        yield f"this host's clock is {format_duration(abs(ahead))} {how} the receiver's"
    taken = parse_time(about.created or "")
    if begun is None or taken is None or abs(taken - begun) > _CLOCK_ERROR:
        yield (
            f"@{about.snapshot} says that it was taken {about.created}, and came {about.begun}: an older snapshot was"
            " pushed, or a clock was wrong"
        )


def worst(judged: Iterable[Judged]) -> State:
    """Return the state of all together; nothing at all is unknown."""
    return max((each.state for each in judged), default=State.UNKNOWN)


def headline(judged: Sequence[Judged]) -> str:
    """Return the one line that a monitoring system shows: the state, and the worst of it by name."""
    state = worst(judged)
    if not judged:
        return f"{state.name}: nothing is stored"
    bad = [each for each in judged if each.state is not State.OK]
    if not bad:
        oldest = max(judged, key=lambda each: each.age or 0.0)
        return printable(
            f"{state.name}: {plural(len(judged), 'dataset')}, the oldest backup is of"
            f" {format_duration(oldest.age or 0.0)} ago ({oldest.dataset})"
        )
    bad.sort(key=lambda each: -each.state)
    named = "; ".join(f"{each.dataset}: {each.why}" for each in bad[:_NAMED])
    more = f"; {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return printable(f"{state.name}: {len(bad)} of {plural(len(judged), 'dataset')}: {named}{more}")
