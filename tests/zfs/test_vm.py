"""The ground that the other tests here stand on: pools come, hold data, can be sent and received, and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.zfs import pools

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.zfs.pools import Pool


def test_what_is_sent_and_received_is_equal(pool: Pool, other_pool: Pool) -> None:
    source = pool.create("data", "-o", "compression=lz4")
    pools.fill(pool.path(source))
    pool.snapshot(f"{source}@one")
    first = pools.tree(pool.path(source))
    pools.change(pool.path(source))
    pool.snapshot(f"{source}@two")
    second = pools.tree(pool.path(source))
    assert first != second

    target = other_pool.full("copy")
    other_pool.receive(pool.send(f"{source}@one"), target)
    assert pools.tree(other_pool.path(target)) == first
    other_pool.receive(pool.send("-i", "@one", f"{source}@two"), target)
    assert pools.tree(other_pool.path(target)) == second
    for name in ("one", "two"):
        assert pool.guid(f"{source}@{name}") == other_pool.guid(f"{target}@{name}")


def test_a_stream_is_the_same_when_sent_again(pool: Pool) -> None:
    source = pool.create("data")
    pools.fill(pool.path(source))
    pool.snapshot(f"{source}@one")
    assert pool.send(f"{source}@one") == pool.send(f"{source}@one")


def test_a_pool_leaves_nothing_behind(make_pool: Callable[[], Pool]) -> None:
    made = make_pool()
    assert made.names() == {made.name}
    pools.destroy(made)
    assert pools.program("zpool", "list", made.name, check=False).returncode
    pools.make(made.name, made.root.parent)  # so that the fixture has something to destroy
