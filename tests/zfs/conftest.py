"""Fixtures for tests against real ZFS. `tests/zfs/run` runs these tests; without ZFS they fail, they never skip."""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest
from tests import programs
from tests.zfs import pools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--snapshots", type=int, default=6, help="of each chain of random changes; fewer take less time")


@pytest.fixture
def snapshots(request: pytest.FixtureRequest) -> int:
    """How many snapshots a chain of random changes has: four or more."""
    return int(request.config.getoption("--snapshots"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.zfs)


@pytest.fixture
def make_pool() -> Iterator[Callable[..., pools.Pool]]:
    """Makes as many pools as a test calls for; all are destroyed after it."""
    if os.geteuid() != 0 or not shutil.which("zpool"):
        pytest.fail("this needs root and ZFS: run it with tests/zfs/run", pytrace=False)
    # Not pytest's tmp_path: that one is kept for three runs, and an image is big.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fullsend-zfs-"))
    made: list[pools.Pool] = []

    def make(size: int = 1 << 30) -> pools.Pool:
        # A name that no pool on this machine has.
        made.append(pools.make(f"fstest{secrets.token_hex(4)}", folder, size))
        return made[-1]

    try:
        yield make
    finally:
        for pool in made:
            pools.destroy(pool)
        shutil.rmtree(folder)


@pytest.fixture
def pool(make_pool: Callable[..., pools.Pool]) -> pools.Pool:
    """A fresh pool."""
    return make_pool()


@pytest.fixture
def other_pool(make_pool: Callable[..., pools.Pool]) -> pools.Pool:
    """Another one, as on another host: to restore into."""
    return make_pool()


@pytest.fixture
def receiver(tmp_path: pathlib.Path) -> Iterator[programs.Receiver]:
    """A daemon that serves a new store on loopback. Commands run in this very process: an emulated processor starts a
    program for longer than all that it does.
    """
    with programs.serving(programs.Receiver(tmp_path / "receiver", inside=True)) as daemon:
        yield daemon


@pytest.fixture
def sender(tmp_path: pathlib.Path, receiver: programs.Receiver) -> programs.Sender:
    """A sender that is enrolled there. Its commands run in this very process too, except those with data on stdin."""
    host = programs.Sender(tmp_path / "sender", inside=True)
    host.join(receiver)
    return host
