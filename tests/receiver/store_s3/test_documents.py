from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import SteppedBucket

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.store.durable import FULL
from fullsend_receiver.store.errors import StoreUnreadable
from fullsend_receiver.store_s3 import faults
from fullsend_receiver.store_s3.documents import BucketDocuments

if TYPE_CHECKING:
    from tests.receiver.buckets import MemoryBucket


def test_lines_that_are_appended_at_once_are_all_there(bucket: MemoryBucket) -> None:
    documents = BucketDocuments(bucket)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: documents.append("log", b"%d\n" % number, most=10_000), range(40)))
    found = documents.get("log")
    assert found is not None
    assert sorted(map(int, found.data.split())) == list(range(40))


def test_older_half_is_dropped_at_a_line(bucket: MemoryBucket) -> None:
    documents = BucketDocuments(bucket)
    for number in range(12):
        documents.append("log", b"line %02d\n" % number, most=80)
    found = documents.get("log")
    assert found is not None
    assert found.data.splitlines()[0].startswith(b"line ")
    assert found.data.endswith(b"line 11\n")
    assert len(found.data) <= 80


def test_document_lies_in_the_state(bucket: MemoryBucket) -> None:
    assert BucketDocuments(bucket).put("notes.json", b"x", if_match=None)
    assert bucket.get(".state/notes.json") is not None


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (503, "SlowDown", ErrorCode.LIMIT),
        (403, "AccessDenied", ErrorCode.STORE),
        (403, "QuotaExceeded", ErrorCode.SPACE),
    ],
)
def test_document_that_cannot_be_written_is_an_error_as_of_a_disk(
    bucket: MemoryBucket, status: int, code: str, told: ErrorCode
) -> None:
    def refuse(name: str) -> None:
        raise faults.refused("s3://memory/key", name, status, code)

    documents = BucketDocuments(SteppedBucket(bucket, refuse))
    with pytest.raises(OSError, match=f"is refused .{status} {code}.: ") as error:
        documents.put("notes.json", b"x", if_match=None)
    assert isinstance(error.value, StoreUnreadable)
    assert error.value.code is told
    assert (error.value.errno in FULL) == (told is ErrorCode.SPACE)
