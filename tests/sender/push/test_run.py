"""A whole push, with a `zfs` that is made up and a receiver that keeps what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pkgutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.fakezfs import FakeZfs
from tests.sender.peer import Keeper, Peer, partial_entry, receipt_of, receiving
from tests.sender.zfs_host import Host

from fullsend_cli.output import ResultOutput
from fullsend_protocol.shared.errors import ErrorCode, OutputFailed, Unreachable
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.locks import AlreadyRunning
from fullsend_sender.host.options import Endpoint
from fullsend_sender.monitor.metrics import STAGES
from fullsend_sender.push import run as pushing
from fullsend_sender.push.job import PushSummary
from fullsend_sender.push.run import push
from fullsend_sender.transfer.send import Pushed, ReceiptMismatch
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.pools import while_usable
from fullsend_transport.throttle import Throttle


@pytest.mark.slow
async def test_full_increments_and_what_stays(host: Host) -> None:
    host.fake.create("tank/a")
    assert await host.push("tank/a") == PushSummary(pushed=1)
    assert host.kinds() == [("tank/a", "full")]
    for _night in range(4):
        host.fake.change("tank/a")
        assert await host.push("tank/a") == PushSummary(pushed=1)
        assert host.kinds() == [("tank/a", "incremental")]
    assert len(host.fake.names("snapshots", "tank/a")) == 2
    assert len(host.fake.names("bookmarks", "tank/a")) == 2
    assert host.fake.holds("tank/a") == []
    offer = host.keeper.offers[-1]
    assert offer.properties == {"compression": "zstd", "user:note": "kept"}
    assert (offer.zfs_version, offer.size_estimate, offer.keep_orphan) == ("zfs-2.4.4-fake", 300_000, False)
    assert (offer.guid, offer.base_guid) == tuple(about.guid for about, _raw in reversed(host.keeper.streams[-2:]))


async def test_size_is_not_announced_where_it_is_not_to_be_checked(host: Host) -> None:
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    await host.push("tank/a", "tank/b", settings={"datasets": {"tank/b": {"size_check": False}}})
    assert {offer.dataset: offer.size_estimate for offer in host.keeper.offers} == {"tank/a": 300_000, "tank/b": None}


async def test_streams_share_a_connection(host: Host) -> None:
    for name in ("tank/a", "tank/b", "tank/c"):
        host.fake.create(name)
    assert (await host.push("tank/a", "tank/b", "tank/c")).pushed == 3
    assert host.keeper.connections == 2  # one asks what is stored


async def test_nothing_new_runs_next_to_nothing(host: Host) -> None:
    for name in ("tank", "tank/a", "tank/b"):
        host.fake.create(name)
    await host.push("tank", recursive=True)
    connections = host.keeper.connections
    summary = await host.push("tank", recursive=True)
    assert summary == PushSummary(unchanged=3)
    assert summary.chosen == summary.current == {"tank", "tank/a", "tank/b"}
    assert [line.split()[0] for line in host.fake.commands] == ["zpool", "zpool", "list"]
    assert host.keeper.connections == connections + 1
    assert [each.dataset for each in host.keeper.unchanged] == ["tank", "tank/a", "tank/b"]


@pytest.mark.slow
async def test_a_tree_has_one_snapshot_and_one_fault(host: Host) -> None:
    for name in ("tank", "tank/a", "tank/bad", "tank/c", "other/d"):
        host.fake.create(name)
    host.fake.fail("tank/bad@", "cut")
    summary = await host.push("tank", "other/d", recursive=True, settings={"jobs": 2})
    assert sorted(host.kinds()) == [(name, "full") for name in ("other/d", "tank", "tank/a", "tank/c")]
    ((name, error),) = summary.failures
    assert name.startswith("tank/bad@fullsend-")
    assert isinstance(error, ZfsError)
    assert "cannot send: it is cut" in str(error)
    assert len(host.ran("snapshot")) == 2  # one a pool
    assert len({each.receipt.snapshot for each in host.pushed}) == 1
    # Its snapshot is still held; the next run sends it, and lets go of both.
    assert len(host.fake.holds("tank/bad")) == 1
    host.fake.mend()
    assert (await host.push("tank", recursive=True)).pushed == 1
    assert host.fake.holds("tank/bad") == []


@pytest.mark.slow
async def test_a_pool_that_is_suspended_amid_a_push_holds_up_no_other(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zfs send` waits in the kernel then, and may not end before somebody clears the pool."""
    for name in ("ext/b", "ext/c", "tank/a"):
        host.fake.create(name)
    host.fake.fail("ext/b@", "stall")
    monkeypatch.setattr(pushing, "while_usable", functools.partial(while_usable, every=0.05))

    async def suspend() -> None:
        while not any("ext/b@" in line and "-nP" not in line for line in host.ran("send")):
            await asyncio.sleep(0.01)
        host.fake.pool("ext", health="SUSPENDED")

    suspending = asyncio.create_task(suspend())
    summary = await host.push("ext/b", "ext/c", "tank/a")
    await suspending
    assert host.kinds() == [("tank/a", "full")]
    said = {name.partition("@")[0]: str(error) for name, error in summary.failures}
    assert list(said) == ["ext/b", "ext/c"]
    for each in said.values():
        assert each.startswith("the pool is SUSPENDED, and cannot be used: see `zpool status -v ext`")
    # Nothing is asked of it any more; what is held is let go of by a later run.
    after = [line for line in host.fake.commands if "ext/c@" in line and line.split()[0] in {"release", "destroy"}]
    assert after + [line for line in host.ran("send") if "ext/c@" in line and "-nP" not in line] == []
    host.fake.mend()
    host.fake.pool("ext", health="ONLINE")
    assert (await host.push("ext/b", "ext/c", "tank/a")).pushed == 2
    assert host.fake.holds("ext/b") == host.fake.holds("ext/c") == []


