"""Tries what a bucket does, before anything relies on it: each object store has another dialect of S3.

A probe writes below `.state/probe-...`, and deletes that. It finds what this bucket promises, and what it lacks. No
store can be made in it without what is `needed`.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.units import format_size, plural
from fullsend_receiver.store.api import ProbeFinding
from fullsend_receiver.store_s3 import keys
from fullsend_receiver.store_s3.bucket import Bucket, BucketBusy, BucketError, Part
from fullsend_receiver.store_s3.part_sizes import PartSizes

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Processes that write one key at the same time, and how often.
_WRITERS: Final = 8
_RACES: Final = 3
#: S3 has no smaller part, except for the last one.
_PART: Final = 5 * limits.MIB
#: Seconds between this host's clock and the object store's. S3 refuses requests that are 15 minutes off.
CLOCK_MOST: Final = 300.0


class ProbedBucket(Bucket, Protocol):
    """A bucket that answers what only a probe asks."""

    def put_wrong(self, key: str, data: bytes) -> bool:
        """Store an object under a wrong checksum. Returns: whether that was accepted."""

    def date(self) -> str:
        """Return the object store's date and time, as HTTP says it; "" if it does not."""


def probe(bucket: ProbedBucket, now: Callable[[], float] = time.time) -> Iterator[ProbeFinding]:
    """Try a bucket, one thing after another. `now`: seconds since the epoch.

    Raises: BucketError if it cannot be reached, or refuses what every dialect has.
    """
    folder = f"{keys.PROBE}{keys.unique()}/"
    try:
        yield _clock(bucket, now)
        yield _absent(bucket, folder)
        yield _swap(bucket, folder)
        yield _list(bucket, folder)
        yield from _multipart(bucket, folder)
        yield _copy(bucket, folder)
        accepted = bucket.put_wrong(f"{folder}wrong", b"data")
        yield ProbeFinding(
            "x-amz-checksum-sha256", not accepted, needed=False, says="a wrong one is accepted" if accepted else ""
        )
        yield _versions(bucket, folder)
        yield _lock(bucket)
    finally:
        for each in list(bucket.entries(folder)):
            bucket.delete(each.key)


def can_copy(bucket: Bucket) -> bool:
    """Whether an object can be copied into a part of another one. Raises: BucketError if that cannot be told now."""
    folder = f"{keys.PROBE}{keys.unique()}/"
    try:
        return _copy(bucket, folder).holds
    finally:
        for each in list(bucket.entries(folder)):
            bucket.delete(each.key)


def _clock(bucket: ProbedBucket, now: Callable[[], float]) -> ProbeFinding:
    said = bucket.date()
    try:
        there = email.utils.parsedate_to_datetime(said).timestamp()
    except ValueError:
        return ProbeFinding("clock", holds=True, needed=True, says="the object store tells no time")
    apart = now() - there
    says = f"this host is {abs(apart):.0f} s {'ahead' if apart > 0 else 'behind'}"
    return ProbeFinding("clock", abs(apart) <= CLOCK_MOST, needed=True, says=says)


