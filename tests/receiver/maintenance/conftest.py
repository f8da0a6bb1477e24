from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.buckets import MemoryBucket, store_in
from tests.receiver.helpers import make_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["folder", "bucket"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store of either kind, into which streams are copied."""
    if request.param == "folder":
        return make_store(tmp_path, "target")
    home = tmp_path / "home"
    home.mkdir()
    return store_in(MemoryBucket(least_part=0), home, 100_000)
