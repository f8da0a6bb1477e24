from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.buckets import KEY, PUSH, MemoryBucket, SteppedBucket, arriving, commit_all, names, store_in
from tests.receiver.helpers import SENDER, take

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store_s3 import faults, journals, keys
from fullsend_receiver.store_s3.bucket import BucketError, Fetched
from fullsend_receiver.store_s3.recovery import PROBE_AGE
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_upload_is_kept_and_told(store: BucketStore, other: BucketStore) -> None:
    ingest = arriving(store, 2)
    ingest.partial.close(keep=True)
    assert other.recover() == [f"partial {KEY}: kept, with {ingest.offset} raw bytes"]


def test_upload_of_this_process_is_left(store: BucketStore) -> None:
    ingest = arriving(store, 0)
    assert store.recover() == []
    ingest.partial.close(keep=True)


def test_journal_without_its_first_object_is_deleted_with_its_bytes(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket
) -> None:
    arriving(store, 2).partial.close(keep=True)
    bucket.delete(keys.open_key(KEY))
    assert other.recover() == []
    assert (names(bucket), bucket.uploads) == ([], {})


@pytest.mark.parametrize("sweep", [BucketStore.recover, BucketStore.recover_merges])
def test_multipart_upload_of_no_arriving_stream_is_aborted(
    store: BucketStore, other: BucketStore, bucket: MemoryBucket, sweep: Callable[[BucketStore], list[str]]
) -> None:
    ingest = arriving(store, 2)
    (named,) = bucket.uploads
    data = bucket.uploads[named][0]
    bucket.begin_parts("alpha/x.zfs.zst")
    bucket.begin_parts(f"{keys.PARTIAL}{KEY}/0123456789abcdef/segment-00000001")
    just_begun = bucket.begin_parts(data)  # its daemon writes the line that names it next
    sweep(other)
    assert set(bucket.uploads) == {named, just_begun}
    bucket.abort(data, just_begun)
    take(ingest, crash.chunks()[2:])  # nothing has happened to it
    commit_all(ingest)
    bucket.begin_parts(data)  # a request of an earlier daemon, which a gateway does late
    sweep(other)
    assert bucket.uploads == {}


def test_upload_of_a_store_below_this_one_is_left(store: BucketStore, bucket: MemoryBucket) -> None:
    bucket.put(f"a/b/{keys.MARKER}", b"of the other store")
    theirs = bucket.begin_parts("a/b/alpha/tank/@x.1122334455667788.zfs.zst")
    bucket.begin_parts("a/alpha/tank/@x.1122334455667788.zfs.zst")
    store.recover()
    assert set(bucket.uploads) == {theirs}


def test_upload_that_a_killed_daemon_began_is_aborted_with_its_stream(store: BucketStore, bucket: MemoryBucket) -> None:
    """The daemon is killed behind the request, so its journal has no object yet."""
    upload = store.begin(KEY, open_offer(SENDER, PUSH))
    opened = journals.read_open(bucket, KEY)
    assert opened is not None
    bucket.begin_parts(opened.data)
    upload.close(keep=False)
    assert (names(bucket), bucket.uploads) == ([], {})


def test_merge_is_made_anew(store: BucketStore, other: BucketStore, bucket: MemoryBucket) -> None:
    opened = open_offer(SENDER, PUSH).model_copy(update={"merge": True})
    store.begin(KEY, opened).close(keep=True)
    assert other.recover_merges() == []
    assert names(bucket) == []


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("chunks", [0, 1])
def test_what_another_host_may_be_writing_is_left_alone(
    bucket: MemoryBucket, tmp_path: Path, chunks: int, *, merge: bool
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = store_in(bucket, tmp_path / "one"), BucketStore(bucket, tmp_path / "two", patience=900.0)
    opened = open_offer(SENDER, PUSH).model_copy(update={"merge": merge})
    ingest = Ingest(one.begin(KEY, opened))
    take(ingest, crash.chunks()[:chunks])
    before = names(bucket)
    two.recover()
    two.recover_merges()
    assert names(bucket) == before
    take(ingest, crash.chunks()[chunks:])  # nothing has happened to it
    ingest.partial.close(keep=True)
    bucket.objects = {key: (data, etag, at - 1000) for key, (data, etag, at) in bucket.objects.items()}
    two.recover()
    assert (names(bucket) == []) == merge


def test_upload_that_cannot_be_examined_is_left(
    store: BucketStore,
    other: BucketStore,
    bucket: MemoryBucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arriving(store, 2).partial.close(keep=True)
    before = names(bucket)

    real = bucket.get

    def get(key: str) -> Fetched | None:
        if key.startswith(keys.PARTIAL):
            raise BucketError("the object store is overloaded")
        return real(key)

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(bucket, "get", get)
        assert other.recover() == []
    assert "is left to the next push" in caplog.text
    assert names(bucket) == before


def test_recovery_in_a_full_bucket_fails_as_on_a_full_disk(bucket: MemoryBucket, tmp_path: Path) -> None:
    """A daemon starts all the same, and streams can be restored."""

    def refuse(name: str) -> None:
        raise faults.refused("s3://memory/key", name, 403, "QuotaExceeded")

    bucket.put(keys.REMOVING, b'{"format": 1, "state": "choosing"}')
    with pytest.raises(OSError, match="the bucket is full"):
        store_in(SteppedBucket(bucket, refuse), tmp_path).recover()


def test_what_a_probe_has_left_is_deleted_after_a_day(store: BucketStore, bucket: MemoryBucket) -> None:
    bucket.put(f"{keys.PROBE}x/source", b"data")
    bucket.begin_parts(f"{keys.PROBE}x/parts")
    store.recover()
    assert (names(bucket), len(bucket.uploads)) == ([f"{keys.PROBE}x/source"], 1)
    bucket.objects = {key: (data, etag, at - PROBE_AGE - 1) for key, (data, etag, at) in bucket.objects.items()}
    bucket.uploads = {
        upload: (key, parts, begun - PROBE_AGE - 1) for upload, (key, parts, begun) in bucket.uploads.items()
    }
    store.recover()
    assert (names(bucket), bucket.uploads) == ([], {})
