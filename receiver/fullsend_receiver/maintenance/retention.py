"""Decides which stored streams stay. Pure: no I/O, no clock; docs/retention.md says what it promises.

The policy decides about snapshots, for each dataset and class by itself (a *history*). All whole streams of a snapshot
that stays stay, and everything on which a staying stream can build. So each staying snapshot can be restored after any
number of the deletions, in any order of them.

Order is the order of reception, time is the receiver's clock at reception (`received`, the commit). Not `begun`: a
sender chooses how long after it the stream is complete, so it could place a stream in a period that is over. Periods
are those of UTC: no time zone and no summer time changes what stays. **The first stream of a period stays**, so nothing
that is received later replaces it. What seems to come from the future stays until then, and takes no other's place.

A dataset keeps its history by its name. A renamed dataset begins a new one, and its increments keep their bases under
the old name. A GUID does not join two names: a clone, a replica or an image and its clones share GUIDs, all of them are
alive, and each must keep its own days.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Final, Literal, NamedTuple, TypeVar

from fullsend_protocol.format.chains import Forest, reception
from fullsend_protocol.shared.units import parse_time, plural
from fullsend_protocol.stream.facts import StreamClass
from fullsend_receiver.access.policies import PERIODS, Period, Policy
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.maintenance.thinning import Candidates, Merge, Thinning, find_merges
from fullsend_receiver.store.locks import lock_end

#: The newest snapshots of each history on which the ZFS host may build its next increment.
_NEWEST: Final = 2
#: Of a time as in manifests, the characters that name the period.
_LENGTHS: Final = {"yearly": 4, "monthly": 7, "daily": 10, "hourly": 13}

_ODD_TIME: Final = "keep: its time cannot be read, or is in the future"

_T = TypeVar("_T")


class Action(Enum):
    """What happens to a stream. MERGE: its records go into the stream that builds on it (`thinning`)."""

    KEEP = "keep"
    DROP = "drop"
    MERGE = "merge"


#: What decided about a stream: a rule of the policy, or what holds without one. "damaged": the newest of its history is
#: damaged; "lock": no rule keeps it, but the bucket does; "not restorable": a rule would keep it if all were
#: restorable; "base": it stays for another stream alone; "stopped": the caller forbids its removal; "time": its time
#: cannot be read, or is in the future; "unproven": it waits until a ZFS host has proven a merge; "superseded": it goes,
#: since it was merged into a stored one; "none": it goes.
Rule = Literal[
    "yearly",
    "monthly",
    "weekly",
    "daily",
    "hourly",
    "within",
    "last",
    "pin",
    "lease",
    "lock",
    "newest",
    "minimum-count",
    "minimum-age",
    "damaged",
    "not restorable",
    "base",
    "no policy",
    "stopped",
    "time",
    "unproven",
    "superseded",
    "none",
]


#: What stays for these reasons is not merged, even if a rule keeps it, too.
_UNTOUCHED: Final[frozenset[Rule]] = frozenset(
    {"pin", "lease", "lock", "newest", "damaged", "not restorable", "no policy", "stopped", "time", "unproven"}
)


@dataclass(frozen=True, slots=True)
class Pin:
    """A stream that an administrator keeps. `file`: its `.zst`, relative to the store; `until`: a time as in manifests,
    None: for ever.
    """

    file: str
    until: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A snapshot that somebody needs now: the base of a partial, or what a restore reads. `by`: who, for people;
    `chain`: the streams below it are being read, too, so none of them is merged.
    """

    guid: str
    by: str
    chain: bool = False


class Decision(NamedTuple):
    """What happens to a stream, and why, in one line such as `keep daily 2026-11-03`."""

    stream: Summary
    action: Action
    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True)
