from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.fakezfs import FakeZfs
from tests.sender.restore.test_chains import entry

from fullsend_protocol.shared.errors import ErrorCode, FullsendError, PeerError, UsageError
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_sender.restore.chains import Library
from fullsend_sender.restore.plan import ParentDataset, RestoreItem, RestorePlan, RestoreRequest, make_plan
from fullsend_sender.zfs.commands import Zfs

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import StreamEntry


@pytest.fixture
def there(tmp_path: Path) -> FakeZfs:
    """The host to restore on: an empty pool."""
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("pool")
    return fake


async def plan(
    there: FakeZfs, library: Library, what: str, into: str, *exclude: str, recursive: bool = True
) -> RestorePlan:
    wanted = RestoreRequest(what, into, recursive=recursive, exclude=exclude)
    return await make_plan(library, wanted, Zfs((there.program,)))


def steps(plan: RestorePlan) -> list[tuple[str, int]]:
    """Targets, and how many streams each takes; a place: -1."""
    return [(step.target, len(step.chain) if isinstance(step, RestoreItem) else -1) for step in plan.steps]


TREE = Library([
    entry("t@1", 1), entry("t@2", 2, 1), entry("t/a@1", 11), entry("t/x/y/z@1", 12), entry("t/x-ray@1", 13),
])  # fmt: skip


async def test_parents_come_first_and_places_in_their_turn(there: FakeZfs) -> None:
    found = await plan(there, TREE, "t", "pool/back")
    assert steps(found) == [
        *(("pool/back", 2), ("pool/back/a", 1), ("pool/back/x", -1), ("pool/back/x/y", -1), ("pool/back/x/y/z", 1)),
        ("pool/back/x-ray", 1),
    ]
    assert [step for step in found.steps if isinstance(step, ParentDataset)] == [
        ParentDataset("pool/back/x"),
        ParentDataset("pool/back/x/y"),
    ]
    assert (found.there, found.failures) == ({"pool"}, [])
    # What is left out is a place, too, and so is the target itself where nothing of that name is stored.
    assert steps(await plan(there, TREE, "t@1", "pool/back", "t/a", "t/x-ray"))[0] == ("pool/back", 1)
    assert steps(await plan(there, TREE, "t/x", "pool/x")) == [("pool/x", -1), ("pool/x/y", -1), ("pool/x/y/z", 1)]


async def test_what_is_below_what_fails_has_a_place_or_is_not_tried(there: FakeZfs) -> None:
    damaged = Library([entry("t@1", 1), entry("t/a@1", 2, damaged="a bit", restorable=False), entry("t/a/b@1", 3)])
    found = await plan(there, damaged, "t", "pool/back")
    (failed, deep) = (found.failures[0][0], found.steps[-1])
    assert (failed, deep.target) == ("pool/back/a", "pool/back/a/b")
    found.there.add("pool/back")
    assert (found.obstacle(found.steps[0]), found.obstacle(deep)) == (None, "pool/back/a")
    # Where it is there all the same, as a pool's root always is, it is a place.
    there.create("pool/back")
    there.create("pool/back/a")
    found = await plan(there, damaged, "t", "pool/back")
    assert [name for name, _error in found.failures] == ["pool/back", "pool/back/a"]
    assert [found.obstacle(step) for step in found.steps] == [None]


async def test_a_part_of_a_new_dataset_is_no_place(there: FakeZfs) -> None:
    there.create("pool/back")
    there.edit(lambda state: state["datasets"]["pool/back"].update(kept={"token": "1-0-0-0"}))
    found = await plan(there, TREE, "t", "pool/back")
    assert found.there == {"pool"}
    assert [name for name, _error in found.failures] == ["pool/back"]
    assert found.obstacle(found.steps[0]) == "pool/back"


