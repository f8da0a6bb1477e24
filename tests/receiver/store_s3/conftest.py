from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import MemoryBucket, store_in

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store_s3.stores import BucketStore


@pytest.fixture
def bucket() -> MemoryBucket:
    """An empty bucket, in which a part may be small."""
    return MemoryBucket(least_part=0)


@pytest.fixture
def store(bucket: MemoryBucket, tmp_path: Path) -> BucketStore:
    return store_in(bucket, tmp_path)


@pytest.fixture
def other(bucket: MemoryBucket, tmp_path: Path) -> BucketStore:
    """The same store in another process."""
    return store_in(bucket, tmp_path)
