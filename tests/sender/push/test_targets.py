"""What is chosen of what was asked for."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from tests.sender.host.test_restoring import child
from tests.sender.zfs_host import Host

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.host.locks import AlreadyRunning
from fullsend_sender.push.dry_run import dry_run
from fullsend_sender.push.job import PushRequest, PushSummary, PushTarget
from fullsend_sender.push.plan import CannotSend
from fullsend_sender.push.run import push
from fullsend_sender.push.targets import choose
from fullsend_sender.zfs.selection import Selection


async def test_a_named_snapshot_of_a_replica_is_stored_by_its_own_name(host: Host) -> None:
    """Its GUID was stored already, of its original; `restore` and `status` did not know the replica."""
    host.fake.create("tank/a")
    for name in ("mon", "tue"):
        host.fake.change("tank/a")
        host.fake.snapshot(f"tank/a@{name}")
        await host.push(f"tank/a@{name}")
    host.fake.replicate("tank/a", "tank/copy")
    assert await host.push("tank/copy@tue") == PushSummary(pushed=1)
    assert host.kinds() == [("tank/copy", "incremental")]
    assert await host.push("tank/copy@mon") == PushSummary(pushed=1)
    assert host.kinds() == [("tank/copy", "full")]
    assert await host.push("tank/copy@mon") == PushSummary(stored=1)


@pytest.mark.slow
async def test_named_snapshots(host: Host) -> None:
    host.fake.create("tank/a")
    host.fake.create("tank/a/b")
    host.fake.snapshot("tank/a@mon")
    assert await host.push("tank/a@mon", recursive=True) == PushSummary(pushed=1)
    assert host.ran("snapshot") == []
    assert await host.push("tank/a@mon") == PushSummary(unchanged=1)
    assert [each.dataset for each in host.keeper.unchanged] == ["tank/a"]
    host.fake.change("tank/a")
    assert await host.push("tank/a@mon") == PushSummary(stored=1)
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
    assert await host.push("tank/*@mon") == PushSummary(pushed=1)
    summary = await host.push("tank/*@tue")
    assert [(name, str(error)) for name, error in summary.failures] == [
        ("tank/*@tue", "no selected dataset has this snapshot")
    ]


async def test_a_dataset_that_is_named_and_excluded_is_a_failure(host: Host) -> None:
    """Also beside others: it may be the one that matters, and would never be pushed, with exit 0."""
    for name in ("tank/a", "tank/b", "tank/b/c"):
        host.fake.create(name)
    job = host.job()
    for recursive in (False, True):
        selection = Selection(("tank/a", "tank/b"), recursive, exclude=("tank/b",))
        chosen = await choose(replace(job, request=PushRequest((PushTarget(selection),))))
        assert list(chosen.targets) == ["tank/a"]
        assert [(name, str(error)) for name, error in chosen.failures] == [
            ("tank/b", "it is named, and excluded as well, so it is not pushed: end one of the two")
        ]
    selections = Selection(("tank/b",)), Selection(("tank/a", "tank/b"), exclude=("tank/b",))
    chosen = await choose(replace(job, request=PushRequest(tuple(map(PushTarget, selections)))))
    assert (sorted(chosen.targets), chosen.failures) == (["tank/a", "tank/b"], [])  # another table takes it
    # The place of drills is not one of these: what is below it is pushed, and itself where it is named.
    selection = Selection(("tank/a", "tank/b"), recursive=True, drill_place="tank/b")
    chosen = await choose(replace(job, request=PushRequest((PushTarget(selection),))))
    assert (list(chosen.targets), chosen.failures) == (["tank/a", "tank/b", "tank/b/c"], [])


async def test_a_name_that_is_excluded_for_nothing_is_a_warning(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It may be misspelt, and what was to stay at home is pushed."""
    for name in ("tank", "tank/secret", "ext/cache"):
        host.fake.create(name)

    async def warned(*names: str, exclude: list[str], recursive: bool = True) -> list[str]:
        caplog.clear()
        (await choose(host.job(*names, recursive=recursive, exclude=exclude))).warn(logging.getLogger("fullsend.push"))
        return [each.getMessage() for each in caplog.records]

    assert await warned("tank", exclude=["tank/secretz", "tank/*/cache"]) == [
        "exclude tank/secretz: nothing that is selected has this name, so it leaves nothing out"
    ]
    # Of several it is sufficient that it takes something from one; of what is not listed nobody can tell.
    assert await warned("tank", "ext", exclude=["tank/secret", "ext/cache"]) == []
    assert await warned("tank", exclude=["ext/cached"]) == []
    assert await warned("tank", exclude=["tank/secretz"], recursive=False) == []
    assert await warned("**", exclude=["ext"]) == []
    host.fake.pool("ext", health="SUSPENDED")
    assert await warned("**", exclude=["ext/cached"]) == []


