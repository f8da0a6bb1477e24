"""Made-up histories of stored streams, for what decides about them without the disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypothesis import strategies as st

from fullsend_protocol.format.chains import Forest, reception
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.stream.facts import class_of
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.maintenance.retention import Lease, Pin, Plan, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fullsend_receiver.maintenance.thinning import Thinning

_T = TypeVar("_T")

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
#: 2026-11-01 is a Sunday.
START: Final = parse_time("2026-11-01T02:00:00Z") or 0.0
DATASETS: Final = ("tank/a", "tank/b")
#: Hours from one reception to the next. Clocks jump, in both directions.
#: Of the numbers from 0 to 9. Hypothesis draws both ends more often.
_RARE: Final = 4
STEPS: Final = (0, 1, 7, 24, 24, 24, 30, 24 * 8, 24 * 40, -24 * 3, 24 * 500, -24 * 500)


def stream(number: int, base: int | None = None, *, at: float | None = None, **changes: Any) -> Summary:
    """Return a stream of the snapshot `number`, received `number` days after START unless `at` says otherwise."""
    received = format_time(START + number * DAY if at is None else at)
    dataset = changes.get("dataset", "tank/home")
    values: dict[str, Any] = {
        "path": f"alpha/{dataset}/@{number:06}.zfs.zst",
        "sender": "alpha",
        "dataset": dataset,
        "snapshot": f"s{number}",
        "guid": str(1000 + number),
        "base_guid": None if base is None else str(1000 + base),
        "kind": "full" if base is None else "incremental",
        "dataset_type": "filesystem",
        "stream_class": class_of(changes.get("flags", "")),
        "flags": "",
        "created": received,
        "received": received,
        "begun": received,
        "sequence": number + 1,
        "raw_bytes": 200,
        "stored_bytes": 100,
        "sha256": None,
        "lost_spill_count": 0,
    }
    return Summary(**values | changes)


@dataclass(frozen=True)
class World:
    """All that a plan depends on."""

    streams: tuple[Summary, ...]
    policies: dict[str, Policy | None]
    now: float
    damaged: frozenset[str] = frozenset()
    pins: tuple[Pin, ...] = ()
    leases: tuple[Lease, ...] = ()
    stopped: dict[str, str] = field(default_factory=dict)

    def plan(self, thinning: Thinning | None = None, superseded: Mapping[str, str] | None = None) -> Plan:
        return plan(
            self.streams,
            self.policies.get,
            now=self.now,
            damaged=self.damaged,
            pins=self.pins,
            leases=self.leases,
            stopped=self.stopped,
            thinning=thinning,
            superseded=superseded or {},
        )

    def without(self, gone: Iterable[Summary]) -> World:
        """Return the world after these were removed."""
        paths = {each.path for each in gone}
        return replace(self, streams=tuple(each for each in self.streams if each.path not in paths))

    def under(self, policy: Policy) -> World:
        """Return the same streams with another policy, and nothing else that keeps any."""
        return replace(self, policies=dict.fromkeys(DATASETS, policy), pins=(), leases=(), stopped={})

    @property
    def restorable(self) -> set[str]:
        """The files that can be restored."""
        return restorable(self.streams, self.damaged)

    def histories(self) -> dict[tuple[str, str], list[Summary]]:
        """Return the streams of each dataset and class, in the order of reception."""
        found: dict[tuple[str, str], list[Summary]] = {}
        for each in sorted(self.streams, key=lambda each: (reception(each), each.path)):
            found.setdefault((each.dataset, each.stream_class), []).append(each)
        return found

    @property
    def has_circle(self) -> bool:
        """Whether a snapshot builds on itself: only forged streams do."""
        bases: dict[str, set[str]] = {}
        for each in self.streams:
            bases.setdefault(each.guid, set()).update({each.base_guid} - {None})  # type: ignore[arg-type]
        reach = {guid: set(found) for guid, found in bases.items()}
        for _ in reach:
            for found in reach.values():
                found.update(*(reach.get(base, ()) for base in set(found)))
        return any(guid in found for guid, found in reach.items())


def restorable(streams: Sequence[Summary], damaged: frozenset[str]) -> set[str]:
    """Return the files of the streams that can be restored."""
    forest = Forest(streams, order=reception, key=lambda each: each.path)
    return {here.path for here, _base in forest.ways(lambda each: each.path not in damaged)}


def _mostly(usual: st.SearchStrategy[_T], other: st.SearchStrategy[_T]) -> st.SearchStrategy[_T]:
    """Draw `other` once in ten times: with more of it, hardly any world would have a stream that may go."""
    return st.integers(0, 9).flatmap(lambda number: other if number == _RARE else usual)


@st.composite
def streams(
    draw: st.DrawFn, *, after: Sequence[Summary] = (), at: float = START, steps: Sequence[int] = STEPS
) -> list[Summary]:
    """Draw streams received one after another from `at` on: branches, orphans, circles, copies, classes and flags.

    `after`: those that were received before them.
    """
    found: list[Summary] = []
    numbered = draw(st.sampled_from([0, 0, 3]))  # before this one, an older fullsendd gave no numbers
    for number in range(len(after), len(after) + draw(st.integers(8, 13))):
        at = max(0.0, at + HOUR * draw(st.sampled_from(steps)))
        earlier = st.integers(max(0, number - 3), max(0, number - 1))
        base = draw(_mostly(st.none() | earlier, st.integers(0, number + 2)))
        guid = draw(_mostly(st.just(number), st.integers(0, number + 2)))
        found.append(
            stream(
                number,
                base,
                at=at,
                guid=str(1000 + guid),
                dataset=draw(_mostly(st.just(DATASETS[0]), st.just(DATASETS[1]))),
                kind="package" if draw(st.integers(0, 9)) == _RARE else "full" if base is None else "incremental",
                flags=draw(_mostly(st.just(""), st.sampled_from(["L", "w"]))),
                sequence=number + 1 if after or number >= numbered else None,
                created=format_time(at + HOUR * draw(st.sampled_from(STEPS))),
            )
        )
    return found


def policies() -> st.SearchStrategy[Policy]:
    """Return a strategy of policies."""
    count = st.sampled_from([0, 0, 0, 1, 2, 3])
    return st.builds(
        Policy,
        last=count,
        within=st.sampled_from([0.0, 0.0, DAY, 9 * DAY]),
        hourly=count,
        daily=count,
        weekly=count,
        monthly=count,
        yearly=count,
        minimum_count=st.sampled_from([0, 0, 1, 3]),
        minimum_age=st.sampled_from([0.0, 0.0, 2 * DAY]),
        time=_mostly(st.just("received"), st.just("created")),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw streams, policies, and whatever else keeps streams or makes them useless."""
    found = draw(streams())
    some = _mostly(st.just([]), st.lists(st.sampled_from(found), min_size=1, max_size=3))
    until = st.none() | st.sampled_from([format_time(START), format_time(START + 900 * DAY), "soon"])
    return World(
        streams=tuple(draw(st.permutations(found))),
        policies={dataset: draw(_mostly(policies(), st.none())) for dataset in DATASETS},
        now=START + DAY * draw(st.sampled_from([600, 600, 60, 0])),
        damaged=frozenset(each.path for each in draw(some | some | st.lists(st.sampled_from(found), max_size=3))),
        pins=tuple(Pin(each.path, draw(until)) for each in draw(some)[:1]),
        leases=tuple(Lease(each.base_guid or each.guid, "a test") for each in draw(some)[:1]),
        stopped=draw(_mostly(st.just({}), st.just({DATASETS[0]: "stopped"}))),
    )
