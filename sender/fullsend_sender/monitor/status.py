"""The age of the backups at one receiver, in the form of a monitoring plugin.

It judges the datasets that are stored, and those that the configuration wants pushed. A dataset that is stored and no
longer here is critical, until `retired` in sender.toml names it. A renamed dataset is judged under its new name.

What the receiver reports as a problem, or as one that will come, is a warning: no backup is too old because of it yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.lost_spills import restoring_loses
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_duration, format_size, format_time, parse_time, plural, printable
from fullsend_protocol.wire import messages
from fullsend_sender.drill.report import last_drills
from fullsend_sender.push.gone import is_retired, renamed, without_copies
from fullsend_sender.push.gone import why as not_here
from fullsend_sender.push.naming import receiver_id
from fullsend_sender.transfer import listing
from fullsend_sender.transfer.link import connect
from fullsend_sender.zfs import pools
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.selection import Selection, is_pattern, pool_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_sender.host.config import SenderSettings
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.transfer.link import Link
    from fullsend_sender.zfs.commands import Zfs
    from fullsend_sender.zfs.pools import Pools

#: Seconds by which two clocks may differ without a warning.
_CLOCK_ERROR: Final = 86400.0
_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class BackupState:
    """The state of one dataset's backups. `about`: the receiver's report, None: nothing is stored; `age`: seconds since
    the dataset had its stored state, None: nothing can be restored; `why`: what is wrong; `drill`: the last restore
    drill, None: none is known.
    """

    dataset: str
    state: NagiosState
    about: messages.DatasetStatus | None
    age: float | None
    why: str = ""
    drill: messages.DrillEntry | None = None

    @property
    def last_drill(self) -> str:
        """How the last restore drill ended, and on which day; "": none is known."""
        if self.drill is None:
            return ""
        compared = " (no content compared)" if self.drill.compared == "guid" else ""
        return f"{f'ok{compared}' if self.drill.ok else 'FAILED'} {self.drill.at[:10]}"

    def line(self, receiver: str = "") -> str:
        """Return the line for a person. `receiver`: its name, where several are asked."""
        where = f"receiver {receiver}: " if receiver else ""
        age = "never" if self.age is None else f"{format_duration(self.age)} ago"
        what = (
            f"{self.about.streams} stored, {format_size(self.about.stored_bytes)}" if self.about else "nothing stored"
        )
        drill = f", drill {self.last_drill}" if self.drill else ""
        why = f": {self.why}" if self.why else ""
        return printable(f"{self.state.name:<8}  {where}{self.dataset}: {age}, {what}{drill}{why}")

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of one dataset, without its receiver."""
        about = self.about.model_dump() if self.about else {}
        age = None if self.age is None else round(self.age)
        drill = None if self.drill is None else self.drill.model_dump(exclude={"dataset"})
        return {
            **about,
            "dataset": self.dataset,
            "age": age,
            "state": self.state.name,
            "why": self.why,
            "drill": drill,
        }


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """The receiver's state, as far as it concerns this host. `name`: in sender.toml; `health`: its own report."""

    name: str
    health: messages.Health

    @property
    def state(self) -> NagiosState:
        """WARNING, if it reports anything."""
        return NagiosState.WARNING if self.findings else NagiosState.OK

    @property
    def findings(self) -> list[str]:
        """A line for each thing that is, or soon will be, a problem."""
        return [*self.health.problems, *self.health.warnings]

    def lines(self) -> Iterator[str]:
        """Yield the lines for a person: what it reports, and how the checks of what is stored stand."""
        for finding in self.findings:
            yield printable(f"{NagiosState.WARNING.name:<8}  receiver {self.name}: {finding}")
        scrub = self.health.scrub
        if scrub is not None and scrub.streams:
            yield printable(f"{NagiosState.OK.name:<8}  receiver {self.name}: {scrub_line(scrub)}")

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of the receiver. It has the keys that all objects have, and no dataset."""
        health = self.health
        return {
            "receiver": self.name,
            "dataset": None,
            "state": self.state.name,
            "why": "; ".join(self.findings),
            "program": health.program,
            "free_bytes": health.free_bytes,
            "problems": health.problems,
            "warnings": health.warnings,
            "scrub": None if health.scrub is None else health.scrub.model_dump(),
        }


def scrub_line(scrub: messages.ScrubStanding) -> str:
    """Return how the receiver's own checks stand."""
    streams = plural(scrub.streams, "stream")
    reading = scrub.reading
    now = (
        f"; reads {reading.file}: {format_size(reading.read_bytes)} of {format_size(reading.stored_bytes)}"
        if reading is not None
        else ""
    )
    if not scrub.every:
        return f"scrub: {scrub.checked} of {streams} were ever checked; it checks none by itself (scrub-every = 0){now}"
    left = f", {scrub.due_streams} left to check ({format_size(scrub.due_bytes)})" if scrub.due_streams else ""
    every = f"{scrub.every / _DAY:g} days" if scrub.every >= _DAY else format_duration(scrub.every)
    done = f"{scrub.current} of {streams} checked or received within {every}"
    return f"scrub: {done}, the oldest at {scrub.oldest}{left}{now}"


