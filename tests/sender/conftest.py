"""What the tests of the sender share: both event loops, an identity of each side, and a scripted receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.fakezfs import FakeZfs
from tests.sender.host import Host
from tests.sender.peer import Keeper, receiving

from fullsend_sender.identity import Identity
from fullsend_sender.link import Timeouts


def _asyncio_with_debug() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test on uvloop, which the command uses, and on asyncio's own loop, which is stricter.

    In the tests of the command itself only the far side runs on the test's loop: one will do; and for those that run
    dozens of processes it has to.
    """
    if item.path.name in {"test_cli.py", "test_restore.py"} or "host" in item.fixturenames:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": _asyncio_with_debug, "uvloop": uvloop.new_event_loop}


def make_identity(folder: Path) -> Identity:
    identity = Identity.beside(str(folder / "any.toml"))
    identity.ensure()
    return identity


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """The sender's key and certificate."""
    return make_identity(tmp_path_factory.mktemp("sender"))


@pytest.fixture(scope="session")
def receiver_identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """The receiver's key and certificate."""
    return make_identity(tmp_path_factory.mktemp("receiver"))


@pytest.fixture
def brief() -> Timeouts:
    """Patience for tests in which it runs out."""
    return Timeouts(identify=0.3, silence=0.3, heartbeat=0.05, linger=0.3)


@pytest.fixture
async def host(tmp_path: Path, identity: Identity, receiver_identity: Identity) -> AsyncGenerator[Host]:
    keeper = Keeper()
    async with receiving(receiver_identity, always=keeper) as state:
        yield Host(FakeZfs.make(tmp_path / "zfs"), keeper, state.endpoint, identity)
