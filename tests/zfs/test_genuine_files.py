"""A genuine package, received by real ZFS and read by `fullsendd get`: both must give the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests import programs, streams
from tests.file_trees import proven
from tests.zfs import pools

from fullsend_protocol.stream.records import Walker
from fullsend_receiver.cli.main import main as fullsendd_main

if TYPE_CHECKING:
    import pathlib

    from tests.zfs.pools import Pool


def fullsendd(*arguments: str | pathlib.Path) -> None:
    programs.good(programs.run_inside(fullsendd_main, *map(str, arguments), env={}))


@pytest.mark.timeout(1200)
def test_each_snapshot_of_a_package_is_the_one_that_is_received(
    pool: Pool, other_pool: Pool, tmp_path: pathlib.Path
) -> None:
    raw = next(stream.read() for stream in streams.whole() if stream.name == "tree-R")
    file = proven(tmp_path / "tree-R.zfs", raw)
    received = pool.full("tree")
    pool.receive(raw, "-u", received)
    walker = Walker()
    while walker.offset < len(raw):
        walker.walk(raw, walker.offset, len(raw), len(raw))
    names = [begin.name for begin in walker.begins if not begin.compound]
    assert len(names) > 8
    other_pool.create("out")
    for number, name in enumerate(names):
        dataset, _at, snapshot = name.removeprefix("tank/tree").partition("@")
        if not number or dataset != names[number - 1].removeprefix("tank/tree").partition("@")[0]:
            pool.mount(f"tree{dataset}")
        out = other_pool.path("out") / str(number)
        fullsendd("get", "--file", file, "--snapshot", name, "--special", "--setuid", "--into", out, "/")
        assert pools.tree(out) == pools.tree(pool.path(f"tree{dataset}") / ".zfs" / "snapshot" / snapshot)
