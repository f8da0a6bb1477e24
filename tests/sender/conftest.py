"""What the tests of the sender share: an identity of each side, and a scripted receiver."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.fakezfs import FakeZfs
from tests.sender.peer import Keeper, receiving
from tests.sender.zfs_host import Host

from fullsend_sender.host.identity import Identity
from fullsend_sender.transfer.link import Timeouts


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
    return Timeouts(identify=2, silence=2, heartbeat=0.05, linger=0.3)


@pytest.fixture
async def host(tmp_path: Path, identity: Identity, receiver_identity: Identity) -> AsyncGenerator[Host]:
    keeper = Keeper()
    async with receiving(receiver_identity, always=keeper) as state:
        yield Host(FakeZfs.make(tmp_path / "zfs"), keeper, state.endpoint, identity)