async def status(
    settings: SenderSettings,
    endpoint: Endpoint,
    identity: Identity,
    zfs: Zfs,
    here: LocalDatasets | None,
    *,
    patterns: Sequence[str],
    max_age: float | None,
) -> tuple[list[BackupState], ReceiverState]:
    """Ask the receiver, and judge. `here`: from look_here; `patterns`: of datasets, none: all; `max_age`: in seconds,
    None: no limit.

    Returns: the state of each dataset, in the order of their names; and that of the receiver, whatever the patterns.
    Raises: Unreachable, PeerError, UsageError, ZfsError.
    """
    async with connect(endpoint, identity) as (link, _name):
        now, stored = await listing.statuses(link)
        receiver = ReceiverState(endpoint.name, await link.ask(messages.Check(), messages.Health))
    drills = await last_drills(endpoint, identity)
    wanted: set[str] = set()
    failed: dict[str, FullsendError] = {}
    for table in settings.tables_for(endpoint.name):
        # Also named datasets that are not here: their pool may not be imported, so nothing of them is pushed.
        named = [name for name in table.datasets if not is_pattern(name)]
        wanted.update(table.selection.choose([*(here.names if here else ()), *named]))
        failed |= {pool: why for pool, why in here.failed.items() if table.selection.means_pool(pool)} if here else {}
    gone: dict[str, tuple[str, messages.DatasetStatus | None]] = {}
    if here is not None and (missing := here.missing(stored, settings.retired)):
        async with connect(endpoint, identity) as (link, _name):
            receiver_in_names = receiver_id(endpoint.fingerprint)
            gone = await _find_gone(link, zfs, here, missing, stored, receiver=receiver_in_names)
    # A failed pool of which nothing is stored yet: what should be pushed of it is unknown.
    gone |= {pool: (str(why), None) for pool, why in failed.items() if not is_retired(pool, settings.retired)}
    old = set[str]() if here is None else {name for name in stored if name not in here.names}
    names = {name for name in stored if name not in old} | wanted | gone.keys()
    if patterns:
        names = set(Selection(tuple(patterns)).choose([*stored, *wanted, *gone]))
    clock = parse_time(now) or time.time()
    ahead = time.time() - clock
    judged = []
    for name in sorted(names):
        why, about = gone.get(name, ("", stored.get(name)))
        each = judge(name, about, max_age, clock, ahead=ahead)
        # A missing dataset is worse than any other problem. A renamed one has the age of its old name.
        if why and not about:
            each = replace(judge(name, stored.get(name), max_age, clock), state=NagiosState.CRITICAL, why=why)
        elif why:
            each = replace(
                each, state=max(each.state, NagiosState.WARNING), why="; ".join(filter(None, (why, each.why)))
            )
        judged.append(with_drill(each, drills.get(name)))
    return judged, receiver


@dataclass(frozen=True, slots=True)
class LocalDatasets:
    """The datasets of this host. `names`: of all datasets; `failed`: by pool, why it cannot be listed."""

    pools: Pools
    names: Collection[str]
    failed: Mapping[str, FullsendError]

    def missing(self, stored: Iterable[str], retired: Sequence[str]) -> list[str]:
        """Return those of these datasets that are not here, and that `retired` does not name."""
        return [name for name in stored if name not in self.names and not is_retired(name, retired)]


