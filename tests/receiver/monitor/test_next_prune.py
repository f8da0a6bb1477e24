from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.receiver.helpers import SENDER, everything, plant

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules
from fullsend_receiver.monitor.next_prune import NextPrune, plan_next_prune

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

DAY: Final = 86400.0
NOW: Final = parse_time("2026-11-27T03:30:00Z") or 0.0


def night(store: LocalStore, age: int, base_age: int | None = None, **changes: Any) -> str:
    """Plant the stream of the night so many days ago, on that of another one."""
    fields: dict[str, Any] = {"received": format_time(NOW - age * DAY - 3600), "sequence": 1000 - age} | changes
    return str(plant(store, f"n{age}", 1000 + age, None if base_age is None else 1000 + base_age, **fields))


def rules(**more: Any) -> PruneRules:
    return PruneRules(lambda _sender, _dataset: Policy(daily=3), at_most=1.0, **more)


def test_what_no_rule_keeps_is_dropped(store: LocalStore) -> None:
    planted = [night(store, age) for age in range(6)]
    before = everything(store.root)
    found = plan_next_prune(store, rules(), NOW)
    assert found.fates == dict.fromkeys(planted[3:], "drop")
    assert everything(store.root) == before


def test_what_becomes_part_of_the_next_stream_is_merged(store: LocalStore) -> None:
    planted = [night(store, age, None if age == 6 else age + 1) for age in range(6, -1, -1)]
    found = plan_next_prune(store, rules(merging=MergeRules(rebase_after=0.0)), NOW)
    assert set(found.fates.values()) == {"merge"}
    assert set(found.fates) <= set(planted)
    assert planted[0] in found.fates
    assert planted[-1] not in found.fates


def test_why_nothing_goes_is_said(store: LocalStore) -> None:
    for age in range(30):
        night(store, age)
    few = PruneRules(lambda _sender, _dataset: Policy(daily=3), at_most=0.1)
    found = plan_next_prune(store, few, NOW)
    assert not found.fates
    assert found.notes[SENDER, "tank/data"].startswith("nothing goes: the policy gives up ")


def test_a_chain_that_is_held_is_said(store: LocalStore) -> None:
    for age in range(9, -1, -1):
        night(store, age, None if age == 9 else age + 1)
    found = plan_next_prune(store, rules(), NOW)
    assert not found.fates
    assert "nothing can go before a new full, or a merge" in found.notes[SENDER, "tank/data"]


def test_without_a_policy_nothing_goes(store: LocalStore) -> None:
    night(store, 1)
    assert plan_next_prune(store, None, NOW) == NextPrune(note="no policy is set, so nothing is ever dropped")