class HeldChain:
    """The chain of a history's newest snapshot, where it contains streams that stay only as bases.

    `streams`: its length; `since`: when its full was received; `held`: streams in it that no rule keeps, `held_bytes`:
    their stored bytes.
    """

    dataset: str
    stream_class: StreamClass
    streams: int
    since: str
    held: int
    held_bytes: int

    @property
    def reason(self) -> str:
        """Why nothing of it goes."""
        return (
            f"{self.dataset}: chain of {plural(self.streams, 'stream')} since {self.since[:10]}:"
            " nothing can go before a new full, or a merge"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions about the streams of one part.

    `decisions`: one for each stream, descendants before their bases: the order of removal; `held`: why nothing, or not
    more, goes; `merges`: what becomes one stream, after the removals.
    """

    decisions: tuple[Decision, ...]
    held: tuple[HeldChain, ...] = ()
    merges: tuple[Merge, ...] = ()

    @property
    def drops(self) -> list[Decision]:
        """What goes, in the order of removal."""
        return [each for each in self.decisions if each.action is Action.DROP]

    @property
    def freed(self) -> int:
        """Stored bytes of what goes."""
        return sum(each.stream.stored_bytes for each in self.drops)


#: The place of a stream in the order of reception; it begins as chains.reception does, and no two are the same.
_Place = tuple[int, str, str]


class _State(NamedTuple):
    """A snapshot in a history. `at`: the time by which the rules judge it, as in manifests; `time`: the same, seconds
    since the epoch, None: cannot be read.
    """

    at: str
    time: float | None
    streams: list[Summary]


class _Facts(NamedTuple):
    """What the decisions depend on beside the policy. `since`: the restorable files, and when they became that."""

    since: Mapping[Hashable, _Place]
    damaged: AbstractSet[str]
    now: float


@dataclass(slots=True)
class _Kept:
    """What stays, by file; of several reasons the first one. `untouched`: the files that no merge may touch."""

    why: dict[str, tuple[Rule, str]] = field(default_factory=dict)
    untouched: set[str] = field(default_factory=set)

    def add(self, streams: Iterable[Summary], rule: Rule, reason: str) -> None:
        for each in streams:
            self.why.setdefault(each.path, (rule, reason))
            if rule in _UNTOUCHED:
                self.untouched.add(each.path)


def plan(
    streams: Iterable[Summary],
    policy_of: Callable[[str], Policy | None],
    *,
    now: float,
    leases: Iterable[Lease] = (),
    pins: Iterable[Pin] = (),
    locks: Mapping[str, float] | None = None,
    damaged: AbstractSet[str] = frozenset(),
    stopped: Mapping[str, str] | None = None,
    thinning: Thinning | None = None,
    superseded: Mapping[str, str] | None = None,
    unproven: Mapping[str, str] | None = None,
) -> Plan:
    """Decide about all streams of one part: the datasets of one sender whose streams build on one another.

    `policy_of`: the policy of a dataset, None: it keeps all; `now`: seconds since the epoch; `locks`: by file, the end
    of what keeps it in the store, as `Store.locked`; `damaged`: the files that are damaged or missing; `stopped`:
    datasets of which nothing may go, and why: their bases in all datasets stay, too; `thinning`: what may be merged,
    None: nothing; `superseded`: the files of streams that were merged, each with the name of the result, which is
    stored; `unproven`: the same of results that a ZFS host must prove first, themselves included.
    """
    every = Forest(streams, order=_place, key=attrgetter("path"))
    leases, pinned = list(leases), _in_force(pins, now)
    locked = locks or {}

    def judged(forest: Forest[Summary]) -> tuple[_Kept, _Facts]:
        """Return what stays of these for another reason than as a base."""
        facts = _Facts(forest.restorable_since(lambda each: each.path not in damaged), damaged, now)
        kept = _Kept()
        _hold(kept, forest, leases, pinned)
        for each in forest.streams:
            if (result := (unproven or {}).get(each.path)) is not None:
                kept.add([each], "unproven", f"keep: until `fullsend prove` has proven {result}")
        for (dataset, _class), history in _histories(forest).items():
            policy = policy_of(dataset)
            why = (stopped or {}).get(dataset)
            if why is not None:
                kept.add(history, "stopped", f"keep: {why}")
            if policy is None:
                kept.add(history, "no policy", "keep: no policy matches")
            else:
                _judge(kept, history, policy, facts)
        for each in forest.streams if locked else ():
            if each.path in locked:
                kept.add([each], "lock", f"keep: locked until {lock_end(locked[each.path])}")
        return kept, facts

    useless = _useless(every, superseded, *judged(every)) if superseded else {}
    forest = Forest([each for each in every.streams if each.path not in useless], order=_place, key=attrgetter("path"))
    kept, facts = judged(forest)
    histories = _histories(forest)
    _keep_bases(kept, forest)
    decisions = [
        Decision(each, Action.DROP, "superseded", f"drop: merged into {useless[each.path]}")
        if each.path in useless
        else _decide(kept, each, restorable=each.path in facts.since)
        for each in _removal_order(every)
    ]
    if thinning is None:
        held = (_held_chain(kept, forest, history, facts) for history in histories.values())
        return Plan(tuple(decisions), tuple(each for each in held if each is not None))
    merges, stays = find_merges(forest, _candidates(kept, decisions, facts), thinning)
    into = {each.path: merge.target for merge in merges for each in merge.inputs[:-1]}
    return Plan(tuple(_thinned(each, into, stays) for each in decisions), merges=tuple(merges))


def _place(stream: Summary) -> _Place:
    return *reception(stream), stream.path


def _useless(every: Forest[Summary], superseded: Mapping[str, str], kept: _Kept, facts: _Facts) -> dict[str, str]:
    """Return those of the superseded streams without which the same can be restored, and of which nothing forbids that
    they go. `kept`, `facts`: as if none of them were superseded.
    """

    def is_stored_twice(stream: Summary) -> bool:
        """Whether a snapshot is restorable without the superseded streams, as one of the same history."""
        return any(
            (each.dataset, each.stream_class) == (stream.dataset, stream.stream_class)
            for each in every.of_guid(stream.guid)
            if each.path not in superseded and each.path in facts.since
        )

    streams = [
        each
        for each in every.streams
        if each.path in superseded
        and each.path not in kept.untouched
        and (each.path not in kept.why or is_stored_twice(each))
    ]
    found = {each.path: superseded[each.path] for each in streams}
    while True:
        needed = {each.path for each in streams if _is_only_base(every, each, found)}
        if needed.isdisjoint(found):
            return found
        found = {path: by for path, by in found.items() if path not in needed}


def _is_only_base(every: Forest[Summary], stream: Summary, found: Mapping[str, str]) -> bool:
    """Whether a stream that stays builds on this one, and on no other that stays."""
    return any(
        stream in (bases := every.bases(each)) and all(base.path in found for base in bases)
        for each in every.built_on(stream.guid)
        if each.path not in found
    )


def _hold(kept: _Kept, forest: Forest[Summary], leases: Iterable[Lease], pinned: Mapping[str, Pin]) -> None:
    """Keep what is pinned or leased."""
    for each in forest.streams if pinned else ():
        pin = pinned.get(each.path)
        if pin is not None:
            note = f" ({pin.note})" if pin.note else ""
            reason = f"keep: pinned until {pin.until}{note}" if pin.until else f"keep: pinned{note}"
            kept.add([each], "pin", reason)
    for lease in leases:
        leased = forest.of_guid(lease.guid)
        kept.add(leased, "lease", f"keep: leased by {lease.by}")
        if lease.chain:
            below = {guid for each in leased for guid in forest.lineage(each)}
            kept.untouched |= {each.path for guid in below for each in forest.of_guid(guid)}


def _in_force(pins: Iterable[Pin], now: float) -> dict[str, Pin]:
    """Return the pins that have not ended, by file. An end that cannot be read never comes."""
    ends = ((pin, None if pin.until is None else parse_time(pin.until)) for pin in pins)
    return {pin.file: pin for pin, end in ends if end is None or end > now}


def _histories(forest: Forest[Summary]) -> dict[tuple[str, StreamClass], list[Summary]]:
    """Return the streams of each dataset and class, in the order of reception."""
    found: dict[tuple[str, StreamClass], list[Summary]] = {}
    for each in forest.streams:
        found.setdefault((each.dataset, each.stream_class), []).append(each)
    return found


def _judge(kept: _Kept, history: list[Summary], policy: Policy, facts: _Facts) -> None:
    """Keep what the policy keeps of a history."""
    since, now = facts.since, facts.now
    good = [each for each in history if each.path in since]
    placed = [(since[each.path], each) for each in good]
    states = _states(placed, policy.time)
    newest = max((state.time for state in states if state.time is not None and state.time <= now), default=now)
    for streams, rule, period in _by_rules(states, policy, newest, now):
        kept.add(streams, rule, _ODD_TIME if rule == "time" else f"keep {rule} {period}".rstrip())
    kept.add(_pushed_last(good), "newest", "keep: one of the two newest")
    floor = Policy(last=policy.minimum_count, daily=policy.minimum_count)
    received = states if policy.time == "received" else _states(placed, "received")
    for streams, _rule, _period in _by_rules(received, floor, newest, now):
        kept.add(streams, "minimum-count", "keep: minimum-count")
    kept.add(_young(history, policy.minimum_age, now), "minimum-age", "keep: minimum-age")
    if len(good) < len(history):
        # These take no place from what is restorable, and go when they would have gone anyway.
        everything = _states([(since.get(each.path) or _place(each), each) for each in history], policy.time)
        for streams, rule, period in _by_rules(everything, policy, newest, now):
            why = f"keep: {f'{rule} {period}'.rstrip()}, if all were restorable"
            kept.add(streams, "not restorable", _ODD_TIME if rule == "time" else why)
        last = history[-1]
        if not any(each.guid == last.guid for each in good):
            what = "is damaged" if last.path in facts.damaged else "cannot be restored"
            kept.add(history, "damaged", f"keep: newest sibling {what}")


def _states(streams: list[tuple[_Place, Summary]], time: Literal["received", "created"]) -> list[_State]:
    """Return the snapshots of these streams, in the order of their places."""
    found: dict[str, _State] = {}
    for place, each in sorted(streams, key=itemgetter(0)):
        if each.guid not in found:
            at = place[1] if time == "received" else each.created
            found[each.guid] = _State(at, parse_time(at), [])
        found[each.guid].streams.append(each)
    return list(found.values())


def _by_rules(
    states: list[_State], policy: Policy, newest: float, now: float
) -> Iterator[tuple[list[Summary], Rule, str]]:
    """Yield what the rules keep: the streams of a snapshot, the rule, and its period. `newest`: `within` counts back
    from this time.

    What seems to come from the future stays, and takes no place: its clock was wrong, or this one is.
    """
    timed = [(state.time, state) for state in states if state.time is not None and state.time <= now]
    for state in states if len(timed) < len(states) else ():
        if state.time is None or state.time > now:
            yield state.streams, "time", ""
    for period in PERIODS:
        if policy.periods(period):
            first: dict[str, tuple[float, _State]] = {}
            for time, state in timed:
                first.setdefault(_label(period, state.at), (time, state))
            in_time = sorted(first.items(), key=lambda item: item[1][0])
            for label, (_time, state) in _last(in_time, policy.periods(period)):
                yield state.streams, period, label
    for time, state in timed if policy.within else ():
        if time > newest - policy.within:
            yield state.streams, "within", ""
    for state in _last(states, policy.last):
        yield state.streams, "last", ""


def _young(history: list[Summary], age: float, now: float) -> list[Summary]:
    """Return the first stream that is younger, and all that were received after it, whatever the clock said then."""
    times = (parse_time(each.received) for each in history)
    young = (place for place, time in enumerate(times) if time is not None and 0.0 <= now - time < age)
    return history[next(young, len(history)) :]


def _last(items: Sequence[_T], count: int) -> Sequence[_T]:
    return items[max(0, len(items) - count) :]


def _label(period: Period, at: str) -> str:
    """Return the name of the period of a time, in UTC. Beyond year 9999 each second is one."""
    if at.startswith("@"):
        return at
    if period == "weekly":
        year, week, _day = date.fromisoformat(at[: _LENGTHS["daily"]]).isocalendar()
        return f"{year}-W{week:02}"
    return at[: _LENGTHS[period]]


def _pushed_last(history: Sequence[Summary]) -> list[Summary]:
    """Return the streams of the two snapshots that were received last: also one that was received again."""
    guids: set[str] = set()
    for each in reversed(history):
        guids.add(each.guid)
        if len(guids) == _NEWEST:
            break
    return [each for each in history if each.guid in guids]


def _keep_bases(kept: _Kept, forest: Forest[Summary]) -> None:
    """Keep all on which a staying stream can build, and the other streams of its snapshot: without the first of these,
    the next plan would take it for a later one. The reason names a stream that stays for another reason.
    """
    direct = [each for each in forest.streams if each.path in kept.why]
    for each in sorted(direct, key=_place, reverse=True):
        name = f"{each.dataset}@{each.snapshot}"
        todo = [each]
        while todo:
            here = todo.pop()
            history = (here.dataset, here.stream_class)
            copies = [other for other in forest.of_guid(here.guid) if (other.dataset, other.stream_class) == history]
            bases = [other for other in forest.bases(here) if other.path not in kept.why]
            kept.add(bases, "base", f"keep: base of {name}")
            copies = [other for other in copies if other.path not in kept.why]
            kept.add(copies, "base", f"keep: same snapshot as {here.path}")
            todo += bases + copies


def _removal_order(forest: Forest[Summary]) -> list[Summary]:
    """Return all streams, each before its bases; within a circle, which only forged streams make, in any order."""
    found: list[Summary] = []
    seen: set[str] = set()
    for first in forest.streams:
        todo = [(first, iter(forest.bases(first)))] * (first.path not in seen)
        seen.add(first.path)
        while todo:
            here, bases = todo[-1]
            base = next((each for each in bases if each.path not in seen), None)
            if base is None:
                found.append(here)
                todo.pop()
            else:
                seen.add(base.path)
                todo.append((base, iter(forest.bases(base))))
    return found[::-1]


def _decide(kept: _Kept, stream: Summary, *, restorable: bool) -> Decision:
    if stream.path in kept.why:
        return Decision(stream, Action.KEEP, *kept.why[stream.path])
    reason = "drop: no rule" if restorable else "drop: no rule, and not restorable"
    return Decision(stream, Action.DROP, "none", reason)


def _candidates(kept: _Kept, decisions: Iterable[Decision], facts: _Facts) -> Candidates:
    return Candidates(
        only_bases={path for path, (rule, _reason) in kept.why.items() if rule == "base"},
        untouchable=kept.untouched | facts.damaged,
        going={each.stream.path for each in decisions if each.action is Action.DROP},
        restorable=facts.since.keys(),
    )


def _thinned(decision: Decision, into: Mapping[str, Summary], why: Mapping[str, str]) -> Decision:
    """Return the decision about a stream, with what merging says about it."""
    path = decision.stream.path
    if path in into:
        return decision._replace(action=Action.MERGE, reason=f"merge: into {into[path].snapshot}")
    return decision._replace(reason=f"{decision.reason}: {why[path]}") if path in why else decision


def _held_chain(kept: _Kept, forest: Forest[Summary], history: list[Summary], facts: _Facts) -> HeldChain | None:
    """Return the chain of a history's newest restorable snapshot, if something in it stays only as a base."""
    newest = next((each for each in reversed(history) if each.path in facts.since), None)
    chain = newest and forest.chain(newest, lambda each: each.path not in facts.damaged)
    if not chain:
        return None
    only_bases = [each for each in chain if kept.why[each.path][0] == "base"]
    if not only_bases:
        return None
    held_bytes = sum(each.stored_bytes for each in only_bases)
    return HeldChain(
        *(chain[-1].dataset, chain[-1].stream_class, len(chain), chain[0].received, len(only_bases), held_bytes)
    )
