"""Retention: what stays of made-up histories, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.histories import (
    DATASETS,
    DAY,
    START,
    World,
    policies,
    restorable,
    stream,
    streams,
    worlds,
)

from fullsend_protocol.format.chains import Forest, reception
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.policies import PERIODS, Period, Policy
from fullsend_receiver.maintenance.retention import Action, Plan, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_receiver.catalogue.rows import Summary


def fulls(count: int) -> list[Summary]:
    """Return a full a day."""
    return [stream(number) for number in range(count)]


def chain(count: int) -> list[Summary]:
    """Return a full, and an increment a day on the day before."""
    return [stream(number, number - 1 if number else None) for number in range(count)]


def decide(streams: Sequence[Summary], policy: Policy | None, *, now: float | None = None, **changes: Any) -> Plan:
    """Plan a year after START, unless `now` says otherwise."""
    return plan(streams, lambda _dataset: policy, now=START + 365 * DAY if now is None else now, **changes)


def reasons(planned: Plan) -> dict[str, str]:
    """Return the reasons, by snapshot, in the order of the names."""
    return {each.stream.snapshot: each.reason for each in planned.decisions}


def test_the_first_snapshot_of_a_period_stays() -> None:
    hours = [stream(number, at=START + number * DAY / 4) for number in range(12)]
    found = reasons(decide(hours, Policy(daily=2, minimum_count=0)))
    assert found["s4"] == "keep daily 2026-11-02"
    assert found["s8"] == "keep daily 2026-11-03"
    assert [found[f"s{number}"] for number in (0, 5, 6, 7, 9)] == ["drop: no rule"] * 5
    assert found["s11"] == "keep: one of the two newest"


def test_a_chain_stays_as_a_whole_and_the_plan_says_why() -> None:
    planned = decide(chain(30), Policy(daily=7))
    assert planned.drops == []
    assert planned.freed == 0
    assert reasons(planned)["s0"] == "keep: base of tank/home@s23"
    assert [each.reason for each in planned.held] == [
        "tank/home: chain of 30 streams since 2026-11-01: nothing can go before a new full, or a merge"
    ]
    assert (planned.held[0].held, planned.held[0].held_bytes) == (23, 2300)


def test_descendants_go_before_their_bases() -> None:
    planned = decide([*chain(20), *(stream(number) for number in range(20, 40))], Policy(last=1))
    gone = [each.stream.snapshot for each in planned.drops]
    assert gone.index("s19") < gone.index("s0")
    assert planned.freed == 37 * 100


def test_without_a_policy_all_stays() -> None:
    planned = decide(fulls(9), None)
    assert planned.drops == []
    assert reasons(planned)["s0"] == "keep: no policy matches"


# --- properties over random histories ---------------------------------------------------------------------------


def _prefixes(planned: Plan) -> list[list[Summary]]:
    """Return what is gone after each deletion, and before the first."""
    gone = [each.stream for each in planned.drops]
    return [gone[:count] for count in range(len(gone) + 1)]


def _kept(planned: Plan) -> set[str]:
    return {each.stream.path for each in planned.decisions if each.action is Action.KEEP}


@given(worlds())
def test_each_stream_has_one_decision(world: World) -> None:
    planned = world.plan()
    assert sorted(each.stream.path for each in planned.decisions) == sorted(each.path for each in world.streams)
    assert {each.action for each in planned.decisions} <= {Action.KEEP, Action.DROP}
    assert planned.freed == 100 * len(planned.drops)
    for each in planned.decisions:
        assert each.reason.startswith(each.action.value)
        assert (each.rule == "none") == (each.action is Action.DROP)


@given(worlds())
def test_what_stays_is_restorable_after_each_deletion(world: World) -> None:
    planned = world.plan()
    kept = world.restorable & _kept(planned)
    for gone in _prefixes(planned):
        assert kept <= world.without(gone).restorable


@given(worlds())
def test_a_stream_goes_before_its_bases(world: World) -> None:
    forest = Forest(world.streams, order=reception, key=lambda each: each.path)
    order = {each.stream.path: place for place, each in enumerate(world.plan().decisions)}
    if not world.has_circle:
        for each in world.streams:
            assert all(order[each.path] < order[base.path] for base in forest.bases(each))


@given(worlds())
def test_each_history_keeps_a_restorable_stream(world: World) -> None:
    kept = _kept(world.plan())
    for history in world.histories().values():
        good = {each.path for each in history} & world.restorable
        assert not good or good & kept


@given(worlds())
def test_the_floors_hold(world: World) -> None:
    kept = _kept(world.plan())
    assert {pin.file for pin in world.pins if pin.until != format_time(START) or world.now < START} <= kept
    for lease in world.leases:
        assert {each.path for each in world.streams if each.guid == lease.guid} <= kept
    for (dataset, _class), history in world.histories().items():
        policy = world.policies[dataset]
        if policy is None or dataset in world.stopped:
            assert {each.path for each in history} <= kept
            continue
        good = [each for each in history if each.path in world.restorable]
        last_pushed = list(dict.fromkeys(each.guid for each in reversed(good)))
        assert {each.path for each in good if each.guid in last_pushed[:2]} <= kept
        assert len({each.guid for each in good if each.path in kept}) >= min(len(last_pushed), policy.minimum_count)
        young = [each for each in history if world.now - (parse_time(each.received) or 0.0) < policy.minimum_age]
        assert {each.path for each in young} <= kept
        if history[-1].guid not in last_pushed:
            assert {each.path for each in history} <= kept


@given(worlds())
def test_the_plan_after_any_deletion_is_the_rest_of_the_plan(world: World) -> None:
    planned = world.plan()
    for gone in _prefixes(planned):
        again = {each.stream.path for each in world.without(gone).plan().drops}
        rest = {each.stream.path for each in planned.drops} - {each.path for each in gone}
        assert again <= rest
        assert again == rest or world.has_circle


@given(worlds(), st.permutations(DATASETS))
def test_datasets_pruned_one_by_one_end_as_all_at_once(world: World, order: list[str]) -> None:
    at_once = _kept(world.plan())
    for dataset in order * 3:
        others = {each: "not now" for each in DATASETS if each != dataset}
        drops = replace(world, stopped=others | world.stopped).plan().drops
        world = world.without(each.stream for each in drops)
    assert {each.path for each in world.streams} == at_once or world.has_circle


@given(worlds())
def test_a_policy_that_keeps_more_drops_nothing_else(world: World) -> None:
    """Adding one to a rule never makes a stream go."""
    dropped = {each.stream.path for each in world.plan().drops}
    more = {
        name: each and replace(each, daily=each.daily + 1, last=each.last + 1) for name, each in world.policies.items()
    }
    assert {each.stream.path for each in replace(world, policies=more).plan().drops} <= dropped


# --- what later pushes change -----------------------------------------------------------------------------------


def _since(found: Sequence[Summary], damaged: frozenset[str]) -> dict[str, tuple[int, str]]:
    """Return when each file became restorable, by trying each prefix of the receptions."""
    since: dict[str, tuple[int, str]] = {}
    ordered = sorted(found, key=lambda each: (reception(each), each.path))
    for count in range(1, len(ordered) + 1):
        for path in restorable(ordered[:count], damaged):
            since.setdefault(path, reception(ordered[count - 1]))
    return since


def _labels(found: Sequence[Summary], damaged: frozenset[str], whose: tuple[str, str], period: Period) -> set[str]:
    """Return the periods in which a history has a snapshot that could be restored then."""
    since = _since(found, damaged)
    mine = [each for each in found if (each.dataset, each.stream_class) == whose and each.path in since]
    first: dict[str, tuple[int, str]] = {}
    for each in sorted(mine, key=lambda each: since[each.path]):
        first.setdefault(each.guid, since[each.path])
    return {_period_of(at, period) for _sequence, at in first.values()}


def _period_of(at: str, period: Period) -> str:
    if period == "weekly":
        week = int(((parse_time(at) or 0.0) / DAY + 3) // 7)  # 1970-01-01 was a Thursday, weeks begin on Monday
        return str(week)
    return at[: {"yearly": 4, "monthly": 7, "daily": 10, "hourly": 13}[period]]


@given(worlds(), st.data(), st.sampled_from(PERIODS), st.integers(1, 3))
def test_a_later_push_replaces_nothing(world: World, data: st.DataObject, period: Period, count: int) -> None:
    """Of the snapshots that a rule keeps, later pushes move out exactly as many of the first as they begin periods."""
    later = data.draw(streams(after=world.streams, at=START + 10 * DAY))
    both = (*world.streams, *later)
    restorable_then = world.restorable
    for whose in world.histories():

        def winners(found: Sequence[Summary], kept: int, whose: tuple[str, str] = whose) -> list[str]:
            policy = Policy(**{period: kept}, minimum_count=0, minimum_age=0)  # type: ignore[arg-type]
            planned = replace(world, streams=tuple(found)).under(policy).plan()
            mine = [each.stream for each in planned.decisions if each.rule == period]
            mine = [each for each in mine if (each.dataset, each.stream_class) == whose]
            since = _since(found, world.damaged)
            mine = [each for each in mine if each.path in restorable_then]
            return list(
                dict.fromkeys(each.guid for each in sorted(mine, key=lambda each: (since[each.path], each.path)))
            )

        begun = _labels(both, world.damaged, whose, period) - _labels(world.streams, world.damaged, whose, period)
        all_before = winners(world.streams, 1000)
        before = winners(world.streams, count)
        assert before == all_before[-count:]
        staying = max(0, count - len(begun))
        assert winners(both, count) == all_before[len(all_before) - staying :]


@given(worlds(), st.data(), policies())
def test_what_one_night_can_push_out_is_bounded(world: World, data: st.DataObject, policy: Policy) -> None:
    policy = replace(policy, time="received")
    night = START + 400 * DAY
    later = data.draw(streams(after=world.streams, at=night, steps=(0, 1, 2)))
    before = replace(world.under(policy), now=night + DAY)
    after = replace(before, streams=(*before.streams, *later))
    direct = {each.stream.path for each in before.plan().decisions if each.rule not in {"base", "none"}}
    lost = {each.stream for each in after.plan().drops} - {each.stream for each in before.plan().drops}
    in_a_night = {"hourly": 25, "daily": 2, "weekly": 2, "monthly": 2, "yearly": 2}
    for (dataset, stream_class), history in before.histories().items():
        mine = {each for each in lost if each in history and each.path in direct & before.restorable}
        # What `within` lets go was received so long before the night.
        times = [parse_time(each.received) or 0.0 for each in later if each.dataset == dataset]
        old = {each for each in mine if (parse_time(each.received) or 0.0) <= max(times, default=0.0) - policy.within}
        counted = {each.guid for each in (old if policy.within else mine)}
        bound = sum(min(policy.periods(period), in_a_night[period]) for period in PERIODS)
        bound += policy.last + 2 * policy.minimum_count + 2
        within = [each for each in before.plan().decisions if each.rule == "within" and each.stream in mine]
        assert len(counted) <= bound + len(within), (dataset, stream_class)