async def test_what_is_there_is_resumed_after_its_newest_snapshot(there: FakeZfs) -> None:
    there.create("pool/back")
    there.snapshot("pool/back@one")
    there.edit(lambda state: state["datasets"]["pool/back"]["snapshots"][0].update(guid="1"))
    (step,) = (await plan(there, TREE, "t", "pool/back", recursive=False)).steps
    assert isinstance(step, RestoreItem)
    assert (step.newest, [each.guid for each in step.chain]) == ("one", ["2"])
    (step,) = (await plan(there, TREE, "t@1", "pool/back", recursive=False)).steps
    assert isinstance(step, RestoreItem)
    assert (step.chain, step.quiet) == ([], False)
    there.edit(lambda state: state["datasets"]["pool/back"]["properties"].update(canmount="noauto"))
    (step,) = (await plan(there, TREE, "t@1", "pool/back", recursive=False)).steps
    assert isinstance(step, RestoreItem)
    assert step.quiet


async def test_what_builds_on_a_package_brings_what_is_below(there: FakeZfs) -> None:
    library = Library([entry("t@1", 1, kind="package"), entry("t@2", 2, 1)])
    (item,) = (await plan(there, library, "t", "pool/back", recursive=False)).items
    assert (item.wanted.kind, item.package) == ("incremental", True)
    assert not (await plan(there, TREE, "t", "pool/back", recursive=False)).items[0].package


@pytest.mark.parametrize("into", ["pool/a@b", "pool/a#b", "pool/no/where"])
async def test_where_nothing_can_be(there: FakeZfs, into: str) -> None:
    with pytest.raises(UsageError):
        await plan(there, TREE, "t", into)
    with pytest.raises(FullsendError):
        await plan(there, TREE, "nothing", "pool/back")


# --- what was merged meanwhile ------------------------------------------------------------------------------------


def token_of(guid: int, base: int | None) -> str:
    return ResumeToken(f"t@{guid}", guid, base, 2, 0, 0).encode()


async def merged_into(entry: StreamEntry) -> set[tuple[str, str | None]]:
    """The stream of snapshot 3 was made of those of 2 and 3."""
    return {("2", "1"), ("3", "2")} if entry.guid == "3" else set()


MERGED = Library([entry("t@1", 1), entry("t@3", 3, 1)])


async def test_a_part_of_what_was_merged_gives_way_to_the_result(there: FakeZfs) -> None:
    there.create("pool/back")
    there.snapshot("pool/back@one")
    there.edit(lambda state: state["datasets"]["pool/back"]["snapshots"][0].update(guid="1"))
    there.edit(lambda state: state["datasets"]["pool/back"].update(kept={"token": token_of(2, 1)}))
    wanted = RestoreRequest("t", "pool/back")
    (item,) = (await make_plan(MERGED, wanted, Zfs((there.program,)), merged_into)).items
    assert [each.guid for each in item.chain] == ["3"]
    assert (item.discard, item.newest, item.existing, item.token) == ("t@2", "one", True, None)
    # Nobody says that it was merged: it may be anything.
    with pytest.raises(UsageError, match="has a part of t@2"):
        await make_plan(MERGED, wanted, Zfs((there.program,)))
    there.edit(lambda state: state["datasets"]["pool/back"].update(kept={"token": token_of(9, 1)}))
    with pytest.raises(UsageError, match="has a part of t@9"):
        await make_plan(MERGED, wanted, Zfs((there.program,)), merged_into)


async def test_a_part_of_a_full_that_moved_gives_way_to_the_new_one(there: FakeZfs) -> None:
    async def moved(_entry: StreamEntry) -> set[tuple[str, str | None]]:
        return {("1", None), ("3", "1")}

    there.create("pool/back")
    there.edit(lambda state: state["datasets"]["pool/back"].update(kept={"token": token_of(1, None)}))
    library = Library([entry("t@3", 3)])
    (item,) = (await make_plan(library, RestoreRequest("t", "pool/back"), Zfs((there.program,)), moved)).items
    assert ([each.guid for each in item.chain], item.discard) == (["3"], "t@1")
    assert (item.newest, item.existing) == (None, False)


async def test_a_snapshot_that_was_merged_away_is_named_with_the_way_out(there: FakeZfs) -> None:
    there.create("pool/back")
    for name in ("one", "two"):
        there.snapshot(f"pool/back@{name}")
    snapshots = there.edit(lambda state: state["datasets"]["pool/back"]["snapshots"])
    there.edit(
        lambda state: state["datasets"]["pool/back"].update(
            snapshots=[{**each, "guid": str(1 + number)} for number, each in enumerate(snapshots)]
        )
    )
    with pytest.raises(UsageError) as failed:
        await make_plan(MERGED, RestoreRequest("t", "pool/back"), Zfs((there.program,)), merged_into)
    assert "has other snapshots, up to @two, after @one: destroy those if they are not needed" in str(failed.value)
    assert "needed (`zfs rollback -r pool/back@one`) and run the same command again, or" in str(failed.value)


