"""What is chosen of what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sender.host import Host

from fullsend_protocol.errors import FullsendError, UsageError
from fullsend_sender.job import Summary
from fullsend_sender.plan import CannotSend


async def test_named_snapshots(host: Host) -> None:
    host.fake.create("tank/a")
    host.fake.create("tank/a/b")
    host.fake.snapshot("tank/a@mon")
    assert await host.push("tank/a@mon", recursive=True) == Summary(pushed=1)
    assert host.ran("snapshot") == []
    assert await host.push("tank/a@mon") == Summary(unchanged=1)
    assert [each.dataset for each in host.keeper.unchanged] == ["tank/a"]
    host.fake.change("tank/a")
    assert await host.push("tank/a@mon") == Summary(stored=1)
    assert len(host.keeper.unchanged) == 1  # or `status` would take it for a backup of today
    host.fake.snapshot("tank/a@tue")
    await host.push("tank/a@tue")
    assert host.kinds() == [("tank/a", "incremental")]
    summary = await host.push("tank/a@wed", "tank/none")
    assert [name for name, _error in summary.failures] == ["tank/none", "tank/a"]
    assert all(isinstance(error, CannotSend) for _name, error in summary.failures)
    with pytest.raises(UsageError, match="tank/a is named twice"):
        await host.push("tank/a@mon", "tank/a")


async def test_a_pattern_that_no_snapshot_fits_is_no_success(host: Host) -> None:
    host.fake.create("tank/a")
    host.fake.create("tank/b")
    host.fake.snapshot("tank/b@mon")
    assert await host.push("tank/*@mon") == Summary(pushed=1)
    summary = await host.push("tank/*@tue")
    assert [(name, str(error)) for name, error in summary.failures] == [
        ("tank/*@tue", "no dataset that is meant has this snapshot")
    ]


async def test_nothing_to_list(host: Host) -> None:
    host.fake.fail("list", "no pools")
    with pytest.raises(FullsendError, match="no pools"):
        await host.push("tank/a")


@pytest.mark.parametrize(
    ("other", "named"),
    [({}, "tank/a@tue"), ({"guid": "1"}, "tank/a"), ({"flags": "wp"}, "tank/a"), ({"dataset": "tank/b"}, "tank/a")],
    ids=str,
)
async def test_what_was_begun_of_something_else_is_left_alone(host: Host, other: dict[str, Any], named: str) -> None:
    host.begun(**other)
    host.fake.snapshot("tank/a@tue")
    host.fake.change("tank/a")
    assert await host.push(named) == Summary(pushed=1)
    assert host.pushed[0].receipt.snapshot != "mon"
