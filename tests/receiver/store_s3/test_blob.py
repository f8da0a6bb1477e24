from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.store.seekable import FileDamaged
from fullsend_receiver.store_s3.blob import BucketBlob

if TYPE_CHECKING:
    from tests.receiver.buckets import MemoryBucket


def test_object_is_read_in_ranges(bucket: MemoryBucket) -> None:
    bucket.put("key", b"0123456789")
    blob = BucketBlob(bucket, "key")
    assert blob.size == 10
    assert (blob.read(0, 4), blob.read(8, 5), blob.read(10, 5), blob.read(20, 5)) == (b"0123", b"89", b"", b"")
    blob.forget(0, 10)
    blob.close()


def test_missing_object_is_damage(bucket: MemoryBucket) -> None:
    with pytest.raises(FileDamaged, match="is missing"):
        BucketBlob(bucket, "key")


def test_object_that_is_deleted_while_it_is_read_is_missing(bucket: MemoryBucket) -> None:
    bucket.put("key", b"0123456789")
    blob = BucketBlob(bucket, "key")
    bucket.delete("key")
    with pytest.raises(FileNotFoundError):
        blob.read(0, 1)
