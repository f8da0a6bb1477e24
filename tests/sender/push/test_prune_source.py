"""What pushes leave behind on the ZFS host, night after night."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from tests.sender.peer import receiving
from tests.sender.zfs_host import Host

from fullsend_sender.host.identity import Identity
from fullsend_sender.push import run as pushing
from fullsend_sender.push.cleaner import Cleaner
from fullsend_sender.push.job import PushSummary
from fullsend_sender.zfs.commands import Zfs, ZfsError


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
async def test_a_pile_of_outdated_snapshots_is_a_warning(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Such as without the permission. A push is not to fail for that, nor to keep silent about it for a year."""
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    host.fake.fail("destroy", "cannot destroy snapshots: permission denied")
    said: list[list[str]] = []
    for night in range(6):
        caplog.clear()
        if night == 5:
            host.fake.mend()
        for name in ("tank/a", "tank/b"):
            host.fake.change(name)
        assert await host.push("tank/a", "tank/b", settings={"keep": 1}) == PushSummary(pushed=2)
        said.append([each.getMessage() for each in caplog.records if each.levelno == logging.WARNING])
    assert [len(lines) for lines in said] == [0, 0, 1, 1, 1, 0]  # of one snapshot, something else may be the reason
    assert said[4][0].startswith(
        "tank/a, and 1 other dataset: outdated snapshots pile up, because not one can be destroyed: "
    )
    assert "cannot destroy snapshots: permission denied" in said[4][0]
    assert said[4][0].endswith("; end what keeps them, or permit it (zfs allow)")
    assert [len(host.fake.names("snapshots", name)) for name in ("tank/a", "tank/b")] == [1, 1]


@pytest.mark.slow
async def test_a_clone_keeps_one_snapshot_and_no_other(host: Host, caplog: pytest.LogCaptureFixture) -> None:
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
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]  # it is on purpose


async def test_a_run_that_was_killed_after_its_receipt(host: Host) -> None:
    host.fake.create("tank/a")
    await host.push("tank/a")
    (name,) = host.fake.names("snapshots", "tank/a")
    theirs = ["zrepl_step", f"fullsend:00000000:{'5c' * 8}"]
    tags = [f"fullsend:{host.receiver}:{'5c' * 8}", *theirs]
    host.fake.edit(lambda state: state["datasets"]["tank/a"]["snapshots"][0]["holds"].extend(tags))
    assert await host.push("tank/a@" + name) == PushSummary(unchanged=1)
    assert host.fake.holds("tank/a") == theirs


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean up behind all streams of a run at once, however slow this machine is."""
    monkeypatch.setattr(pushing, "Cleaner", partial(Cleaner, gather=1000))


@pytest.mark.usefixtures("patient")
async def test_one_command_for_many_datasets(host: Host) -> None:
    names = [f"tank/{letter}" for letter in "abc"]
    for name in names:
        host.fake.create(name)
    assert (await host.push(*names)).pushed == 3
    assert [len(host.ran("holds")), len(host.ran("release"))] == [1, 1]
    assert [host.fake.holds(name) for name in names] == [[], [], []]


@pytest.mark.usefixtures("patient")
async def test_holds_that_cannot_be_asked_of_are_one_datasets(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    holds = Zfs.holds

    async def refused(zfs: Zfs, snapshots: Sequence[str]) -> list[tuple[str, str]]:
        asked.append([name.partition("@")[0] for name in snapshots])
        if "tank/b" in asked[-1]:
            raise ZfsError("permission denied")
        return await holds(zfs, snapshots)

    monkeypatch.setattr(Zfs, "holds", refused)
    names = [f"tank/{letter}" for letter in "abc"]
    for name in names:
        host.fake.create(name)
    assert (await host.push(*names)).failures == []
    assert [each for each in asked if each] == [names, *([name] for name in names)]
    assert [len(host.fake.holds(name)) for name in names] == [0, 1, 0]


@pytest.mark.usefixtures("patient")
async def test_a_hold_that_cannot_be_released_keeps_no_other(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As `zfs release` does it: those that it can release are released, and then it fails."""
    release = Zfs.release

    async def refused(zfs: Zfs, tag: str, snapshots: Sequence[str]) -> None:
        await release(zfs, tag, [name for name in snapshots if not name.startswith("tank/b@")])
        (bad,) = (name for name in snapshots if name.startswith("tank/b@"))
        complaint = f"cannot release hold from snapshot '{bad}': permission denied"
        raise ZfsError(complaint, complaint)

    monkeypatch.setattr(Zfs, "release", refused)
    names = [f"tank/{letter}" for letter in "abc"]
    for name in names:
        host.fake.create(name)
    with caplog.at_level(logging.INFO, "fullsend.push"):
        assert (await host.push(*names)).failures == []
    assert [len(host.fake.holds(name)) for name in names] == [0, 1, 0]
    assert [
        each.getMessage().partition(": not cleaned up")[0] for each in caplog.records if "not cleaned" in each.msg
    ] == ["tank/b"]


async def test_a_run_that_was_killed_before_it_cleaned_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bookmarks are made by then, and the next run releases what is held, also of what is unchanged."""

    async def killed(*_arguments: Any) -> list[tuple[str, Exception]]:
        return []

    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    with monkeypatch.context() as patch:
        patch.setattr(pushing, "prune_source", killed)
        assert (await host.push("tank/a", "tank/b")).pushed == 2
    assert [len(host.fake.holds(name)) for name in ("tank/a", "tank/b")] == [1, 1]
    assert [len(host.fake.names("bookmarks", name)) for name in ("tank/a", "tank/b")] == [1, 1]
    host.fake.change("tank/a")
    assert await host.push("tank/a", "tank/b") == PushSummary(pushed=1, unchanged=1)
    assert [host.fake.holds(name) for name in ("tank/a", "tank/b")] == [[], []]