# --- what a tree asks the receiver --------------------------------------------------------------------------------


PACKAGE = entry("t@2", 21, kind="package")


async def datasets_in(package: StreamEntry) -> frozenset[str] | None:
    return {PACKAGE.file: frozenset({"t", "t/a"}), "unknown": None}[package.file]


async def tree_plan(there: FakeZfs, library: Library, what: str, *asking: Any) -> RestorePlan:
    return await make_plan(library, RestoreRequest(what, "pool/back", recursive=True), Zfs((there.program,)), *asking)


async def test_what_a_package_does_not_bring_comes_after_it(there: FakeZfs, caplog: pytest.LogCaptureFixture) -> None:
    """Also below what it brings: that is not made as a parent, and is there once the package is."""
    library = Library([PACKAGE, entry("t/a@1", 1), entry("t/a/old@1", 2), entry("t/x/old@1", 3)])
    found = await tree_plan(there, library, "t", merged_into, datasets_in)
    assert steps(found) == [("pool/back", 1), ("pool/back/a/old", 1), ("pool/back/x", -1), ("pool/back/x/old", 1)]
    assert (found.failures, found.brought) == ([], dict.fromkeys(["pool/back", "pool/back/a"], "pool/back"))
    assert "t/a comes as it was in the package t@2, and is left out" in caplog.text
    assert found.obstacle(found.steps[1]) == "pool/back/a"
    found.there.add("pool/back")
    assert found.obstacle(found.steps[1]) is None


async def test_what_may_be_in_a_package_is_a_failure(there: FakeZfs) -> None:
    library = Library([entry("t@2", 21, kind="package", file="unknown"), entry("t/a@1", 1)])
    for asking in ((merged_into, datasets_in), ()):
        found = await tree_plan(there, library, "t", *asking)
        assert steps(found) == [("pool/back", 1)]
        ((name, error),) = found.failures
        assert (name, "may be in the package t@2" in str(error)) == ("pool/back/a", True)


async def test_a_damaged_package_is_not_asked_for(there: FakeZfs) -> None:
    damaged = entry("t@2", 21, kind="package", file="nobody asks", damaged="a bit", restorable=False)
    found = await tree_plan(there, Library([damaged, entry("t/a@1", 1)]), "t", merged_into, datasets_in)
    assert (found.steps, [name for name, _error in found.failures]) == ([], ["pool/back"])


@pytest.mark.parametrize(("guid", "told"), [(3, True), (4, False), (5, True)])
async def test_an_older_state_is_told_where_what_came_next_was_merged(
    there: FakeZfs, caplog: pytest.LogCaptureFixture, guid: int, told: bool
) -> None:
    async def ask(stream: StreamEntry) -> set[tuple[str, str | None]]:
        if stream.guid == "5":
            raise PeerError(ErrorCode.NOT_FOUND, "it is gone")
        return await merged_into(stream)

    library = Library([entry("t/a@1", 1), entry("t@2", 2), entry("t/a@3", guid, 1)])
    found = await tree_plan(there, library, "t@2", ask, datasets_in)
    assert steps(found) == [("pool/back", 1), ("pool/back/a", 1)]
    assert [name for name, _note in found.notes] == ["t/a"] * told
    assert ("t/a has no @2, and comes as of @1, received 2026-11-24T02:00:00Z. It may" in caplog.text) == told


# --- where a restore writes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "into", "top"), [
    ("tank/home", None, "tank/home"), ("tank/home@mon", None, "tank/home"), ("tank/home@mon", "pool/a", "pool/a"),
    ("guid:5", "pool/a", "pool/a"),
])  # fmt: skip
def test_the_top_of_what_is_written(what: str, into: str | None, top: str) -> None:
    assert RestoreRequest(what, into).top == top
