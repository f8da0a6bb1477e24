from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import MemoryBucket
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
def bucket() -> MemoryBucket:
    """An empty bucket, in which a part may be small."""
    return MemoryBucket(least_part=0)


@pytest.fixture(scope="session")
def crasher() -> Iterator[Crasher]:
    with contextlib.closing(Crasher()) as crasher:
        yield crasher