@pytest.mark.parametrize("rehearsed", [False, True])
async def test_a_push_and_a_dry_run_warn_once(host: Host, caplog: pytest.LogCaptureFixture, rehearsed: bool) -> None:
    host.fake.create("tank")
    job = host.job("tank", recursive=True, exclude=["tank/secretz"])
    await (dry_run(job) if rehearsed else push(job, host.pushed.append))
    assert [each.getMessage()[:20] for each in caplog.records if each.levelno == logging.WARNING] == [
        "exclude tank/secretz"
    ]


async def test_nothing_to_list(host: Host) -> None:
    host.fake.fail("list", "no pools")
    host.fake.create("tank/a")
    ((name, error),) = (await host.push("tank/a")).failures
    assert name == "tank"
    assert "no pools" in str(error)


async def test_a_suspended_pool_keeps_no_other_from_being_pushed(host: Host) -> None:
    """Named beside a good one, `zfs list` fails as a whole; with `**` it leaves the pool out, with exit 0."""
    for name in ("tank/a", "ext/b"):
        host.fake.create(name)
    host.fake.pool("ext", health="SUSPENDED")
    for asked, options in ((["tank/a", "ext/b"], {}), (["**"], {}), (["**"], {"exclude": ["tank"]})):
        summary = await host.push(*asked, **options)
        assert [name for name, _error in summary.failures] == ["ext"]
        assert str(summary.failures[0][1]) == (
            "the pool is SUSPENDED, and cannot be used: see `zpool status -v ext`, then `zpool clear ext`"
        )
        assert not any("ext" in line for line in host.fake.commands)
    assert (await host.push("**", exclude=["ext"])).failures == []
    assert {name for name, _kind in host.kinds()} <= {"tank", "tank/a"}


@pytest.mark.slow
async def test_what_was_pushed_and_is_gone_is_a_failure_until_it_is_retired(host: Host) -> None:
    for name in ("tank", "tank/a", "tank/b", "ext/c", "tank/old"):
        host.fake.create(name)
    await host.push("**")
    for name in ("tank/b", "ext/c"):
        host.fake.destroy(name)
    host.fake.rename("tank/old", "tank/new")
    failed = {name: str(error) for name, error in (await host.push("**")).failures}
    assert sorted(failed) == ["ext/c", "tank/b"]
    assert (
        "is not here: it was destroyed or renamed here; if that is on purpose, add it to `retired`" in failed["tank/b"]
    )
    assert "is not here: no pool ext is imported; " in failed["ext/c"]
    # Only what is asked for is looked for; what is retired is not missed.
    assert (await host.push("tank/a")).failures == []
    assert list(dict((await host.push("tank", recursive=True)).failures)) == ["tank/b"]
    assert (await host.push("**", settings={"retired": ["ext/**", "tank/b"]})).failures == []


async def test_a_suspended_pool_that_no_pattern_means_is_no_failure(host: Host) -> None:
    for name in ("tank/vm/one", "ext/b"):
        host.fake.create(name)
    host.fake.pool("ext", health="SUSPENDED")
    for pattern in ("t*/vm/**", "t**"):
        assert (await host.push(pattern)).failures == []
    for pattern in ("e*/vm/**", "*/vm/**", "**/one"):
        assert [name for name, _error in (await host.push(pattern)).failures] == ["ext"]


@pytest.mark.slow
async def test_what_was_renamed_is_stored_under_its_new_name(host: Host) -> None:
    """Even where nothing was written to it since: or nothing is restored by that name, and `status` knows no age."""
    host.fake.create("tank/old")
    await host.push("**")
    host.fake.rename("tank/old", "tank/new")
    assert await host.push("**") == PushSummary(pushed=1)
    assert host.kinds() == [("tank/new", "incremental")]
    assert await host.push("**") == PushSummary(unchanged=1)
    assert [each.dataset for each in host.keeper.unchanged] == ["tank/new"]


