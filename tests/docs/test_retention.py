"""The example in docs/retention.md is what the planner decides."""

from __future__ import annotations

import re
from typing import Final

from tests.receiver.histories import DAY, HOUR, stream
from tests.test_house import ROOT

from fullsend_protocol.shared.settings import parse_settings
from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.policies import KEEP_RULES, PolicyTable, Retention
from fullsend_receiver.maintenance.retention import Plan, plan
from fullsend_receiver.maintenance.thinning import Thinning

PAGE: Final = (ROOT / "docs" / "retention.md").read_text(encoding="utf-8")
FIRST: Final = parse_time("2026-11-01T02:10:00Z") or 0.0


def _blocks(heading: str) -> list[str]:
    """Return the blocks of code below a heading."""
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n)+", part, re.MULTILINE)
    return [re.sub("^    ", "", each, flags=re.MULTILINE).strip() for each in found if each.strip()]


def _settings(text: str) -> ReceiverSettings:
    return parse_settings(ReceiverSettings, f'store = "/srv"\nstore-id = "1"\n{text}\n', "receiver.toml")


def _plan(retention: Retention, thinning: Thinning | None) -> Plan:
    streams = [
        stream(day, None if day in {1, 12} else day - 1, at=FIRST + (day - 1) * DAY, snapshot=f"{day:02}")
        for day in range(1, 21)
    ]
    now = FIRST + 19 * DAY + HOUR
    return plan(streams, lambda dataset: retention.policy("alpha", dataset), now=now, thinning=thinning)


def test_the_example_is_what_happens() -> None:
    policy, printed = _blocks("An example")
    retention = _settings(policy).retention
    assert retention is not None
    planned = _plan(retention, None)
    lines = [f"{each.stream.snapshot}  {each.stream.kind:11}  {each.reason}" for each in planned.decisions]
    assert "\n".join([*lines, "", *(each.reason for each in planned.held)]) == printed


def test_what_is_merged_in_the_example_is_what_happens() -> None:
    policy, _printed = _blocks("An example")
    retention = _settings(policy).retention
    assert retention is not None
    planned = _plan(retention, Thinning(rebase_after=9.0))
    runs = [" ".join(each.snapshot for each in merge.inputs) for merge in planned.merges]
    assert "\n".join(runs) == _blocks("Merging")[0]
    gone = len(planned.drops) + sum(len(merge.inputs) - 1 for merge in planned.merges)
    assert f"Then {20 - gone} streams are stored instead of {20 - len(planned.drops)}." in PAGE


def test_the_policy_at_the_top_is_one() -> None:
    retention = _settings(_blocks("The policy")[0]).retention
    assert retention is not None
    policy = retention.policy("alpha", "tank/vm/disk")
    assert policy is not None
    assert (policy.hourly, policy.daily, policy.monthly) == (24, 7, 3)
    scratch = retention.policy("beta", "scratch")
    assert scratch is not None
    assert (scratch.last, scratch.daily) == (2, 0)


def test_every_rule_has_its_row() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = set(re.findall(r"`([a-z-]+)`", " ".join(rows)))
    assert {each.replace("_", "-") for each in PolicyTable.model_fields} <= named
    assert set(KEEP_RULES) <= named