async def _find_gone(
    link: Link,
    zfs: Zfs,
    here: LocalDatasets,
    missing: Sequence[str],
    stored: Mapping[str, messages.DatasetStatus],
    *,
    receiver: str,
) -> dict[str, tuple[str, messages.DatasetStatus | None]]:
    """Return, by name, the datasets of `missing` that no longer exist: why, and None. A dataset that was renamed and
    not pushed since is returned by its new name: why, and the report about its old name. `receiver`: its id in the
    names of bookmarks. Raises: UsageError; as Link.receive.
    """
    bases = await listing.bases(link)
    listed = await pools.listed(zfs, here.pools, {pool: [pool] for pool in here.pools.health}, recursive=True)
    now_as = renamed(bases, listed.datasets, receiver, await pools.without_bookmarks(zfs))
    elsewhere = await without_copies(link, missing, now_as, stored)
    found: dict[str, tuple[str, messages.DatasetStatus | None]] = {}
    for name in missing:
        now = elsewhere.get(name)
        pool = pool_of(name)
        if now is None:
            found[name] = (str(here.failed[pool]) if pool in here.failed else not_here(name, here.pools), None)
        elif now in here.names and now not in stored:
            found[now] = (f"was {name}, and has not been pushed under this name", stored[name])
    return found


async def look_here(zfs: Zfs) -> LocalDatasets | None:
    """Return the datasets of this host; None if `zfs` fails: then all that is stored is judged."""
    try:
        there = await pools.look(zfs)
        names, failed = await pools.names(zfs, there)
    except (ZfsError, UsageError):
        return None
    if failed and not names and all(there.obstacle(pool) is None for pool in failed):
        return None  # `zfs` gives no permission to ask
    return LocalDatasets(there, set(names), failed)


def judge(
    dataset: str, about: messages.DatasetStatus | None, max_age: float | None, now: float, *, ahead: float = 0.0
) -> BackupState:
    """Judge one dataset. `now`: seconds since the epoch, by the receiver's clock, from which alone ages follow;
    `ahead`: seconds that this host's clock is ahead of it.
    """
    if about is None:
        return BackupState(dataset, NagiosState.CRITICAL, None, None, "it has never been pushed")
    if about.begun is None or about.created is None:
        return BackupState(dataset, NagiosState.CRITICAL, about, None, "nothing of it can be restored")
    begun = parse_time(about.begun)
    seen = [(time, said) for said in (about.begun, about.unchanged) if said and (time := parse_time(said)) is not None]
    if not seen:
        return BackupState(
            dataset, NagiosState.CRITICAL, about, None, f"the receiver says that it came at {about.begun}"
        )
    # A time in the future tells no age: it would stay young for as long as the receiver's clock was ahead.
    past = [time for time, _said in seen if time - now <= _CLOCK_ERROR]
    age = max(0.0, now - max(past, default=now))
    wrong = [
        f"the receiver says that it came {said}, and that it is {format_time(now)} there: its clock was wrong, and this"
        " tells no age"
        for time, said in seen
        if time - now > _CLOCK_ERROR
    ]
    if max_age is not None and not past:
        return BackupState(dataset, NagiosState.CRITICAL, about, age, "; ".join(wrong))
    if max_age is not None and age > max_age:
        return BackupState(dataset, NagiosState.CRITICAL, about, age, f"older than {format_duration(max_age)}")
    doubts = [*wrong, *_doubts(about, begun, ahead)]
    return BackupState(dataset, NagiosState.WARNING if doubts else NagiosState.OK, about, age, "; ".join(doubts))


def with_drill(judged: BackupState, drill: messages.DrillEntry | None) -> BackupState:
    """Return a judgement with the last restore drill: one that has failed is a warning."""
    if drill is None or drill.ok:
        return replace(judged, drill=drill)
    before = f"the last that was ok was at {drill.succeeded}" if drill.succeeded else "none was ever ok"
    said = f"the drill of @{drill.snapshot} at {drill.at} has failed ({before}): {drill.text}"
    why = "; ".join(filter(None, (judged.why, said)))
    return replace(judged, drill=drill, why=why, state=max(judged.state, NagiosState.WARNING))


def _doubts(about: messages.DatasetStatus, begun: float | None, ahead: float) -> Iterator[str]:
    """Yield the warnings about backups that are young enough. `begun`: seconds since the epoch."""
    if about.broken:
        yield (
            f"{about.broken} of its streams are damaged or lack a base (see `fullsend list {about.dataset}`,"
            " and `fullsend check`)"
        )
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
