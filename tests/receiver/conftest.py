from __future__ import annotations

import contextlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.receiver.crash import Crasher
from tests.receiver.helpers import make_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_receiver.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store, without an identity."""
    return make_store(tmp_path)


@pytest.fixture
def swift_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one, for what syncs a thousand times: only a power cut minds, not a kill."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="fullsend-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def crasher() -> Iterator[Crasher]:
    with contextlib.closing(Crasher()) as crasher:
        yield crasher
