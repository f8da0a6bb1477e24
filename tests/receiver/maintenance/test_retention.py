"""Retention: what stays of made-up histories, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.histories import (
    DATASETS,
    DAY,
    HOUR,
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
from fullsend_receiver.maintenance.retention import Action, Lease, Pin, Plan, Rule, plan

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


def kept(planned: Plan) -> list[str]:
    """Return the names of the snapshots that stay, in order."""
    return sorted(
        {each.stream.snapshot for each in planned.decisions if each.action is Action.KEEP},
        key=lambda name: int(name[1:]),
    )


#: Two snapshots stay always; this policy adds nothing.
NOTHING = Policy(minimum_count=0, minimum_age=0)


# --- the rules --------------------------------------------------------------------------------------------------


def test_the_first_snapshot_of_a_day_stays() -> None:
    hours = [stream(number, at=START + number * 6 * HOUR) for number in range(12)]
    found = reasons(decide(hours, replace(NOTHING, daily=2)))
    assert found["s4"] == "keep daily 2026-11-02"
    assert found["s8"] == "keep daily 2026-11-03"
    assert [found[f"s{number}"] for number in (0, 5, 6, 7, 9)] == ["drop: no rule"] * 5
    assert found["s11"] == "keep: one of the two newest"


@pytest.mark.parametrize(
    ("rule", "step", "stay", "label"),
    [
        # 2026-11-01T02:00:00Z is a Sunday: the second week begins on the next day.
        ("hourly", HOUR / 2, ["s10", "s12", "s14", "s15"], "2026-11-01T09"),
        ("daily", DAY / 2, ["s10", "s12", "s14", "s15"], "2026-11-08"),
        ("weekly", DAY, ["s1", "s8", "s14", "s15"], "2026-W46"),
        ("monthly", 10 * DAY, ["s7", "s10", "s12", "s14", "s15"], "2027-03"),
        ("yearly", 150 * DAY, ["s8", "s11", "s13", "s14", "s15"], "2032"),
    ],
)
def test_each_period(rule: Period, step: float, stay: list[str], label: str) -> None:
    policy = Policy(**{rule: 3}, minimum_count=0, minimum_age=0)  # type: ignore[arg-type]
    planned = decide([stream(number, at=START + number * step) for number in range(16)], policy, now=START + 9000 * DAY)
    assert kept(planned) == stay
    assert f"keep {rule} {label}" in reasons(planned).values()


def test_last_and_within() -> None:
    assert kept(decide(fulls(20), replace(NOTHING, last=4))) == ["s16", "s17", "s18", "s19"]
    found = decide(fulls(20), replace(NOTHING, within=3 * DAY))
    assert kept(found) == ["s17", "s18", "s19"]
    assert reasons(found)["s17"] == "keep within"
    assert reasons(decide(fulls(20), replace(NOTHING, last=4)))["s16"] == "keep last"


def test_the_rules_add_up_and_the_longest_period_is_named() -> None:
    found = reasons(decide(fulls(70), replace(NOTHING, last=1, daily=2, monthly=3)))
    assert found["s0"] == "keep monthly 2026-11"
    assert found["s30"] == "keep monthly 2026-12"
    assert found["s68"] == "keep daily 2027-01-08"
    assert sorted(name for name in found if found[name] != "drop: no rule") == ["s0", "s30", "s61", "s68", "s69"]


def test_days_without_a_backup_do_not_count() -> None:
    some = [stream(number) for number in (0, 1, 5, 40, 90, 91)]
    assert kept(decide(some, replace(NOTHING, daily=4))) == ["s5", "s40", "s90", "s91"]


def test_a_dataset_that_stopped_keeps_its_last_good_ones() -> None:
    policy = replace(NOTHING, within=3 * DAY, daily=4)
    for years in (1, 10):
        assert kept(decide(fulls(9), policy, now=START + years * 365 * DAY)) == ["s5", "s6", "s7", "s8"]


def test_many_snapshots_of_one_day_are_one_days() -> None:
    first = [stream(number, at=START, created=format_time(START - (30 - number) * DAY)) for number in range(30)]
    assert kept(decide(first, replace(NOTHING, daily=7))) == ["s0", "s28", "s29"]
    by_creation = decide(first, replace(NOTHING, daily=7, time="created"))
    assert kept(by_creation) == [f"s{number}" for number in range(23, 30)]
    assert reasons(by_creation)["s23"] == "keep daily 2026-10-25"


def test_the_sender_s_clock_decides_nothing() -> None:
    flood = [
        stream(100 + number, at=START + 9 * DAY, created=format_time(START + number * DAY)) for number in range(90)
    ]
    found = decide([*fulls(9), *flood], replace(NOTHING, daily=5))
    assert kept(found) == ["s5", "s6", "s7", "s8", "s100", "s188", "s189"]


def test_what_seems_to_come_from_the_future_takes_no_place() -> None:
    ahead = [stream(10 + number, at=START + (3650 + number) * DAY) for number in range(5)]
    after = [stream(20 + number, at=START + (20 + number) * DAY) for number in range(3)]
    rules: list[dict[str, float]] = [{"daily": 4}, {"within": 15 * DAY}, {"minimum_count": 4}]
    for rule in rules:
        policy = replace(NOTHING, **rule)  # type: ignore[arg-type]
        found = decide([*fulls(9), *ahead, *after], policy, now=START + 22 * DAY)
        assert kept(found) == ["s8", *(f"s{number}" for number in range(10, 15)), "s20", "s21", "s22"]
        assert reasons(found)["s10"] == "keep: its time cannot be read, or is in the future"


def test_a_clock_that_was_set_back_moves_nothing_out() -> None:
    back = [stream(20 + number, at=START + number * DAY) for number in range(9)]
    assert kept(decide([*fulls(9), *back], replace(NOTHING, daily=3))) == ["s6", "s7", "s8", "s27", "s28"]


def test_what_was_received_after_something_young_is_young() -> None:
    back = [stream(20 + number, at=number * DAY) for number in range(4)]  # the clock began at 1970
    found = decide([*fulls(9), *back], replace(NOTHING, minimum_age=2 * DAY), now=START + 9 * DAY)
    assert kept(found) == ["s8", "s20", "s21", "s22", "s23"]
    assert reasons(found)["s20"] == "keep: minimum-age"


def test_all_streams_of_a_snapshot_stay_together() -> None:
    """Otherwise the next plan would judge it by its second stream, which may be the first of another day."""
    again = stream(20, at=START + 10 * DAY, guid="1000")
    day = [again, stream(21, at=START + 10 * DAY + HOUR), *(stream(number) for number in range(22, 30))]
    world = World(
        (*fulls(9), *day), {"tank/home": replace(NOTHING, daily=9)}, START + 40 * DAY, pins=(Pin(again.path),)
    )
    planned = world.plan()
    assert reasons(planned)["s0"] == f"keep: same snapshot as {again.path}"
    assert world.without(each.stream for each in planned.drops).plan().drops == []


# --- what stays without a rule ----------------------------------------------------------------------------------


def test_the_two_newest_of_each_dataset_and_class() -> None:
    found = decide(
        [
            *fulls(4),
            *(stream(number, flags="w") for number in range(10, 14)),
            *(stream(number, dataset="tank/other") for number in range(20, 24)),
        ],
        NOTHING,
    )
    assert kept(found) == ["s2", "s3", "s12", "s13", "s22", "s23"]
    assert set(reasons(found).values()) == {"keep: one of the two newest", "drop: no rule"}


def test_a_snapshot_that_was_received_again_is_one_of_the_two_newest() -> None:
    again = stream(9, guid="1000", snapshot="s0")
    assert kept(decide([*fulls(5), again], NOTHING)) == ["s0", "s4"]


def test_the_minimum_count_holds_snapshots_and_days() -> None:
    flood = [stream(10 + number, at=START + 4 * DAY + number) for number in range(50)]
    found = decide([*fulls(4), *flood], replace(NOTHING, minimum_count=3))
    assert kept(found) == ["s2", "s3", "s10", "s57", "s58", "s59"]
    assert reasons(found)["s2"] == "keep: minimum-count"


def test_the_minimum_age() -> None:
    found = decide(fulls(9), replace(NOTHING, minimum_age=4 * DAY), now=START + 9 * DAY)
    assert kept(found) == ["s6", "s7", "s8"]
    assert reasons(found)["s6"] == "keep: minimum-age"


def test_pins() -> None:
    until, past = format_time(START + 400 * DAY), format_time(START + 300 * DAY)
    some = fulls(9)
    pins = [
        Pin(some[0].path),
        Pin(some[1].path, until, "before the upgrade"),
        Pin(some[2].path, past),
        Pin(some[3].path, "one day"),
        Pin("alpha/tank/home/@gone.zfs.zst"),
    ]
    found = reasons(decide(some, NOTHING, pins=pins))
    assert found["s0"] == "keep: pinned"
    assert found["s1"] == f"keep: pinned until {until} (before the upgrade)"
    assert found["s2"] == "drop: no rule"
    assert found["s3"] == "keep: pinned until one day"


def test_leases_keep_all_streams_of_a_snapshot_and_their_bases() -> None:
    copy = stream(30, guid="1003", dataset="tank/other")
    found = reasons(
        decide(
            [*chain(6), copy, *(stream(number) for number in range(10, 14))],
            NOTHING,
            leases=[Lease("1003", "the partial of tank/home@x")],
        )
    )
    assert found["s3"] == found["s30"] == "keep: leased by the partial of tank/home@x"
    assert found["s2"] == found["s0"] == "keep: base of tank/home@s3"
    assert found["s4"] == "drop: no rule"


def test_a_chain_stays_as_a_whole_and_the_plan_says_why() -> None:
    planned = decide(chain(30), Policy(daily=7))
    assert planned.drops == []
    assert planned.freed == 0
    assert reasons(planned)["s0"] == "keep: base of tank/home@s23"
    assert [each.reason for each in planned.held] == [
        "tank/home: chain of 30 streams since 2026-11-01: nothing can go before a new full, or a merge"
    ]
    assert (planned.held[0].held, planned.held[0].held_bytes) == (23, 2300)


def test_a_new_full_frees_the_chain_before_it_once_no_rule_needs_it() -> None:
    later = [stream(number, number - 1 if number > 30 else None) for number in range(30, 60)]
    planned = decide([*chain(30), *later], replace(NOTHING, daily=7))
    assert kept(planned) == [f"s{number}" for number in range(30, 60)]
    assert [each.stream.snapshot for each in planned.drops] == [f"s{number}" for number in reversed(range(30))]
    assert planned.freed == 3000
    assert kept(decide([*chain(30), *later], replace(NOTHING, monthly=2)))[:2] == ["s0", "s30"]


def test_the_full_of_a_snapshot_that_is_stored_as_an_increment_frees_nothing() -> None:
    """Otherwise a host that was taken over could replace old snapshots by its own."""
    forged = stream(50, guid="1029")
    planned = decide([*chain(30), forged, stream(60), stream(61)], replace(NOTHING, daily=3))
    assert planned.drops == []
    assert reasons(planned)["s29"] == reasons(planned)["s50"] == "keep daily 2026-11-30"


def test_a_base_under_a_former_name_stays() -> None:
    renamed = [stream(number, number - 1, dataset="tank/new") for number in range(9, 14)]
    planned = decide([*chain(9), *renamed], replace(NOTHING, last=1))
    assert planned.drops == []
    assert reasons(planned)["s6"] == "keep: base of tank/home@s7"
    afresh = [stream(number, dataset="tank/new") for number in range(20, 24)]
    planned = decide([*chain(9), *renamed, *afresh], replace(NOTHING, last=1))
    assert kept(planned) == [*(f"s{number}" for number in range(9)), "s22", "s23"]


def test_a_clone_and_its_origin_have_their_own_days() -> None:
    clone = [
        stream(20 + number, 4 if number == 0 else None, at=START + number * DAY + HOUR, dataset="tank/clone")
        for number in range(5)
    ]
    found = decide([*fulls(5), *clone], replace(NOTHING, daily=3))
    assert kept(found) == ["s2", "s3", "s4", "s22", "s23", "s24"]


# --- damage -----------------------------------------------------------------------------------------------------


def test_nothing_goes_while_the_newest_is_damaged() -> None:
    some = fulls(9)
    found = reasons(decide(some, replace(NOTHING, last=1), damaged={some[8].path}))
    assert found["s7"] == "keep last"
    assert {found[f"s{number}"] for number in range(6)} == {"keep: newest sibling is damaged"}
    orphan = stream(9, 77)
    found = reasons(decide([*some, orphan], replace(NOTHING, last=1)))
    assert found["s0"] == "keep: newest sibling cannot be restored"


def test_what_is_damaged_takes_no_place_and_goes_by_rule() -> None:
    some = fulls(9)
    policy = replace(NOTHING, daily=3)
    found = decide(some, policy, damaged={some[7].path})
    assert kept(found) == ["s5", "s6", "s7", "s8"]
    assert reasons(found)["s7"] == "keep: daily 2026-11-08, if all were restorable"
    found = decide(fulls(12), policy, damaged={some[7].path})
    assert kept(found) == ["s9", "s10", "s11"]
    assert reasons(found)["s7"] == "drop: no rule, and not restorable"


def test_what_builds_on_damage_stays_as_long_as_if_it_were_whole() -> None:
    """The file may come back, or be repaired."""
    later = [stream(number) for number in range(10, 12)]
    found = decide([*chain(10), *later], replace(NOTHING, daily=4), damaged={chain(1)[0].path})
    assert kept(found) == [f"s{number}" for number in range(12)]
    assert reasons(found)["s0"] == "keep: base of tank/home@s8"
    assert reasons(found)["s9"] == "keep: daily 2026-11-10, if all were restorable"


def test_a_late_base_does_not_make_its_orphan_the_first_of_its_day() -> None:
    day = START + 10 * DAY
    orphan, good, base = stream(1, 50, at=day), stream(2, at=day + HOUR), stream(50, at=day + 9 * DAY)
    some = [orphan, good, base, stream(60), stream(61)]
    assert "s2" in kept(decide(some, replace(NOTHING, daily=9)))
    same_day = [orphan, good, base._replace(received=format_time(day + 2 * HOUR)), stream(60), stream(61)]
    assert kept(decide(same_day, replace(NOTHING, daily=9))) == ["s2", "s60", "s61"]


def test_an_orphan_counts_as_of_its_base_also_beside_one_without() -> None:
    """Otherwise it would stay until the other one has gone, and a second prune would drop more."""
    orphan, base, other = stream(0, 50), stream(50, at=START + 3 * DAY), stream(2, 99)
    some = [orphan, stream(1), other, base, stream(60, at=START + 4 * DAY), stream(61, at=START + 5 * DAY)]
    assert kept(decide(some, replace(NOTHING, weekly=9))) == ["s1", "s60", "s61"]


def test_a_time_that_cannot_be_read_keeps_its_stream() -> None:
    odd = stream(0, received="yesterday", sequence=None)
    assert reasons(decide([odd, *fulls(9)[1:]], NOTHING))["s0"] == "keep: its time cannot be read, or is in the future"
    far = [stream(number, created=f"@{10**12 + number}") for number in range(9)]
    assert len(kept(decide(far, replace(NOTHING, daily=3, time="created")))) == 9
    odd_ones = [stream(number, created=f"@{number}") for number in range(9)]
    for rule in PERIODS:
        policy = Policy(**{rule: 3}, minimum_count=0, minimum_age=0, time="created")  # type: ignore[arg-type]
        assert kept(decide(odd_ones, policy)) == ["s6", "s7", "s8"]


# --- what the caller says ---------------------------------------------------------------------------------------


def test_without_a_policy_all_stays() -> None:
    planned = decide(fulls(9), None)
    assert planned.drops == []
    assert reasons(planned)["s0"] == "keep: no policy matches"


def test_a_stopped_dataset_keeps_its_bases_elsewhere() -> None:
    other = stream(20, 4, dataset="tank/other")
    some = [*chain(5), other, *(stream(number) for number in range(6, 9))]
    planned = decide(some, NOTHING, stopped={"tank/other": "its folder cannot be read"})
    assert reasons(planned)["s20"] == "keep: its folder cannot be read"
    assert reasons(planned)["s0"] == "keep: base of tank/other@s20"


def test_descendants_go_before_their_bases() -> None:
    planned = decide([*chain(20), *(stream(number) for number in range(20, 40))], replace(NOTHING, last=1))
    gone = [each.stream.snapshot for each in planned.drops]
    assert [name for name in gone if int(name[1:]) < 20] == [f"s{number}" for number in reversed(range(20))]
    assert planned.freed == 38 * 100


def test_nothing_is_no_plan() -> None:
    assert decide([], NOTHING) == Plan(())
    assert decide([stream(1, 0)], NOTHING).held == ()


# --- properties over random histories ---------------------------------------------------------------------------


def _prefixes(planned: Plan) -> list[list[Summary]]:
    """Return what is gone after each deletion, and before the first."""
    gone = [each.stream for each in planned.drops]
    return [gone[:count] for count in range(len(gone) + 1)]


def _paths(planned: Plan) -> set[str]:
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
    kept = world.restorable & _paths(planned)
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
    kept = _paths(world.plan())
    for history in world.histories().values():
        good = {each.path for each in history} & world.restorable
        assert not good or good & kept


@given(worlds())
def test_the_floors_hold(world: World) -> None:
    kept = _paths(world.plan())
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
        ages = {each.path: world.now - (parse_time(each.received) or 0.0) for each in history}
        young = [place for place, each in enumerate(history) if 0 <= ages[each.path] < policy.minimum_age]
        assert {each.path for each in history[min(young, default=len(history)) :]} <= kept
        if history[-1].guid not in last_pushed:
            assert {each.path for each in history} <= kept


@pytest.mark.slow
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
    at_once, has_circle = _paths(world.plan()), world.has_circle
    for dataset in order * 3:
        others = {each: "not now" for each in DATASETS if each != dataset}
        drops = replace(world, stopped=others | world.stopped).plan().drops
        world = world.without(each.stream for each in drops)
    assert {each.path for each in world.streams} == at_once or has_circle


@given(streams(steps=(0, 1, 7, 24, 24, 24 * 8, 24 * 40)), policies())
def test_a_prune_after_each_push_ends_as_one_prune_after_all(pushed: list[Summary], policy: Policy) -> None:
    """So nothing goes today that a rule will want to keep later."""
    everything = pruned = World((), {}, START).under(replace(policy, time="received"))
    for each in pushed:
        now = parse_time(each.received) or 0.0
        dropped = {other.guid for other in set(everything.streams) - set(pruned.streams)}
        after = replace(pruned, streams=(*pruned.streams, each), now=now)
        if each.path not in after.restorable or each.guid in dropped:
            continue  # the receiver refuses it; or it is a snapshot that has gone, and counts as of now
        everything = replace(everything, streams=(*everything.streams, each), now=now)
        pruned = after.without(gone.stream for gone in after.plan().drops)
    planned = everything.plan()
    left = {each.path for each in pruned.streams}
    # A base that only a later copy of it has brought back into use may have gone before.
    assert {each.stream.path for each in planned.decisions if each.rule not in {"base", "none"}} <= left
    assert left <= _paths(planned)


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


def _firsts(world: World, whose: tuple[str, str], period: Period) -> dict[str, str]:
    """Return the snapshot that a history could restore first in each period, by the period."""
    since = _since(world.streams, world.damaged)
    mine = [each for each in world.streams if (each.dataset, each.stream_class) == whose and each.path in since]
    first: dict[str, tuple[int, str]] = {}
    for each in sorted(mine, key=lambda each: (since[each.path], each.path)):
        first.setdefault(each.guid, since[each.path])
    found: dict[str, str] = {}
    for guid, (_sequence, at) in first.items():
        if (parse_time(at) or 0.0) <= world.now:
            found.setdefault(_period_of(at, period), guid)
    return found


def _period_of(at: str, period: Period) -> str:
    if period == "weekly":
        week = int(((parse_time(at) or 0.0) / DAY + 3) // 7)  # 1970-01-01 was a Thursday, weeks begin on Monday
        return f"{week:06}"
    return at[: {"yearly": 4, "monthly": 7, "daily": 10, "hourly": 13}[period]]


@pytest.mark.slow
@given(worlds(), st.data(), st.sampled_from(PERIODS), st.integers(1, 3))
def test_a_later_push_replaces_nothing(world: World, data: st.DataObject, period: Period, count: int) -> None:
    """Of the snapshots that a rule keeps, later pushes move out as many of the oldest as they begin periods after them,
    and change nothing else.
    """
    later = data.draw(streams(after=world.streams, at=START + 10 * DAY))
    before = world.under(Policy(**{period: count}, minimum_count=0, minimum_age=0))  # type: ignore[arg-type]
    after = replace(before, streams=(*before.streams, *later))
    for whose, history in before.histories().items():
        old, new = _firsts(before, whose, period), _firsts(after, whose, period)
        assert old.items() <= new.items()
        for planned, firsts in ((before.plan(), old), (after.plan(), new)):
            stay = {firsts[each] for each in sorted(firsts)[-count:]}
            kept = {each.stream.path for each in planned.decisions if each.rule == period}
            good = {each for each in history if each.path in before.restorable}
            assert {each.path for each in good if each.guid in stay} == kept & {each.path for each in good}


@pytest.mark.slow
@given(worlds(), st.data(), policies())
def test_what_one_night_can_push_out_is_bounded(world: World, data: st.DataObject, policy: Policy) -> None:
    """The bound of docs/retention.md, whatever a sender pushes in a night: branches, copies, orphans, new names."""
    night = START + 400 * DAY
    later = data.draw(streams(after=world.streams, at=night, steps=(0, 1, 2)))
    before = replace(world.under(replace(policy, time="received")), now=night + DAY)
    after = replace(before, streams=(*before.streams, *later))
    gone = {each.stream.path for each in after.plan().drops}
    since = _since(before.streams, before.damaged)
    lost: dict[tuple[str, str], dict[str, Rule]] = {}  # by history and snapshot, what had kept it
    for each in before.plan().decisions:
        about = each.stream
        if about.path in gone & since.keys() and each.rule not in {"base", "none", "damaged", "not restorable"}:
            lost.setdefault((about.dataset, about.stream_class), {})[about.guid] = each.rule
            if policy.within:
                assert (parse_time(since[about.path][1]) or 0.0) <= before.now - policy.within
    in_a_night = {"hourly": 25, "daily": 2, "weekly": 2, "monthly": 2, "yearly": 2}
    for snapshots in lost.values():
        rules = Counter(snapshots.values())
        for period in PERIODS:
            assert rules[period] <= min(policy.periods(period), in_a_night[period])
        assert rules["last"] <= policy.last
        assert rules["newest"] <= 2
        assert rules["minimum-count"] <= policy.minimum_count + min(policy.minimum_count, 2)
        assert rules.keys() <= {*PERIODS, "within", "last", "newest", "minimum-count"}


def test_a_flood_in_one_night_leaves_the_days_before_it() -> None:
    """Hundreds of snapshots, fulls and forged copies of what is stored."""
    flood = [stream(100 + number, at=START + 20 * DAY + number * 60) for number in range(200)]
    flood += [stream(300 + number, at=START + 20 * DAY + HOUR, guid=str(1000 + number)) for number in range(20)]
    some = fulls(20)
    for policy, stays in (
        (Policy(daily=7, weekly=4), ["s0", "s1", "s8", *(f"s{number}" for number in range(14, 20))]),
        (Policy(last=10), ["s18", "s19"]),
    ):
        found = decide([*some, *flood], policy, now=START + 30 * DAY)
        assert [name for name in kept(found) if int(name[1:]) < 20] == stays


# --- what was merged ----------------------------------------------------------------------------------------------


def merged_chain() -> list[Summary]:
    """Return a chain of five, and behind it what the first three were merged into."""
    some = chain(5)
    result = some[2]._replace(path="alpha/tank/home/@result.zfs.zst", base_guid=None, kind="full")
    return [*some, result]


def test_what_was_merged_goes_and_counts_for_nothing() -> None:
    some = merged_chain()
    by = dict.fromkeys((each.path for each in some[:3]), some[5].path)
    found = decide(some, NOTHING, superseded=by)
    assert [each.stream for each in found.drops] == [some[2], some[1], some[0]]
    assert {each.rule for each in found.drops} == {"superseded"}
    assert {each.reason for each in found.drops} == {f"drop: merged into {some[5].path}"}
    # Without that they are bases.
    assert decide(some, NOTHING).drops == []


def test_what_was_merged_stays_while_it_is_held_or_needed() -> None:
    some = merged_chain()
    by = dict.fromkeys((each.path for each in some[:3]), some[5].path)
    assert decide(some, NOTHING, superseded=by, pins=[Pin(some[2].path)]).drops == []
    pinned = decide(some, NOTHING, superseded=by, pins=[Pin(some[1].path)])
    assert [each.stream for each in pinned.drops] == [some[2]]
    assert decide(some, NOTHING, superseded=by, leases=[Lease(some[2].guid, "a reader")]).drops == []
    branch = stream(9, 1, at=START + 9 * DAY)
    needed = decide([*some, branch], NOTHING, superseded=by)
    assert [each.stream for each in needed.drops] == [some[2]]
    assert decide(some[:5], NOTHING, superseded=by).drops == []  # the result is not there


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"stopped": {"tank/home": "another dataset is pruned"}}, "keep: another dataset is pruned"),
        ({"damaged": {"alpha/tank/home/@s4.zfs.zst"}}, "keep: newest sibling is damaged"),
    ],
)
def test_what_was_merged_stays_where_nothing_goes(changes: dict[str, Any], why: str) -> None:
    some = merged_chain()
    some[4] = some[4]._replace(path="alpha/tank/home/@s4.zfs.zst")
    by = dict.fromkeys((each.path for each in some[:3]), some[5].path)
    found = decide(some, NOTHING, superseded=by, **changes)
    assert found.drops == []
    assert why in reasons(found).values()


def test_what_was_merged_stays_without_a_policy() -> None:
    some = merged_chain()
    assert decide(some, None, superseded=dict.fromkeys((each.path for each in some[:3]), some[5].path)).drops == []


def test_snapshot_that_a_rule_keeps_again_stays_although_it_was_merged() -> None:
    """The policy was raised while the result waited for its proof, or the input in the trash."""
    some = merged_chain()
    by = dict.fromkeys((each.path for each in some[:3]), some[5].path)
    for last, gone in ((5, [some[2]]), (4, [some[2]]), (3, [some[2], some[1], some[0]])):
        found = decide(some, replace(NOTHING, last=last), superseded=by)
        assert [each.stream for each in found.drops] == gone


@given(world=worlds(), data=st.data())
def test_whatever_counts_as_merged_the_snapshots_that_a_rule_keeps_stay(world: World, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(world.streams), max_size=4))
    wanted = {
        (each.stream.dataset, each.stream.stream_class, each.stream.guid)
        for each in world.plan().decisions
        if each.action is Action.KEEP and each.rule != "base" and each.stream.path in world.restorable
    }
    found = world.plan(superseded={each.path: "a result" for each in some})
    left = world.without([each.stream for each in found.drops])
    after = restorable(left.streams, world.damaged)
    assert wanted <= {(each.dataset, each.stream_class, each.guid) for each in left.streams if each.path in after}


@given(world=worlds(), data=st.data())
def test_whatever_counts_as_merged_what_is_kept_can_be_restored(world: World, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(world.streams), max_size=4))
    by = {each.path: "a result" for each in some}
    found = world.plan(superseded=by)
    left = world.without([each.stream for each in found.drops])
    superfluous = {each.stream.path for each in found.drops if each.rule == "superseded"}
    assert superfluous <= set(by)
    rest = [each for each in left.streams if each.path not in by]
    after = restorable(left.streams, world.damaged)
    guids = {each.guid for each in left.streams if each.path in after}
    before = world.restorable
    assert {each.guid for each in rest if each.path in before} <= guids
