from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakezfs import FakeZfs

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.zfs import pools
from fullsend_sender.zfs.commands import Zfs


@pytest.fixture
def fake(tmp_path: Path) -> FakeZfs:
    made = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank/a", "ext/b"):
        made.create(name)
    return made


async def test_each_pool_is_asked_by_itself(fake: FakeZfs) -> None:
    zfs = Zfs((fake.program,))
    fake.pool("ext", health="SUSPENDED")
    there = await pools.look(zfs)
    assert there.health == {"ext": "SUSPENDED", "tank": "ONLINE"}
    found = await pools.listed(zfs, there, {"tank": ["tank/a"], "ext": ["ext"], "none": ["none/x"]}, recursive=True)
    assert list(found.datasets) == ["tank/a"]
    assert list(found.failed) == ["ext"]
    assert "'none/x'" in found.complaint
    names, failed = await pools.names(zfs, there)
    assert (names, list(failed)) == (["tank/a"], ["ext"])


@pytest.mark.parametrize(("health", "usable"), [("ONLINE", True), ("DEGRADED", True), ("FAULTED", False), ("", True)])
def test_which_pools_can_be_used(health: str, usable: bool) -> None:
    assert (pools.Pools({"tank": health}).obstacle("tank") is None) is usable


async def test_which_pools_have_no_bookmarks(fake: FakeZfs, tmp_path: Path) -> None:
    fake.pool("ext", bookmarks=False)
    assert await pools.without_bookmarks(Zfs((fake.program,))) == {"ext"}
    assert await pools.without_bookmarks(Zfs((str(tmp_path / "none"),))) == frozenset()


async def test_a_pool_that_does_not_answer_delays_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may wait for a suspended pool in the kernel. Here it waits until the others have been answered."""
    answered = tmp_path / "answered"
    script = tmp_path / "zfs"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *ext*) exec sleep 1000;; *) printf "tank\\ntank/a\\n"; touch {answered};; esac\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    names_of = Zfs.names

    async def names_then_no_more_patience(zfs: Zfs, pool: str) -> list[str]:
        if pool == "tank":
            return await names_of(zfs, pool)
        while not answered.exists():
            await asyncio.sleep(0.01)
        return await names_of(replace(zfs, answer_within=0.01), pool)

    monkeypatch.setattr(Zfs, "names", names_then_no_more_patience)
    names, failed = await pools.names(Zfs((str(script),)), pools.Pools({"tank": "ONLINE", "ext": "ONLINE"}))
    assert names == ["tank", "tank/a"]
    assert "the pool does not answer: no answer within" in str(failed["ext"])


async def test_without_zpool_it_continues_with_what_zfs_says(tmp_path: Path) -> None:
    script = tmp_path / "zfs"
    script.write_text("#!/bin/sh\necho tank\n", encoding="utf-8")
    script.chmod(0o755)
    there = await pools.look(Zfs((str(script),)))
    assert there.health == {"tank": ""}
    assert isinstance(there.error, FullsendError)
    assert there.absent("ext") == "no pool ext is imported, or it is suspended"


async def test_work_in_a_pool_ends_by_itself_or_with_the_pool(fake: FakeZfs) -> None:
    zfs = Zfs((fake.program,))
    ended: list[str] = []

    async def work(result: str | None) -> str:
        try:
            if result is None:
                await asyncio.Event().wait()
            return str(result)
        finally:
            ended.append("ended")

    async def failing() -> None:
        raise FullsendError("its own fault")

    assert await pools.while_usable(zfs, "tank", work("done"), every=0) == "done"
    with pytest.raises(FullsendError, match="its own fault"):
        await pools.while_usable(zfs, "tank", failing(), every=0)
    fake.pool("ext", health="SUSPENDED")
    with pytest.raises(pools.PoolError, match="the pool is SUSPENDED"):
        await pools.while_usable(zfs, "ext", work(None), every=0)
    # The caller's cancellation ends it, too, and what another pool is like does not.
    waiting = asyncio.create_task(pools.while_usable(zfs, "tank", work(None), every=0))
    while sum(line.startswith("zpool") for line in fake.commands) < 3:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["ended"] * 3
