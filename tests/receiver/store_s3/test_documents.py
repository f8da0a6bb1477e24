from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

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
