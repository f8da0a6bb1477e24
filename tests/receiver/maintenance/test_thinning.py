"""Thinning: what of made-up histories becomes one stream, and why the rest does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from tests.receiver.histories import DAY, START, World, restorable, stream, worlds

from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.maintenance.retention import Action, Lease, Pin, Plan, plan
from fullsend_receiver.maintenance.thinning import INPUTS_MAX, Merge, Thinning

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Keeps the first snapshot of each month, and the two newest always.
MONTHLY = Policy(monthly=12, minimum_count=0, minimum_age=0)
ALWAYS = Thinning(rebase_after=0.0)
NEVER = Thinning(rebase_after=1e9)


def chain(count: int, **changes: Any) -> list[Summary]:
    """Return a full of 1,000 bytes, and an increment of 100 a day on the day before."""
    found = [stream(number, number - 1 if number else None, **changes) for number in range(count)]
    return [found[0]._replace(stored_bytes=1000), *found[1:]]


def decide(streams: Sequence[Summary], thinning: Thinning | None = NEVER, **changes: Any) -> Plan:
    policy = changes.pop("policy", MONTHLY)
    return plan(streams, lambda _dataset: policy, now=START + 365 * DAY, thinning=thinning, **changes)


def names(planned: Plan) -> list[list[str]]:
    return [[each.snapshot for each in merge.inputs] for merge in planned.merges]


def reasons(planned: Plan) -> dict[str, str]:
    return {each.stream.snapshot: each.reason for each in planned.decisions}


def result_of(merge: Merge) -> Summary:
    """Return what a merge leaves: the place of its last input, on the base of its first one."""
    base = merge.inputs[0].base_guid
    kind = "full" if base is None else "incremental"
    path = f"{merge.target.path}.on.{base}"
    return merge.target._replace(path=path, base_guid=base, kind=kind)  # type: ignore[arg-type]


def settled(streams: Sequence[Summary], thinning: Thinning = NEVER, **changes: Any) -> tuple[list[Summary], int]:
    """Drop and merge until nothing is due. Returns: what is left, and the number of merges."""
    left, done = list(streams), 0
    while True:
        planned = decide(left, thinning, **changes)
        gone = {each.stream.path for each in planned.drops}
        if not gone and planned.merges:
            gone = {each.path for each in planned.merges[0].inputs}
            left.append(result_of(planned.merges[0]))
            done += 1
        if not gone:
            return left, done
        left = [each for each in left if each.path not in gone]


def test_what_no_rule_keeps_goes_into_what_builds_on_it() -> None:
    # s0 is the first of its month, s4 and s5 are the newest.
    planned = decide(chain(6))
    assert names(planned) == [["s1", "s2", "s3"]]
    found = reasons(planned)
    assert found["s1"] == found["s2"] == "merge: into s3"
    assert found["s3"] == "keep: base of tank/home@s4: s4, which builds on it, must not change now"
    actions = {each.stream.snapshot: each.action for each in planned.decisions}
    assert [name for name, action in actions.items() if action is Action.MERGE] == ["s2", "s1"]
    assert planned.drops == []


def test_what_is_kept_is_what_it_merges_into() -> None:
    planned = decide(chain(40))
    # s30 is the first of December; nothing is merged over it.
    assert [(run[0], run[-1]) for run in names(planned)] == [("s1", "s8"), ("s31", "s37")]
    left, _done = settled(chain(40))
    assert [each.snapshot for each in left if each.base_guid is None] == ["s0"]
    assert sorted((each.snapshot for each in left), key=lambda name: int(name[1:])) == [
        "s0",
        "s30",
        "s37",
        "s38",
        "s39",
    ]


def test_without_merging_the_chain_is_held() -> None:
    planned = decide(chain(5), None)
    assert planned.merges == ()
    assert len(planned.held) == 1
    assert decide(chain(5)).held == ()


def test_with_two_streams_on_it_it_stays_and_says_why() -> None:
    branch = stream(40, 1, at=START + 33 * DAY)  # the first of December
    found = decide([*chain(5), branch])
    assert names(found) == [["s2", "s3"]]
    assert reasons(found)["s1"].endswith(": 2 streams build on it")


def test_a_stream_that_goes_is_not_waited_for() -> None:
    branch = stream(40, 1, at=START + 3.5 * DAY, sequence=4)
    found = decide([*chain(6), branch])
    assert reasons(found)["s40"] == "drop: no rule"
    assert names(found) == [["s1", "s2", "s3"]]


def test_what_is_pinned_leased_or_newest_is_not_touched() -> None:
    some = chain(9)
    assert names(decide(some)) == [["s1", "s2", "s3", "s4", "s5", "s6"]]
    pinned = decide(some, pins=[Pin(some[3].path)])
    assert names(pinned) == [["s1", "s2"], ["s4", "s5", "s6"]]
    assert names(decide(some, leases=[Lease(some[3].guid, "a partial")])) == [["s1", "s2"], ["s4", "s5", "s6"]]
    assert names(decide(some, leases=[Lease(some[3].guid, "a reader", chain=True)])) == [["s4", "s5", "s6"]]


def test_what_is_damaged_or_stopped_is_not_touched() -> None:
    some = chain(9)
    for changes in ({"damaged": {some[3].path}}, {"stopped": {"tank/home": "a reason"}}, {"policy": None}):
        planned = decide(some, **changes)
        assert planned.merges == ()
        assert planned.drops == []


def test_packages_other_datasets_flags_and_copies_stay() -> None:
    for change, why in (
        ({"kind": "package"}, "which builds on it, is a package"),
        ({"dataset": "tank/new"}, "which builds on it, is of another dataset"),
    ):
        some = chain(9)
        some[3] = some[3]._replace(**change)  # type: ignore[arg-type]
        assert any(reason.endswith(why) for reason in reasons(decide(some)).values()), reasons(decide(some))
        assert all("s3" not in run for run in names(decide(some)))
    copy = stream(3, at=START + 3.1 * DAY, path="alpha/tank/home/@copy.zfs.zst", sequence=100)
    found = decide([*chain(9), copy])
    assert all("s3" not in run for run in names(found))


def test_a_refused_pair_is_left() -> None:
    some = chain(9)
    found = decide(some, replace(NEVER, refused={(some[2].path, some[3].path): "redacted"}))
    assert names(found) == [["s1", "s2"], ["s3", "s4", "s5", "s6"]]
    assert reasons(found)["s2"].endswith(": redacted")


def test_the_full_moves_when_the_increments_on_it_are_a_share_of_it() -> None:
    some = chain(9, at=None)
    some[0] = some[0]._replace(received="2026-10-01T00:00:00Z")
    policy = replace(MONTHLY, monthly=1)  # the full's month has gone; s1 is the first of November
    for share, due in ((0.09, [["s0", "s1"]]), (0.1, []), (0.11, [])):
        found = decide(some, Thinning(rebase_after=share), policy=policy)
        assert names(found)[:1] == [["s0", "s1"]] if due else ["s0"] not in names(found)
        assert any(merge.moves_full for merge in found.merges) is bool(due)
    stays = decide(some, Thinning(rebase_after=0.3), policy=policy)
    assert reasons(stays)["s0"].endswith("it moves forward when the increments on it have 30% of it, not 10%")
    wanted = decide(some, Thinning(rebase_after=0.3, disk_wanted=True), policy=policy)
    assert any(merge.moves_full for merge in wanted.merges)


def test_of_a_long_run_the_full_is_written_once() -> None:
    some = chain(41)
    policy = replace(MONTHLY, monthly=1)
    some = [
        each._replace(received=f"2026-11-{number // 2 + 1:02}T00:{number % 2}0:00Z") for number, each in enumerate(some)
    ]
    some[0] = some[0]._replace(received="2026-10-01T00:00:00Z")
    some[1] = some[1]._replace(received="2026-10-01T00:00:01Z")
    left, done = settled(some, ALWAYS, policy=replace(policy, monthly=0, last=1))
    fulls = [each for each in left if each.base_guid is None]
    assert len(fulls) == 1
    assert [each.snapshot for each in left] != []
    moves = 0
    again = list(some)
    for _ in range(done):
        merge = decide(again, ALWAYS, policy=replace(policy, monthly=0, last=1)).merges[0]
        moves += merge.moves_full
        assert len(merge.inputs) <= INPUTS_MAX
        again = [each for each in again if each not in merge.inputs] + [result_of(merge)]
    assert moves == 1


def kept_snapshots(planned: Plan) -> set[tuple[str, str, str]]:
    """Return the snapshots that a rule keeps, each with its dataset and class."""
    return {
        (each.stream.dataset, each.stream.stream_class, each.stream.guid)
        for each in planned.decisions
        if each.action is Action.KEEP and each.rule != "base"
    }


def check_merges(world: World, thinning: Thinning) -> None:
    """Do what is due, one after the other: what is kept can be restored all the time, and the plan comes to an end."""
    limit = 3 * len(world.streams)
    untouched = {pin.file for pin in world.pins} if all(pin.until is None for pin in world.pins) else set()
    streams = list(world.streams)
    for _ in range(limit):
        planned = replace(world, streams=tuple(streams)).plan(thinning)
        drops = {each.stream.path for each in planned.drops}
        keeps = kept_snapshots(planned)
        before = restorable(streams, world.damaged)
        can = {(e.dataset, e.stream_class, e.guid) for e in streams if e.path in before}
        if drops:
            streams = [each for each in streams if each.path not in drops]
        elif planned.merges:
            merge = planned.merges[0]
            assert untouched.isdisjoint(each.path for each in merge.inputs)
            assert all(one.guid == other.base_guid for one, other in zip(merge.inputs, merge.inputs[1:], strict=False))
            streams = [each for each in streams if each not in merge.inputs] + [result_of(merge)]
        else:
            break
        after = restorable(streams, world.damaged)
        assert keeps & can <= {(e.dataset, e.stream_class, e.guid) for e in streams if e.path in after}
    else:
        raise AssertionError(f"{limit} steps, and no end")


@given(world=worlds())
def test_whatever_is_merged_what_is_kept_can_be_restored(world: World) -> None:
    check_merges(world, NEVER)
    check_merges(world, ALWAYS)


@pytest.mark.slow
@given(world=worlds())
def test_merging_changes_no_decision_about_what_goes(world: World) -> None:
    assert [each.stream for each in world.plan().drops] == [each.stream for each in world.plan(ALWAYS).drops]
