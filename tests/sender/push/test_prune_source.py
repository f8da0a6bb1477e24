"""What pushes leave behind on the ZFS host, night after night."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sender.peer import receiving
from tests.sender.zfs_host import Host

from fullsend_sender.host.identity import Identity
from fullsend_sender.push.job import PushSummary


@pytest.mark.slow
async def test_a_failure_every_night_leaves_no_pile(host: Host) -> None:
    host.fake.create("tank/a")
    await host.push("tank/a")
    base = host.fake.names("snapshots", "tank/a")
    host.fake.fail("tank/a@", "cut")
    for _night in range(4):
        host.fake.change("tank/a")
        assert len((await host.push("tank/a")).failures) == 1
    assert len(host.fake.names("snapshots", "tank/a")) == 3
    assert host.fake.names("snapshots", "tank/a")[:1] == base
    host.fake.mend()
    await host.push("tank/a")
    assert host.kinds() == [("tank/a", "incremental")]
    assert len(host.fake.names("snapshots", "tank/a")) == 2


@pytest.mark.slow
async def test_what_is_never_tried_leaves_no_pile(host: Host, receiver_identity: Identity) -> None:
    async def gone(peer: Any) -> None:
        pass

    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    for _night in range(4):
        async with receiving(receiver_identity, host.keeper, gone, gone) as state:
            host.endpoint = state.endpoint
            assert len((await host.push("tank/a", "tank/b", settings={"retry_for": "0s"})).failures) == 2
    assert [len(host.fake.names("snapshots", name)) for name in ("tank/a", "tank/b")] == [2, 2]


@pytest.mark.slow
async def test_without_bookmarks_the_base_stays(host: Host) -> None:
    host.fake.create("tank/a")
    host.fake.fail("bookmark tank", "bookmark feature not enabled")
    await host.push("tank/a")
    base = host.fake.names("snapshots", "tank/a")
    host.fake.fail("tank/a@", "cut")
    for _night in range(3):
        host.fake.change("tank/a")
        await host.push("tank/a")
    assert host.fake.names("snapshots", "tank/a")[:1] == base
    host.fake.mend()
    await host.push("tank/a")
    assert host.kinds() == [("tank/a", "incremental")]


@pytest.mark.slow
async def test_foreign_snapshots_are_left_alone(host: Host) -> None:
    host.fake.create("tank/a")
    theirs = ["mine", "fullsend-00000000-20260101T000000Z", f"fullsend-{host.receiver}-20260101T000000Z-not"]
    for name in theirs:
        host.fake.snapshot(f"tank/a@{name}")
    for _night in range(4):
        host.fake.change("tank/a")
        await host.push("tank/a")
    assert host.fake.names("snapshots", "tank/a")[:3] == theirs


@pytest.mark.slow
async def test_a_clone_keeps_one_snapshot_and_no_other(host: Host) -> None:
    host.fake.create("tank/a")
    await host.push("tank/a")
    (cloned,) = host.fake.names("snapshots", "tank/a")
    host.fake.clone(f"tank/a@{cloned}", "tank/looked-at")
    for _night in range(5):
        host.fake.change("tank/a")
        assert (await host.push("tank/a")).failures == []
    names = host.fake.names("snapshots", "tank/a")
    assert (names[0], len(names)) == (cloned, 3)
    assert len(host.fake.names("bookmarks", "tank/a")) == 2


async def test_a_run_that_was_killed_after_its_receipt(host: Host) -> None:
    host.fake.create("tank/a")
    await host.push("tank/a")
    (name,) = host.fake.names("snapshots", "tank/a")
    theirs = ["zrepl_step", f"fullsend:00000000:{'5c' * 8}"]
    tags = [f"fullsend:{host.receiver}:{'5c' * 8}", *theirs]
    host.fake.edit(lambda state: state["datasets"]["tank/a"]["snapshots"][0]["holds"].extend(tags))
    assert await host.push("tank/a@" + name) == PushSummary(unchanged=1)
    assert host.fake.holds("tank/a") == theirs