@pytest.mark.slow
@pytest.mark.parametrize("written", [True, False])
async def test_a_dataset_that_is_missed_is_said_though_its_replica_is_here(host: Host, written: bool) -> None:
    """`zfs receive` keeps the GUIDs of snapshots, so a replica looks like a dataset that was renamed."""
    host.fake.create("ext/home")
    host.fake.create("tank")
    for night in range(3):
        if written or not night:
            host.fake.change("ext/home")
        await host.push("**")
        host.fake.replicate("ext/home", "tank/replica")
    await host.push("**")
    host.fake.destroy("ext/home")
    assert [name for name, _error in (await host.push("**")).failures] == ["ext/home"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "named"),
    [({}, "tank/a@tue"), ({"guid": "1"}, "tank/a"), ({"flags": "wp"}, "tank/a"), ({"dataset": "tank/b"}, "tank/a")],
    ids=str,
)
async def test_what_was_begun_of_something_else_is_left_alone(host: Host, other: dict[str, Any], named: str) -> None:
    host.begun(**other)
    host.fake.snapshot("tank/a@tue")
    host.fake.change("tank/a")
    assert await host.push(named) == PushSummary(pushed=1)
    assert host.pushed[0].receipt.snapshot != "mon"


@pytest.mark.slow
async def test_what_is_being_restored_is_left_alone(host: Host) -> None:
    """A snapshot in the middle of a restore would end it, and what is there is no state that anybody wants."""
    for name in ("tank", "tank/a", "tank/a/b", "tank/ab"):
        host.fake.create(name)
    with child(host.fake.folder, "tank/a", "below", host.fake.program) as restore:
        summary = await host.push("tank", recursive=True)
        assert [each[0] for each in host.kinds()] == ["tank", "tank/ab"]
        assert [(name, str(error), type(error)) for name, error in summary.failures] == [
            (name, "`fullsend restore` writes to it just now", AlreadyRunning) for name in ("tank/a", "tank/a/b")
        ]
        assert host.fake.names("snapshots", "tank/a") == []
        summary = await host.push("tank", package=True)
        assert [(name, type(error)) for name, error in summary.failures] == [("tank", AlreadyRunning)]
        restore.kill()
        restore.wait()
    assert await host.push("tank", recursive=True) == PushSummary(pushed=2, unchanged=2)


@pytest.mark.slow
async def test_what_an_interrupted_restore_has_left_is_not_unchanged(host: Host) -> None:
    """`status` was content with the older state, and `restore` took it for the newest one, as after a rollback."""
    host.fake.create("tank/a")
    for _night in range(2):
        host.fake.change("tank/a")
        await host.push("tank/a")
    (first, _last) = host.fake.names("snapshots", "tank/a")
    host.fake.rollback(f"tank/a@{first}")
    host.fake.alter("tank/a", kept={"token": "1-0-0-0"})
    summary = await host.push("tank/a")
    ((name, error),) = summary.failures
    assert (name, type(error), host.keeper.unchanged) == ("tank/a", CannotSend, [])
    assert str(error) == (
        "the receiver has later states of it, and it has a part of a stream, as an interrupted `fullsend restore`"
        f" leaves it: run that again, or discard the part (`{host.fake.program} receive -A tank/a`) to push it as it is"
    )
    plan, _lines = await dry_run(host.job("tank/a"))
    assert [name for name, _error in plan.failures] == ["tank/a"]
    host.fake.fail("receive_resume_token")
    ((_name, error),) = (await host.push("tank/a")).failures
    assert "it is broken" in str(error)
    host.fake.mend()
    # As after a rollback, it is what its user wants.
    host.fake.edit(lambda state: state["datasets"]["tank/a"].pop("kept"))
    assert await host.push("tank/a") == PushSummary(unchanged=1)
    # So is the newest state, into which a replication has begun to write the next one.
    host.fake.change("tank/a")
    await host.push("tank/a")
    host.fake.alter("tank/a", kept={"token": "1-0-0-0"})
    assert await host.push("tank/a") == PushSummary(unchanged=1)
