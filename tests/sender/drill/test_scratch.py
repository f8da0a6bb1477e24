from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest
from tests.fakezfs import FakeZfs
from tests.sender.restore.test_chains import entry

from fullsend_sender.drill import scratch as scratching
from fullsend_sender.drill.scratch import PROPERTY, NotDestroyed, Scratch, leftovers
from fullsend_sender.zfs.commands import Zfs
from fullsend_sender.zfs.pools import PoolError, while_usable

INTO = "tank/drill"
MARK = "0123456789abcdef"


@pytest.fixture
def fake(tmp_path: Path) -> FakeZfs:
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank", INTO):
        fake.create(name)
    return fake


def zfs(fake: FakeZfs) -> Zfs:
    return Zfs((fake.program,))


def restored(fake: FakeZfs, scratch: Scratch, **about: Any) -> None:
    """What a drill has received."""
    fake.create(scratch.target)
    properties = {PROPERTY: scratch.mark}
    fake.alter(scratch.target, **({"properties": properties} | about))
    for number in range(3):
        fake.snapshot(f"{scratch.target}@s{number}")


async def test_what_a_drill_has_made_is_destroyed_and_nothing_else(fake: FakeZfs) -> None:
    fake.create(f"{INTO}/mine")
    fake.create(f"{INTO}/fullsend-drill-mine")
    before = fake.datasets()
    scratch = Scratch.new(INTO)
    await scratch.create(zfs(fake), 1 << 20)
    assert fake.properties(scratch.container) == {
        "canmount": "off",
        "mountpoint": "none",
        "readonly": "on",
        "com.sun:auto-snapshot": "false",
        "quota": str(1 << 20),
        PROPERTY: scratch.mark,
    }
    restored(fake, scratch)
    assert await leftovers(zfs(fake), INTO) == [scratch]
    fake.forget_commands()
    await scratch.destroy(zfs(fake))
    assert fake.datasets() == before
    assert await leftovers(zfs(fake), INTO) == []
    destroyed = [line for line in fake.commands if line.startswith("destroy")]
    target = f"destroy {scratch.target}"
    assert destroyed == [f"{target}@s0,s1,s2", target, f"destroy {scratch.container}"]  # no -r, no -R, no -f
    await scratch.destroy(zfs(fake))  # it is gone already


async def test_a_drill_that_ended_before_it_received_anything(fake: FakeZfs) -> None:
    scratch = Scratch.new(INTO)
    await scratch.create(zfs(fake), 1 << 20)
    await scratch.destroy(zfs(fake))
    assert fake.datasets() == {"tank", INTO}


@pytest.mark.parametrize(
    "about",
    [
        {"properties": {}},
        {"properties": {PROPERTY: "fedcba9876543210"}},
        {"properties": {PROPERTY: ""}},
        {"sources": {PROPERTY: "received"}},
        {"sources": {PROPERTY: "inherited from tank"}},
    ],
    ids=["not marked: it inherits the mark", "another mark", "an empty mark", "a stream brought it", "inherited"],
)
async def test_what_is_not_marked_itself_is_never_touched(fake: FakeZfs, about: dict[str, Any]) -> None:
    scratch = Scratch(INTO, MARK)
    await scratch.create(zfs(fake), 1 << 20)
    restored(fake, scratch, **about)
    before = fake.edit(lambda state: state["datasets"])
    fake.forget_commands()
    with pytest.raises(NotDestroyed, match=f"{scratch.target}, the scratch of a drill, is not destroyed: it does not"):
        await scratch.destroy(zfs(fake))
    assert fake.edit(lambda state: state["datasets"]) == before
    assert not [line for line in fake.commands if line.startswith("destroy")]


async def test_a_container_that_is_not_marked_is_never_touched(fake: FakeZfs) -> None:
    fake.create(f"{INTO}/fullsend-drill-{MARK}")
    fake.snapshot(f"{INTO}/fullsend-drill-{MARK}@precious")
    (found,) = await leftovers(zfs(fake), INTO)
    with pytest.raises(NotDestroyed, match="it may not be one"):
        await found.destroy(zfs(fake))
    assert fake.names("snapshots", found.container) == ["precious"]


@pytest.mark.parametrize("mark", ["", "x", "0123456789ABCDEF", f"{MARK}0", "../0123456789abc"])
async def test_a_mark_that_no_drill_makes_is_refused(fake: FakeZfs, mark: str) -> None:
    """Even where the property has it."""
    scratch = Scratch(INTO, mark)
    fake.create(scratch.container)
    fake.alter(scratch.container, properties={PROPERTY: mark})
    with pytest.raises(NotDestroyed):
        await scratch.destroy(zfs(fake))
    assert scratch.container in fake.datasets()
    assert await leftovers(zfs(fake), INTO) == []


async def test_what_somebody_has_put_below_it_stays(fake: FakeZfs) -> None:
    scratch = Scratch.new(INTO)
    await scratch.create(zfs(fake), 1 << 20)
    fake.create(f"{scratch.container}/mine")
    with pytest.raises(NotDestroyed, match="has children"):
        await scratch.destroy(zfs(fake))
    assert f"{scratch.container}/mine" in fake.datasets()
    restored(fake, scratch)
    fake.create(f"{scratch.target}/mine")
    with pytest.raises(NotDestroyed, match="has children"):
        await scratch.destroy(zfs(fake))
    assert f"{scratch.target}/mine" in fake.datasets()


async def test_what_is_in_use_stays_and_the_next_drill_tries_again(fake: FakeZfs) -> None:
    scratch = Scratch.new(INTO)
    await scratch.create(zfs(fake), 1 << 20)
    restored(fake, scratch)
    fake.alter(scratch.target, busy=True)
    with pytest.raises(NotDestroyed, match="the next drill tries again"):
        await scratch.destroy(zfs(fake))
    fake.alter(scratch.target, busy=False)
    (found,) = await leftovers(zfs(fake), INTO)
    await found.destroy(zfs(fake))
    assert fake.datasets() == {"tank", INTO}


async def test_a_suspended_pool_ends_the_wait(fake: FakeZfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratching, "while_usable", functools.partial(while_usable, every=0.01))

    async def suspend(command: str) -> None:
        while not any(line.startswith(command) for line in fake.commands):
            await asyncio.sleep(0.01)
        fake.pool("tank", health="SUSPENDED")

    scratch = Scratch.new(INTO)
    await scratch.create(zfs(fake), 1 << 20)
    fake.fail("destroy", "hang")
    suspending = asyncio.create_task(suspend("destroy"))
    with pytest.raises(NotDestroyed, match=r"the pool is SUSPENDED.*; the next drill tries again"):
        await scratch.destroy(zfs(fake))
    await suspending
    fake.pool("tank", health="ONLINE")
    fake.forget_commands()
    fake.fail("create", "hang")
    suspending = asyncio.create_task(suspend("create"))
    with pytest.raises(PoolError, match="the pool is SUSPENDED"):
        await Scratch.new(INTO).create(zfs(fake), 1 << 20)
    await suspending


def test_what_is_received_is_marked_and_hidden() -> None:
    scratch = Scratch(INTO, MARK)
    quiet = ["-o", "readonly=on", "-o", "com.sun:auto-snapshot=false", "-o", f"{PROPERTY}={MARK}"]
    assert scratch.receive_options(entry("tank/a@a", 1)) == ["-o", "mountpoint=none", *quiet]
    volume = entry("tank/a@a", 1, dataset_type="volume")
    assert scratch.receive_options(volume) == ["-o", "volmode=none", *quiet]