async def test_who_can_have_no_snapshot_is_in_nobodys_way(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tank", "tank/a", "tank/gone", "tank/thick", "tank/z"):
        host.fake.create(name)
    host.fake.edit(lambda state: state["datasets"]["tank/thick"].update(full=True))
    bases = host.keeper.bases

    def after_the_listing() -> Any:
        host.fake.destroy("tank/gone")
        return bases()

    monkeypatch.setattr(host.keeper, "bases", after_the_listing)
    summary = await host.push("tank", recursive=True)
    said = {name: str(error) for name, error in summary.failures}
    assert sorted(said) == ["tank/gone", "tank/thick"]
    assert "does not exist" in said["tank/gone"]
    assert "out of space" in said["tank/thick"]
    # The others have one snapshot, of one moment.
    assert [each.receipt.dataset for each in host.pushed] == ["tank", "tank/a", "tank/z"]
    assert len({each.receipt.snapshot for each in host.pushed}) == 1
    assert host.ran("snapshot")[-1].count("@") == 3


@pytest.mark.slow
async def test_a_name_that_is_too_long_for_a_snapshot_is_said_in_one_short_line(host: Host) -> None:
    """ZFS takes 255 bytes for dataset, @ and snapshot together, of which ours has 35."""
    fits, long = f"tank/{'f' * 215}", f"tank/{'l' * 216}"
    for name in ("tank/a", fits, long):
        host.fake.create(name)
    for package in (False, True):
        summary = await host.push("tank/a", fits, long, package=package)
        assert [name for name, _error in summary.failures] == [long]
        assert str(summary.failures[0][1]).startswith("its name has 221 bytes, and with 35 for its snapshot that is")
        assert summary.pushed == 2
    assert not any(long in line for line in host.fake.commands if line.startswith("snapshot"))


@pytest.mark.slow
async def test_a_base_that_goes_before_it_is_held_is_one_datasets(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    await host.push("tank/a", "tank/b")
    for name in ("tank/a", "tank/b"):
        host.fake.change(name)
    bases = host.keeper.bases

    def after_the_listing() -> Any:
        host.fake.edit(lambda state: state["datasets"]["tank/a"]["snapshots"].clear())
        return bases()

    with monkeypatch.context() as patch:
        patch.setattr(host.keeper, "bases", after_the_listing)
        ((name, error),) = (await host.push("tank/a", "tank/b")).failures
    assert (name, "dataset does not exist" in str(error)) == ("tank/a", True)
    assert host.kinds() == [("tank/b", "incremental")]
    await host.push("tank/a")
    assert host.kinds() == [("tank/a", "incremental")]  # from the bookmark
    assert host.fake.holds("tank/a") == []


async def test_what_others_destroy_while_we_push(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = host.keeper.bases

    def after_the_listing() -> Any:
        host.fake.edit(lambda state: state["datasets"]["tank/a"]["snapshots"].pop(0))
        return bases()

    host.fake.create("tank/a")
    host.fake.snapshot("tank/a@hourly")
    monkeypatch.setattr(host.keeper, "bases", after_the_listing)
    assert (await host.push("tank/a")).pushed == 1
    assert host.fake.holds("tank/a") == []


async def test_properties_that_are_no_text(host: Host) -> None:
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    host.fake.edit(lambda state: state["datasets"]["tank/a"]["properties"].update({"user:note": "caf\udce9"}))
    assert await host.push("tank/a", "tank/b") == PushSummary(pushed=2)
    assert host.keeper.offers[0].properties == {"compression": "zstd", "user:note": "caf\ufffd"}


@pytest.mark.parametrize("trouble", [None, "fails", "a line end"])
async def test_properties_of_many_are_asked_for_together(host: Host, trouble: str | None) -> None:
    names = ("tank/a", "tank/b", "tank/c")
    for name in names:
        host.fake.create(name)
    if trouble == "fails":
        host.fake.fail("-o name,property", "out of luck")
    elif trouble is not None:
        host.fake.edit(lambda state: state["datasets"]["tank/a"]["properties"].update({"user:note": "a\nb"}))
    assert await host.push(*names) == PushSummary(pushed=3)
    assert len(host.ran("get")) == {None: 2, "fails": 1 + 3, "a line end": 2 + 3}[trouble]
    for offer in host.keeper.offers[1:]:
        assert offer.properties == {"compression": "zstd", "user:note": "kept"}


@pytest.mark.slow
async def test_a_package(host: Host) -> None:
    for name in ("tank", "tank/a"):
        host.fake.create(name)
    for _night in range(3):
        assert (await host.push("tank", package=True)).pushed == 1
    assert host.kinds() == [("tank", "package")]
    assert (host.keeper.offers[-1].guid, host.keeper.offers[-1].properties is None) == (None, False)
    assert host.ran("bookmark") == []
    assert [len(host.fake.names("snapshots", name)) for name in ("tank", "tank/a")] == [2, 2]
    assert host.fake.holds("tank/a") == []


async def test_a_package_of_a_named_snapshot(host: Host) -> None:
    host.fake.create("tank")
    host.fake.create("tank/a")
    for name in ("tank", "tank/a"):
        host.fake.snapshot(f"{name}@mon")
    host.fake.create("tank/younger")
    assert await host.push("tank@mon", package=True) == PushSummary(pushed=1)
    assert [each.dataset for each in host.keeper.streams[0][0].snapshots] == ["tank"]
    assert host.fake.holds("tank") + host.fake.holds("tank/a") == []
    host.fake.create("tank/late")
    host.fake.snapshot("tank@tue")
    ((_name, error),) = (await host.push("tank@tue", package=True)).failures
    assert "does not exist" in str(error)


@pytest.mark.slow
async def test_the_base_is_gone_at_the_receiver(host: Host) -> None:
    host.fake.create("tank/a")
    await host.push("tank/a")
    host.fake.change("tank/a")
    host.keeper.refuse = [ErrorCode.BASE]
    assert (await host.push("tank/a")).pushed == 1
    assert host.kinds() == [("tank/a", "full")]


async def test_the_base_turns_out_to_have_other_keys(host: Host) -> None:
    """Only the first bytes of a raw stream tell from which keys it was made."""
    host.fake.create("tank/a")
    await host.push("tank/a")
    host.fake.change("tank/a")
    host.keeper.refuse_bytes = [ErrorCode.BASE]
    summary = await host.push("tank/a")
    assert (summary.pushed, summary.failures) == (1, [])
    assert [offer.base_guid is None for offer in host.keeper.offers] == [True, False, True]
    assert host.kinds() == [("tank/a", "full")]


async def test_the_base_is_lost_at_the_receiver_while_the_increment_arrives(host: Host) -> None:
    """What cannot be restored is no backup: its snapshot would be released, and pruned."""
    host.fake.create("tank/a")
    await host.push("tank/a")
    host.fake.change("tank/a")
    host.keeper.orphans = 1
    assert (await host.push("tank/a")).failures == []
    assert host.kinds() == [("tank/a", "incremental"), ("tank/a", "full")]


@pytest.mark.parametrize("package", [False, True])
async def test_what_cannot_be_restored_is_no_success(host: Host, package: bool) -> None:
    host.fake.create("tank")
    host.fake.snapshot("tank@mon")
    host.keeper.orphans = 1
    summary = await host.push("tank@mon", package=package)
    assert (summary.pushed, summary.stored, summary.current) == (0, 0, set())
    ((_name, error),) = summary.failures
    assert "tank@mon was kept, but cannot be restored" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("code", [ErrorCode.LIMIT, ErrorCode.SHUTDOWN])
async def test_a_refusal_that_passes_is_nobodys(host: Host, code: ErrorCode) -> None:
    host.fake.create("tank/a")
    host.keeper.refuse = [code, code]
    assert await host.push("tank/a") == PushSummary(pushed=1)
    assert [offer.resume for offer in host.keeper.offers] == ["replay"] * 3


@pytest.mark.parametrize("code", [ErrorCode.SPACE, ErrorCode.BUSY])
async def test_a_refusal_is_one_datasets(host: Host, code: ErrorCode) -> None:
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    host.keeper.refuse = [code]
    summary = await host.push("tank/a", "tank/b")
    assert host.kinds() == [("tank/b", "full")]
    assert [getattr(error, "code", None) for _name, error in summary.failures] == [code]


async def test_a_receiver_that_is_away_costs_no_snapshot(tmp_path: Path, identity: Identity) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank/a")
    host = Host(fake, Keeper(), Endpoint("nas", "127.0.0.1", 1, "ab" * 32), identity)
    summary = PushSummary()
    with pytest.raises(Unreachable):
        await push(host.job("tank/a"), host.pushed.append, summary)
    assert (summary.chosen, summary.current) == ({"tank/a"}, set())
    assert fake.names("snapshots", "tank/a") == []


async def test_a_receiver_that_goes_away(host: Host, tmp_path: Path, receiver_identity: Identity) -> None:
    for name in ("tank/a", "tank/b", "tank/c"):
        host.fake.create(name)

    async def gone(peer: Any) -> None:
        pass

    async with receiving(receiver_identity, host.keeper, gone, gone) as state:
        host.endpoint = state.endpoint
        summary = await host.push("tank/a", "tank/b", "tank/c", settings={"retry_for": "0s"})
    assert [isinstance(error, Unreachable) for _name, error in summary.failures] == [True, True]
    assert summary.failures[1][0] == "2 more"
    assert (summary.chosen, summary.current) == ({"tank/a", "tank/b", "tank/c"}, set())


async def test_another_run(host: Host) -> None:
    host.fake.create("tank/a")
    connections = host.keeper.connections
    code = (
        "import sys; from fullsend_sender.host.locks import locks\n"
        f"with locks({host.receiver!r}, {str(host.fake.folder)!r}) as locked:\n"
        f"    print(locked.take({host.fake.edit(lambda state: state['datasets']['tank/a']['guid'])!r}), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"True\n"
    summary = await host.push("tank/a")
    await process.communicate(b"")
    assert [type(error) for _name, error in summary.failures] == [AlreadyRunning]
    assert host.keeper.connections == connections


async def test_cancelled_amid_a_stream(host: Host) -> None:
    host.fake.create("tank/a")
    task = asyncio.create_task(host.push("tank/a", settings={"bwlimit": 1000}))
    async with asyncio.timeout(30):
        while not host.keeper.offers:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert len(host.fake.holds("tank/a")) == 1
    assert (await host.push("tank/a")).failures == []
    assert host.fake.holds("tank/a") == []


async def test_all_jobs_have_one_limit(host: Host) -> None:
    class Counting(Throttle):
        def __init__(self, rate: int) -> None:
            super().__init__(rate)
            self.connections: set[object] = set()
            self.counted = 0

        def ask(self, connection: object, count: int, now: float) -> float:  # type: ignore[explicit-override]
            self.connections.add(connection)
            return super().ask(connection, count, now)

        def spend(self, count: int, now: float) -> None:  # type: ignore[explicit-override]
            self.counted += count
            super().spend(count, now)

    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    throttle = Counting(1 << 30)
    assert (await host.push("tank/a", "tank/b", settings={"jobs": 2}, throttle=throttle)).pushed == 2
    # One asked what is stored. If one job was done before the other began, both have used one connection.
    assert len(throttle.connections) == host.keeper.connections - 1 > 0
    assert throttle.counted > sum(each.wire_bytes for each in host.pushed) > 0


async def test_a_bookmark_that_cannot_be(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.fake.create("tank/a")
    host.fake.fail("bookmark tank", "permission denied")
    assert await host.push("tank/a") == PushSummary(pushed=1)
    assert "permission denied" in caplog.text
    host.fake.change("tank/a")
    await host.push("tank/a")
    assert host.kinds() == [("tank/a", "incremental")]  # from the snapshot


@pytest.mark.parametrize("command", ["snapshot tank", "hold", "send -nP", "get"])
async def test_commands_that_fail(host: Host, command: str) -> None:
    host.fake.create("tank/a")
    host.fake.fail(command, "out of luck")
    summary = await host.push("tank/a")
    ((_name, error),) = summary.failures
    assert "out of luck" in str(error)
    assert host.keeper.streams == []


# --- what earlier runs have begun -------------------------------------------------------------------------------


async def test_what_was_begun_is_finished_before_anything_new(host: Host) -> None:
    host.begun()
    summary = await host.push("tank/a")
    assert summary == PushSummary(pushed=2)
    assert summary.current == {"tank/a"}
    assert set().union(*(each.waited for each in host.pushed)) <= set(STAGES)
    assert host.kinds() == [("tank/a", "full"), ("tank/a", "incremental")]
    assert host.pushed[0].receipt.snapshot == "mon"
    assert [offer.resume for offer in host.keeper.offers] == ["replay"] * 2
    assert len({offer.claim for offer in host.keeper.offers}) == 1  # the dataset's: the push that has its lock
    assert host.fake.holds("tank/a") == []
    assert len(host.fake.names("bookmarks", "tank/a")) == 2
    # The first is sent before the second is taken: the listing must show the one when it is decided on the other.
    ran = [line.split()[0] for line in host.fake.commands]
    assert ran.index("send") < ran.index("bookmark") < ran.index("snapshot")


async def test_what_was_begun_and_named_is_pushed_once(host: Host) -> None:
    host.begun()
    summary = await host.push("tank/a@mon")
    assert summary == PushSummary(pushed=1)
    assert summary.current == {"tank/a"}
    assert host.ran("snapshot") == []


async def test_a_full_that_is_asked_for_is_a_new_one(host: Host) -> None:
    host.begun()
    assert await host.push("tank/a", full=True) == PushSummary(pushed=1)
    assert host.pushed[0].receipt.snapshot != "mon"


@pytest.mark.slow
async def test_after_a_full_the_next_night_builds_on_it(host: Host) -> None:
    names = ("tank", "tank/a")
    for name in names:
        host.fake.create(name)
    for full in (False, False, True, False):
        for name in names:
            host.fake.change(name)
        assert await host.push("tank", recursive=True, full=full) == PushSummary(pushed=2)
    for name in names:
        mine = [about for about, _raw in host.keeper.streams if about.dataset == name]
        assert [about.kind for about in mine] == ["full", "incremental", "full", "incremental"]
        assert mine[3].base_guid == mine[2].guid
    # The same snapshot once more as a full: it is stored twice, and the next night builds on it.
    snapshot = host.fake.names("snapshots", "tank/a")[-1]
    assert await host.push(f"tank/a@{snapshot}", full=True) == PushSummary(pushed=1)
    host.fake.change("tank/a")
    await host.push("tank/a")
    assert [about.base_guid for about, _raw in host.keeper.streams[-2:]] == [None, mine[3].guid]


async def test_a_part_of_the_former_chain_is_not_finished_after_a_full(host: Host) -> None:
    """It would come last: as if the dataset had been rolled back to it."""
    host.begun(own=True, snapshot=f"fullsend-{host.receiver}-20260101T000000Z")
    assert await host.push("tank/a", full=True) == PushSummary(pushed=1)
    assert await host.push("tank/a") == PushSummary(unchanged=1)
    assert len(host.keeper.streams) == 1
    assert host.fake.names("snapshots", "tank/a")[0].endswith("20260101T000000Z")  # until the receiver deletes its part


@pytest.mark.slow
async def test_what_cannot_be_finished_is_in_nobodys_way(host: Host) -> None:
    host.begun()
    host.fake.fail("send -L -p tank/a@mon", "cut")
    assert await host.push("tank/a") == PushSummary(pushed=1)
    assert host.kinds() == [("tank/a", "full")]
    assert host.pushed[0].receipt.snapshot != "mon"
    # As long as the receiver has a part of it, it is held: the next night may be luckier.
    assert len(host.fake.holds("tank/a")) == 1
    host.keeper.partials = []
    host.fake.change("tank/a")
    assert await host.push("tank/a") == PushSummary(pushed=1)
    assert host.fake.holds("tank/a") == []


@pytest.mark.slow
async def test_what_a_receiver_has_no_room_for_is_kept_until_it_has(host: Host) -> None:
    """Not even a snapshot is taken then, let alone that which has arrived in part destroyed."""
    name = f"fullsend-{host.receiver}-20260101T000000Z"
    host.begun(snapshot=name, own=True)
    host.keeper.refuse = [ErrorCode.SPACE] * 3
    for _night in range(3):
        host.fake.change("tank/a")
        summary = await host.push("tank/a")
        assert [failed for failed, _error in summary.failures] == [f"tank/a@{name}"]
        assert summary.pushed == summary.unchanged == 0
        assert host.fake.names("snapshots", "tank/a") == [name]
        assert len(host.fake.holds("tank/a")) == 1
    assert await host.push("tank/a") == PushSummary(pushed=2)
    assert host.pushed[0].receipt.snapshot == name
    assert host.fake.holds("tank/a") == []


@pytest.mark.slow
@pytest.mark.parametrize("code", [ErrorCode.STORE, ErrorCode.DAMAGED])
async def test_what_a_receiver_cannot_finish_keeps_nothing_newer_away(host: Host, code: ErrorCode) -> None:
    """Its part may be damaged. It is a failure once, and each night has its backup. Something newer is stored then, and
    it is left to expire.
    """
    name = f"fullsend-{host.receiver}-20260101T000000Z"
    host.begun(snapshot=name, own=True)
    for night in range(4):
        host.fake.change("tank/a")
        host.keeper.refuse = [] if night else [code]
        summary = await host.push("tank/a")
        assert [failed for failed, _error in summary.failures] == ([] if night else [f"tank/a@{name}"])
        assert summary.pushed == 1
        assert host.kinds() == [("tank/a", "incremental" if night else "full")]
    assert name in host.fake.names("snapshots", "tank/a")
    assert len(host.fake.names("snapshots", "tank/a")) == 3
    # One that is named, and refused, is not tried twice.
    host.keeper.refuse = [code]
    host.keeper.offers.clear()
    assert len((await host.push(f"tank/a@{name}")).failures) == 1
    assert len(host.keeper.offers) == 1


async def test_a_wrong_receipt_of_what_was_begun_is_no_success(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is new since, so it would be its last chance to be one."""
    host.begun()
    host.fake.edit(lambda state: state["datasets"]["tank/a"].update(written=0))
    monkeypatch.setattr("tests.sender.peer.receipt_of", functools.partial(receipt_of, sha256="ab" * 32))
    summary = await host.push("tank/a")
    assert [(name, type(error)) for name, error in summary.failures] == [("tank/a@mon", ReceiptMismatch)]
    assert (summary.unchanged, host.keeper.unchanged) == (0, [])


@pytest.mark.slow
async def test_what_is_new_is_decided_when_all_is_finished(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have taken hours, in which people have worked."""
    host.fake.create("tank/b")
    await host.push("tank/b")
    host.begun()
    take = host.keeper._take

    async def slowly(peer: Peer, offer: messages.Push) -> bool:
        host.fake.change("tank/b")
        return await take(peer, offer)

    monkeypatch.setattr(host.keeper, "_take", slowly)
    assert await host.push("tank/a", "tank/b") == PushSummary(pushed=3)
    assert host.kinds() == [("tank/a", "full"), ("tank/a", "incremental"), ("tank/b", "incremental")]
    assert host.keeper.unchanged == []


async def test_a_receiver_that_goes_away_before_all_is_finished_costs_no_snapshot(
    host: Host, receiver_identity: Identity
) -> None:
    async def gone(peer: Any) -> None:
        pass

    host.begun()
    async with receiving(receiver_identity, host.keeper, gone, gone) as state:
        host.endpoint = state.endpoint
        summary = await host.push("tank/a", settings={"retry_for": "0s"})
    assert [(name, type(error).__mro__[1]) for name, error in summary.failures] == [("tank/a@mon", Unreachable)]
    assert summary.current == set()
    assert host.fake.names("snapshots", "tank/a") == ["mon"]
    assert len(host.fake.holds("tank/a")) == 1  # what has begun to arrive has to stay


async def test_a_package_that_was_begun_is_replayed(host: Host) -> None:
    host.begun(guid=None, flags=None)
    assert await host.push("tank/a", package=True) == PushSummary(pushed=2)
    assert host.pushed[0].receipt.snapshot == "mon"
    assert [(offer.guid, offer.resume) for offer in host.keeper.offers] == [(None, "replay")] * 2


@pytest.mark.slow
async def test_what_a_package_brings_stays_until_it_is_stored(host: Host, receiver_identity: Identity) -> None:
    """Of one that arrived in part, in this run or an earlier one: without all of it, it would be another package."""

    async def gone(peer: Any) -> None:
        pass

    host.fake.create("tank/a")
    host.fake.create("tank/a/b")
    for night in range(2):
        host.fake.snapshot(f"tank/a@fullsend-{host.receiver}-2026010{night + 1}T000000Z")
        host.fake.snapshot(f"tank/a/b@fullsend-{host.receiver}-2026010{night + 1}T000000Z")
    async with receiving(receiver_identity, host.keeper, gone, gone) as state:
        host.endpoint = state.endpoint
        assert len((await host.push("tank/a", package=True, settings={"retry_for": "0s"})).failures) == 1
    assert host.ran("destroy") == []
    newest = host.fake.names("snapshots", "tank/a")[-1]
    host.keeper.partials = [partial_entry(dataset="tank/a", snapshot=newest, guid=None, flags=None)]
    host.fake.fail("send -R -L tank/a@" + newest, "cut")
    async with receiving(receiver_identity, always=host.keeper) as state:
        host.endpoint = state.endpoint
        assert (await host.push("tank/a/b")).failures == []
        assert host.ran("destroy") == []
        host.fake.mend()
        assert (await host.push("tank/a", package=True)).failures == []
    assert host.ran("destroy") != []


# --- what one dataset meets --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "fullsend_sender.push.targets.decide",
        "fullsend_sender.push.run.naming.bookmark_name",
        "fullsend_sender.push.run._short",
        "fullsend_sender.transfer.send._compare",
        "fullsend_sender.push.prune_source.retention.outdated_bookmarks",
    ],
)
@pytest.mark.parametrize("error", [ValueError("odd"), OSError(5, "odd"), RecursionError("odd")])
async def test_an_error_of_any_class_is_one_datasets(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str, error: Exception
) -> None:
    """The first dataset that comes by meets it."""
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
    module, _, name = where.rpartition(".")
    holder: Any = pkgutil.resolve_name(module)
    real = getattr(holder, name)
    met: list[str] = []

    def fails(*arguments: Any, **options: Any) -> Any:
        if not met:
            met.append(where)
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(holder, name, fails)
    summary = await host.push("tank/a", "tank/b")
    assert met
    assert [name.partition("@")[0] for name, _error in summary.failures] == ["tank/a"]
    assert "tank/b" in [dataset for dataset, _kind in host.kinds()]
    assert type(error).__name__ in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_line_of_the_listing_that_cannot_be_read(host: Host) -> None:
    for name in ("tank/a", "tank/odd"):
        host.fake.create(name)
    host.fake.snapshot("tank/odd@mon")
    host.fake.edit(lambda state: state["datasets"]["tank/odd"]["snapshots"][0].update(txg="-"))
    summary = await host.push("tank", "tank/a", "tank/odd", recursive=True)
    assert "tank/odd" in [name for name, _error in summary.failures]
    assert summary.pushed == 1


@pytest.mark.slow
@pytest.mark.parametrize("error", [BrokenPipeError(), OutputFailed("stdout cannot be written")])
async def test_output_that_fails_keeps_nothing_from_being_pushed(host: Host, error: Exception) -> None:
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)

    def fails(_pushed: Pushed) -> None:
        raise error

    output = ResultOutput(fails)
    await push(host.job("tank/a", "tank/b"), output)
    assert [about.dataset for about, _raw in host.keeper.streams] == ["tank/a", "tank/b"]
    with pytest.raises(type(error)):
        output.check()


# --- what a pool cannot do ---------------------------------------------------------------------------------------


async def test_a_pool_that_is_read_only(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("tank/a", "tank/b"):
        host.fake.create(name)
        host.fake.snapshot(f"{name}@mon")
    host.fake.pool("tank", readonly=True)
    assert await host.push("tank/a@mon", "tank/b@mon") == PushSummary(pushed=2)
    assert caplog.text.count("the pool is read-only") == 1
    assert host.ran("bookmark") == host.ran("destroy") == []
    host.fake.change("tank/a")
    ((name, error),) = (await host.push("tank/a")).failures
    assert name == "tank/a"
    assert str(error).endswith("push its newest by name: fullsend push tank/a@mon")


@pytest.mark.slow
async def test_a_pool_without_bookmarks(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said each night, and the last common base stays, also where later ones fail."""
    host.fake.create("tank/a")
    host.fake.pool("tank", bookmarks=False)
    caplog.set_level("WARNING")
    for kind in ("full", "incremental", "incremental"):
        host.fake.change("tank/a")
        assert await host.push("tank/a", settings={"keep": 1}) == PushSummary(pushed=1)
        assert host.kinds() == [("tank/a", kind)]
    assert [each.getMessage() for each in caplog.records if each.name.startswith("fullsend")] == []
    (base,) = host.fake.names("snapshots", "tank/a")
    host.fake.fail("tank/a@fullsend", "cut")
    for _night in range(2):
        host.fake.change("tank/a")
        await host.push("tank/a", full=True, settings={"keep": 1})
        assert base in host.fake.names("snapshots", "tank/a")
    host.fake.mend()
    assert await host.push("tank/a", settings={"keep": 1}) == PushSummary(pushed=1)
    assert host.kinds() == [("tank/a", "incremental")]


# --- a block that cannot be read ---------------------------------------------------------------------------------


async def test_a_block_that_cannot_be_read_is_told_with_its_way_out(host: Host) -> None:
    host.fake.create("tank/a", size=20_000_000)  # a stream shows in its first chunk what it is
    host.fake.spoil("tank/a")
    ((name, error),) = (await host.push("tank/a")).failures
    assert "`zpool status -v tank` names the files" in str(error)
    (tag,) = host.fake.holds("tank/a")
    assert f"release {tag} {name} && " in str(error)
    assert [stop.keep for stop in host.keeper.stops] == [True]


@pytest.mark.slow
async def test_what_cannot_be_read_twice_is_given_up_and_not_tried_again_at_once(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.begun()
    host.fake.edit(lambda state: state["datasets"]["tank/a"].update(size=20_000_000))
    host.fake.spoil("tank/a")
    summary = await host.push("tank/a")
    assert [name for name, _error in summary.failures] == ["tank/a@mon"]
    assert [offer.snapshot for offer in host.keeper.offers] == ["mon"]
    assert [stop.keep for stop in host.keeper.stops] == [False]
    # The file is removed: what is new can be sent, and nothing is said, nor held.
    host.keeper.partials = []
    host.fake.spoil("tank/a", bad=False)
    caplog.clear()
    caplog.set_level("WARNING")
    assert await host.push("tank/a") == PushSummary(pushed=1)
    assert [each.getMessage() for each in caplog.records if each.name.startswith("fullsend")] == []
    assert host.fake.holds("tank/a") == []
