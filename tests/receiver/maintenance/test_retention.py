"""Retention: what stays of made-up histories, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.maintenance.retention import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = 86400.0
#: 2026-11-01 is a Sunday.
START = parse_time("2026-11-01T02:00:00Z") or 0.0


def stream(number: int, base: int | None = None, *, at: float | None = None, **changes: Any) -> Summary:
    """Return a stream of the snapshot `number`, received so many days after START unless `at` says otherwise."""
    received = format_time(START + number * DAY if at is None else at)
    values: dict[str, Any] = {
        "path": f"alpha/tank/home/@{number:06}.zfs.zst",
        "sender": "alpha",
        "dataset": "tank/home",
        "snapshot": f"s{number}",
        "guid": str(1000 + number),
        "base_guid": None if base is None else str(1000 + base),
        "kind": "full" if base is None else "incremental",
        "dataset_type": "filesystem",
        "stream_class": "plain",
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
