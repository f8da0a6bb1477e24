from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.buckets import PLACES, MemoryBucket, in_ceph
from tests.receiver.versioned_bucket import VersionedBucket

from fullsend_receiver.store.api import ProbeFinding
from fullsend_receiver.store_s3.bucket import BucketBusy, BucketError, Part
from fullsend_receiver.store_s3.probe import can_copy, probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fullsend_receiver.store_s3.bucket import BucketObject


class Careless(MemoryBucket):
    """Ignores each condition, and takes any part for the one that is named."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:  # type: ignore[explicit-override]
        return super().put(key, data)

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> bool:  # type: ignore[explicit-override]
        return super().complete(key, upload, self.parts(key, upload) or ())

    def put_wrong(self, key: str, data: bytes) -> bool:  # type: ignore[explicit-override]
        super().put(key, data)
        return True


class Refusing(MemoryBucket):
    """Knows neither conditions nor multipart uploads."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:  # type: ignore[explicit-override]
        if if_absent or if_match is not None:
            raise BucketError("not implemented")
        return super().put(key, data)

    def begin_parts(self, key: str) -> str:  # type: ignore[explicit-override]
        raise BucketError("not implemented")


class WithoutCopies(MemoryBucket):
    """Does not know UploadPartCopy. `error`: what it says; None: that there is no such object."""

    def __init__(self, error: BucketError | None) -> None:
        super().__init__()
        self._error = error

    def copy_part(self, key: str, upload: str, number: int, source: BucketObject) -> Part | None:  # type: ignore[explicit-override]
        if self._error is not None:
            raise self._error
        return None


class Late(MemoryBucket):
    """Its LIST shows what was there before the last change."""

    _before: list[BucketObject]

    def entries(self, prefix: str) -> Iterator[BucketObject]:  # type: ignore[explicit-override]
        before = getattr(self, "_before", [])
        self._before = list(super().entries(prefix))
        return iter(before)


def lacks(bucket: Any, **named: Any) -> set[str]:
    return {found.what for found in probe(bucket, **named) if found.needed and not found.holds}


def test_good_bucket_lacks_nothing_and_is_left_clean() -> None:
    bucket = MemoryBucket()
    found = list(probe(bucket))
    assert [each.what for each in found if not each.holds] == ["Object Lock"]
    assert (bucket.objects, bucket.uploads) == ({}, {})


def test_ignored_conditions_are_found() -> None:
    bucket = Careless()
    part = "a part that was replaced is not taken for the first one"
    assert lacks(bucket) == {"PUT If-None-Match", "PUT If-Match", part, "multipart upload"}
    assert (bucket.objects, bucket.uploads) == ({}, {})
    found = {each.what: each for each in probe(bucket)}
    assert not found["x-amz-checksum-sha256"].holds


def finding(bucket: Any, what: str) -> ProbeFinding:
    return next(each for each in probe(bucket) if each.what == what)


@pytest.mark.parametrize(
    ("bucket", "says"),
    [
        (VersionedBucket(), "deleted with what is removed"),
        (VersionedBucket(may_delete=False), "until a lifecycle rule expires it"),
        (VersionedBucket(retention=86400.0), "when their retention has ended"),
        (VersionedBucket(retention=0.0), "deleted with what is removed"),
    ],
)
def test_what_becomes_of_versions_is_said(bucket: VersionedBucket, says: str) -> None:
    found = finding(bucket, "no versions of what is deleted")
    assert not found.holds
    assert not found.needed
    assert says in found.says
    assert bucket.objects == {}


@pytest.mark.parametrize(
    ("bucket", "holds", "says"),
    [
        (VersionedBucket(), False, "whoever has the credentials"),
        (VersionedBucket(retention=0.0), True, "no default retention"),
        (VersionedBucket(retention=30 * 86400.0), True, "COMPLIANCE, default retention 30 days"),
        (VersionedBucket(may_see=False), False, "s3:GetBucketObjectLockConfiguration"),
    ],
)
def test_object_lock_is_said(bucket: VersionedBucket, holds: bool, says: str) -> None:
    found = finding(bucket, "Object Lock")
    assert found.holds == holds
    assert not found.needed
    assert says in found.says


class Sticky(MemoryBucket):
    """A key that had an object once is never free again."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:  # type: ignore[explicit-override]
        if if_absent and key in self.deleted:
            return None
        return super().put(key, data, if_absent=if_absent, if_match=if_match)

    def delete(self, key: str) -> bool:  # type: ignore[explicit-override]
        self.deleted.add(key)
        return super().delete(key)

    def __init__(self) -> None:
        super().__init__()
        self.deleted: set[str] = set()


def test_deleted_key_that_is_not_free_is_found() -> None:
    assert lacks(Sticky()) == {"PUT If-None-Match"}


def test_unknown_requests_are_found() -> None:
    assert lacks(Refusing()) == {"PUT If-None-Match", "PUT If-Match", "multipart upload"}


@pytest.mark.parametrize("error", [None, BucketError("s3://b/k: UploadPartCopy is refused (501 NotImplemented)")])
def test_store_that_cannot_copy_is_told_with_what_that_limits(error: BucketError | None) -> None:
    bucket = WithoutCopies(error)
    assert lacks(bucket) == set()
    (found,) = [each for each in probe(bucket) if each.what == "UploadPartCopy"]
    assert (found.holds, found.needed) == (False, False)
    assert "no stream may have more than about 5" in found.says
    assert str(error or "") in found.says
    assert not can_copy(bucket)
    assert (bucket.objects, bucket.uploads) == ({}, {})


def test_store_that_is_away_tells_nothing_about_copies() -> None:
    bucket = WithoutCopies(BucketBusy("the object store is overloaded"))
    with pytest.raises(BucketBusy):
        can_copy(bucket)
    assert (bucket.objects, bucket.uploads) == ({}, {})


def test_copy_of_something_else_is_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket()
    monkeypatch.setattr(
        bucket, "copy_part", lambda key, upload, number, _source: bucket.put_part(key, upload, number, bytes(6 << 20))
    )
    assert not can_copy(bucket)


def test_late_list_is_found() -> None:
    assert "consistent LIST" in lacks(Late())


@pytest.mark.parametrize("apart", [-1000, 1000])
def test_clock_that_is_off_is_found(apart: float) -> None:
    assert lacks(MemoryBucket(), now=lambda: time.time() + apart) == {"clock"}


def test_store_that_tells_no_time_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBucket, "date", lambda _self: "")
    assert lacks(MemoryBucket()) == set()


@pytest.mark.parametrize("place", PLACES)
def test_bucket_of_this_place_has_all_that_is_needed(place: str) -> None:
    bucket: Any = MemoryBucket() if place == "memory" else in_ceph(secrets.token_hex(8))
    assert lacks(bucket) == set()
    assert can_copy(bucket)
    assert list(bucket.entries("")) == []