def _absent(bucket: Bucket, folder: str) -> ProbeFinding:
    """Let several write one key at once, if it is free: one of them must win."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        for race in range(_RACES):
            key = f"{folder}race-{race}"

            def write(number: int, key: str = key) -> bool:
                return bucket.put(key, str(number).encode(), if_absent=True) is not None

            try:
                won = [number for number, is_mine in enumerate(pool.map(write, range(_WRITERS))) if is_mine]
            except BucketError as error:
                return ProbeFinding("PUT If-None-Match", holds=False, needed=True, says=str(error))
            found = bucket.get(key)
            if len(won) != 1 or found is None or found.data != str(won[0]).encode():
                # As Ceph 16 does.
                why = ": with versions the condition is ignored, so use a bucket without" if bucket.versioning() else ""
                says = f"of {_WRITERS}, {len(won)} won{why}"
                return ProbeFinding("PUT If-None-Match", holds=False, needed=True, says=says)
    # Where versions are kept, a marker stands under the key then.
    bucket.delete(key)
    if bucket.put(key, b"again", if_absent=True) is None:
        says = "a key counts as taken when its object was deleted"
        return ProbeFinding("PUT If-None-Match", holds=False, needed=True, says=says)
    return ProbeFinding("PUT If-None-Match", holds=True, needed=True)


def _swap(bucket: Bucket, folder: str) -> ProbeFinding:
    key = f"{folder}swap"
    try:
        first = bucket.put(key, b"one")
        second = bucket.put(key, b"two", if_match=first)
        late = bucket.put(key, b"three", if_match=first)
        missing = bucket.put(f"{folder}none", b"four", if_match=first)
    except BucketError as error:
        return ProbeFinding("PUT If-Match", holds=False, needed=True, says=str(error))
    found = bucket.get(key)
    holds = second is not None and late is None and missing is None and found is not None and found.data == b"two"
    return ProbeFinding("PUT If-Match", holds=holds, needed=True, says="" if holds else "the condition is ignored")


def _versions(bucket: Bucket, folder: str) -> ProbeFinding:
    """See whether the bucket keeps what is deleted, and whether the rights suffice to delete that, too."""
    what, key = "no versions of what is deleted", f"{folder}version"
    bucket.put(key, b"data")
    if not bucket.delete(key):
        return ProbeFinding(what, holds=True, needed=False)
    lock = bucket.object_lock()
    left = [each for each in bucket.versions(key) if not each.is_marker]
    if all(bucket.delete_version(each.key, each.version) for each in left):
        says = "they are deleted with what is removed"
    elif lock is not None and lock.mode:
        says = "they are deleted when their retention has ended, if the rights suffice (s3:DeleteObjectVersion)"
    else:
        says = (
            "the right to delete them is missing (s3:DeleteObjectVersion): what is removed costs space until a"
            " lifecycle rule expires it"
        )
    return ProbeFinding(what, holds=False, needed=False, says=says)


def _lock(bucket: Bucket) -> ProbeFinding:
    found = bucket.object_lock()
    if found is None:
        return ProbeFinding("Object Lock", holds=False, needed=False, says="whoever has the credentials can delete all")
    if not found.readable:
        says = "the rights do not suffice to see it (s3:GetBucketObjectLockConfiguration): each removal asks for locks"
        return ProbeFinding("Object Lock", holds=False, needed=False, says=says)
    if not found.mode:
        says = "no default retention: new streams are not locked"
        return ProbeFinding("Object Lock", holds=True, needed=False, says=says)
    days = plural(round(found.seconds / 86400), "day")
    says = f"{found.mode}, default retention {days}: no stream can go before, and no version of a working object"
    return ProbeFinding("Object Lock", holds=True, needed=False, says=says)


def _list(bucket: Bucket, folder: str) -> ProbeFinding:
    """See that a LIST has what was written, and has not what was deleted, at once."""
    key = f"{folder}list/%20"
    for _time in range(_RACES):
        bucket.put(key, b"data")
        there = [each.key for each in bucket.entries(f"{folder}list/")]
        bucket.delete(key)
        gone = [each.key for each in bucket.entries(f"{folder}list/")]
        if there != [key] or gone:
            return ProbeFinding("consistent LIST", holds=False, needed=True, says="it shows an earlier state")
    return ProbeFinding("consistent LIST", holds=True, needed=True)


def _multipart(bucket: Bucket, folder: str) -> Iterator[ProbeFinding]:
    key, first, last = f"{folder}parts", bytes(_PART), b"the end"
    try:
        upload = bucket.begin_parts(key)
    except BucketError as error:
        yield ProbeFinding("multipart upload", holds=False, needed=True, says=str(error))
        return
    try:
        parts = [_part(bucket, key, upload, 1, first), _part(bucket, key, upload, 2, last)]
        listed = bucket.parts(key, upload) or ()
        same = [(each.number, each.etag) for each in listed] == [(each.number, each.etag) for each in parts]
        yield ProbeFinding("ListParts", holds=same, needed=True)
        _part(bucket, key, upload, 2, b"another end")
        late = bucket.complete(key, upload, parts)
        found = bucket.head(key)
        refused = not late or found is None or bucket.read(key, _PART, _PART) == last
        yield ProbeFinding("a part that was replaced is not taken for the first one", holds=refused, needed=True)
        if not late:
            parts = [parts[0], _part(bucket, key, upload, 2, last)]
            whole = bucket.complete(key, upload, parts) and bucket.read(key, _PART - 1, _PART) == b"\0" + last
            yield ProbeFinding("multipart upload", holds=whole, needed=True)
        else:
            yield ProbeFinding("multipart upload", holds=refused, needed=True)
    finally:
        bucket.abort(key, upload)


def _part(bucket: Bucket, key: str, upload: str, number: int, data: bytes) -> Part:
    part = bucket.put_part(key, upload, number, data)
    if part is None:
        raise BucketBusy(f"{bucket.where}/{key}: the object store has lost a new multipart upload: try again later")
    return part


def _copy(bucket: Bucket, folder: str) -> ProbeFinding:
    """Make an object of a copy and a part, under a key such as streams have."""
    key, source = f"{folder}copy%20", f"{folder}source"
    holds, says, upload = False, "it has another result", ""
    try:
        bucket.put(source, bytes(_PART))
        there = bucket.head(source)
        upload = bucket.begin_parts(key)
        copied = None if there is None else bucket.copy_part(key, upload, 1, there)
        if copied is not None and bucket.complete(key, upload, [copied, _part(bucket, key, upload, 2, b"the end")]):
            found = bucket.head(key)
            holds = found is not None and found.size == _PART + len(b"the end")
            holds = holds and bucket.read(key, _PART - 1, _PART) == b"\0the end"
    except BucketBusy:
        raise
    except BucketError as error:
        says = str(error)
    finally:
        if upload:
            bucket.abort(key, upload)
    most = format_size(PartSizes().without_segments)
    says = "" if holds else f"no stream may have more than about {most} in the store: {says}"
    return ProbeFinding("UploadPartCopy", holds=holds, needed=False, says=says)
