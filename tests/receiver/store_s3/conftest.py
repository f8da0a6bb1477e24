from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import store_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.receiver.buckets import MemoryBucket

    from fullsend_receiver.store_s3.stores import BucketStore


@pytest.fixture
def store(bucket: MemoryBucket, tmp_path: Path) -> BucketStore:
    return store_in(bucket, tmp_path)


@pytest.fixture
def other(bucket: MemoryBucket, tmp_path: Path) -> BucketStore:
    """The same store in another process."""
    return store_in(bucket, tmp_path)
