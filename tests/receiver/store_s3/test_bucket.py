"""What each bucket does: the one in memory, and, where tests/s3/run has started one, that of a real Ceph."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import LEAST_PART, PLACES, MemoryBucket, in_ceph, put_part

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket


@pytest.fixture(params=PLACES)
def buckets(request: pytest.FixtureRequest) -> tuple[Bucket, Bucket]:
    """A bucket, as two processes have it: with Ceph by two gateways."""
    if request.param == "memory":
        bucket = MemoryBucket()
        return bucket, bucket
    prefix = secrets.token_hex(8)
    return in_ceph(prefix), in_ceph(prefix, 1)


def test_object_is_put_read_and_deleted(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    name = "alpha/tank%20x/@now~1:2.zfs.zst"
    etag = one.put(name, b"some bytes")
    found = other.get(name)
    assert found is not None
    assert (found.data, found.etag) == (b"some bytes", etag)
    head = other.head(name)
    assert head is not None
    assert (head.key, head.size, head.etag, head.modified > 0) == (name, 10, etag, True)
    assert other.read(name, 2, 3) == b"me "
    assert other.read(name, 8, 10) == b"es"
    assert other.read(name, 20, 10) == b""
    assert [(each.key, each.size, each.etag) for each in other.entries("alpha/tank%20")] == [(name, 10, etag)]
    one.delete(name)
    one.delete(name)
    assert other.get(name) is None
    assert other.head(name) is None
    with pytest.raises(FileNotFoundError):
        other.read(name, 0, 1)


def test_keys_are_listed_in_order_below_their_prefix(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    assert (list(one.entries("")), one.folders()) == ([], [])
    for key in ("b/2", "a", "b/10", "b/1", "c/1/2"):
        one.put(key, b"")
    assert [each.key for each in other.entries("b/")] == ["b/1", "b/10", "b/2"]
    assert other.folders() == ["b", "c"]


def test_of_writers_of_a_free_key_one_wins(buckets: tuple[Bucket, Bucket]) -> None:
    writers = 8
    with ThreadPoolExecutor(writers) as pool:
        done = list(pool.map(lambda who: buckets[who % 2].put("key", b"%d" % who, if_absent=True), range(writers)))
    (winner,) = [who for who, etag in enumerate(done) if etag is not None]
    found = buckets[0].get("key")
    assert found is not None
    assert (found.data, found.etag) == (b"%d" % winner, done[winner])


def test_object_is_replaced_by_its_etag_alone(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    first = one.put("key", b"one")
    second = other.put("key", b"two", if_match=first)
    assert second not in {None, first}
    assert one.put("key", b"three", if_match=first) is None
    assert one.put("missing", b"three", if_match=first) is None
    assert one.get("missing") is None
    found = one.get("key")
    assert found is not None
    assert found.data == b"two"


def test_parts_become_one_object(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    name = "k%40/@key~1:2.zst"
    unfinished = one.begin_parts(name)
    assert [(each.key, each.upload) for each in other.unfinished("k%40/@")] == [(name, unfinished)]
    other.abort(name, unfinished)
    upload = one.begin_parts("key")
    assert [(each.key, each.upload) for each in other.unfinished("k")] == [("key", upload)]
    parts = [put_part(one, "key", upload, 1, bytes(LEAST_PART)), put_part(other, "key", upload, 3, b"the end")]
    said = one.parts("key", upload)
    assert said is not None
    assert [(each.number, each.etag, each.size) for each in said] == [
        (each.number, each.etag, each.size) for each in parts
    ]
    assert other.head("key") is None
    assert other.complete("key", upload, parts)
    assert one.read("key", LEAST_PART - 1, 100) == b"\0the end"
    assert one.parts("key", upload) is None
    assert list(one.unfinished("k")) == []


def test_parts_that_are_not_those_of_the_upload_become_nothing(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    upload = one.begin_parts("key")
    parts = [put_part(one, "key", upload, 1, bytes(LEAST_PART)), put_part(one, "key", upload, 2, b"the end")]
    put_part(other, "key", upload, 2, b"another end")
    if one.complete("key", upload, parts):  # SeaweedFS keeps both
        assert one.read("key", LEAST_PART, 100) == b"the end"
        return
    assert not one.complete("key", upload, parts[:1])
    assert one.head("key") is None
    one.abort("key", upload)
    one.abort("key", upload)
    assert one.parts("key", upload) is None


def test_object_is_copied_into_a_part_of_another_one(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    made = one.begin_parts(".partial/k/g/segment-00000002")
    first = put_part(one, ".partial/k/g/segment-00000002", made, 1, bytes(LEAST_PART))
    assert one.complete(".partial/k/g/segment-00000002", made, [first])
    source = other.head(".partial/k/g/segment-00000002")
    assert source is not None
    upload = one.begin_parts("key%20")
    parts = [put_part(one, "key%20", upload, 1, b"1" * LEAST_PART)]
    copied = other.copy_part("key%20", upload, 2, source)
    again = one.copy_part("key%20", upload, 2, source)
    assert copied is not None
    assert again == copied  # so that a late one does no harm
    parts += [copied, put_part(one, "key%20", upload, 3, b"the end")]
    said = other.parts("key%20", upload)
    assert said is not None
    # SeaweedFS lists the repeated one twice.
    assert {(each.number, each.etag, each.size) for each in said} == {
        (each.number, each.etag, each.size) for each in parts
    }
    one.delete(source.key)
    assert other.complete("key%20", upload, parts)
    assert one.read("key%20", LEAST_PART - 1, 2) == b"1\0"
    assert one.read("key%20", 2 * LEAST_PART - 1, 100) == b"\0the end"


def test_part_of_an_upload_that_has_ended_is_none(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    upload = one.begin_parts("key")
    other.abort("key", upload)
    assert one.put_part("key", upload, 1, b"data") is None
    upload = one.begin_parts("key")
    assert other.complete("key", upload, [put_part(one, "key", upload, 1, b"data")])
    assert one.put_part("key", upload, 1, b"data") is None


def test_copy_of_what_is_not_there_is_no_part(buckets: tuple[Bucket, Bucket]) -> None:
    one, other = buckets
    one.put("source", b"data")
    source = one.head("source")
    assert source is not None
    upload = one.begin_parts("key")
    other.abort("key", upload)
    assert one.copy_part("key", upload, 1, source) is None
    upload = one.begin_parts("key")
    other.delete("source")
    assert one.copy_part("key", upload, 1, source) is None
    one.abort("key", upload)
