"""What a bucket keeps of deleted and replaced objects, if it has versions; with Object Lock it has them.

A DELETE in such a bucket adds a marker, and frees nothing. So the bytes of a stream are purged: each version is deleted
by its id, the marker last, because without it an older version would be the object again. A version that a lock keeps,
or that the rights do not suffice to delete, stays. Its key is noted below `.state/left/`, and `sweep` tries it again.

The store's working objects (documents, journals) are replaced and deleted all the time. `sweep` deletes what that has
left behind. It touches no version of a stream that fullsend has not removed: if one was deleted by mistake, or with
stolen credentials, its versions are still there.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fullsend_receiver.store.api import KeptVersions
from fullsend_receiver.store_s3 import keys

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket, ObjectVersion

#: The id of what was written without versions. Where they are suspended, another object may get it at any time.
_NULL: Final = "null"
#: What is replaced and deleted all the time.
_WORKING: Final = (keys.PARTIAL, keys.STATE)
_FORMAT: Final = 1


def purge(bucket: Bucket, key: str) -> bool:
    """Delete an object for good. Its key is never used again. Versions that cannot be deleted are noted for `sweep`.

    Returns: whether the bucket keeps versions of what is deleted.
    """
    if not bucket.delete(key):
        return False
    if still := _delete(bucket, _versions_of(bucket, key), lambda _each: True):
        said = {"format": _FORMAT, "key": key}
        name = hashlib.sha256(key.encode()).hexdigest()
        bucket.put(f"{keys.LEFT}{name}.{sum(each.size for each in still)}", json.dumps(said).encode())
    return True


def purge_older(bucket: Bucket, key: str) -> None:
    """Delete the versions of an object that was replaced just now. Those that cannot be deleted stay."""
    _delete(bucket, _old(_versions_of(bucket, key)), _is_named)


def left(bucket: Bucket) -> KeptVersions:
    """Return what `purge` could not delete, and `sweep` has not deleted since. Raises: BucketError."""
    sizes = [int(each.key.rpartition(".")[2]) for each in bucket.entries(keys.LEFT)]
    return KeptVersions(len(sizes), sum(sizes))


def sweep(bucket: Bucket) -> KeptVersions:
    """Delete the versions that nothing needs. Other daemons may be at work. Returns: those that cannot be deleted yet.

    Raises: BucketError.
    """
    kept: list[ObjectVersion] = []
    if not bucket.versioning():
        return KeptVersions()
    for each in list(bucket.entries(keys.LEFT)):
        found = bucket.get(each.key)
        if found is not None:
            key = str(json.loads(found.data)["key"])
            still = _delete(bucket, _versions_of(bucket, key), lambda _each: True)
            if not still:
                bucket.delete(each.key)
            kept += still
    rule = bucket.object_lock()
    # What is younger is locked for certain: a try for each would cost a request a day.
    before = math.inf if rule is None or not rule.seconds else time.time() - rule.seconds
    count = size = 0
    for prefix in _WORKING:
        for _key, group in groupby(bucket.versions(prefix), key=attrgetter("key")):
            for version in _delete(bucket, _old(group), lambda each: _is_named(each) and each.modified <= before):
                count += 1
                size += version.size
    return KeptVersions(len(kept) + count, sum(each.size for each in kept) + size)


def _versions_of(bucket: Bucket, key: str) -> Iterator[ObjectVersion]:
    return (each for each in bucket.versions(key) if each.key == key)


def _old(versions: Iterable[ObjectVersion]) -> Iterator[ObjectVersion]:
    """Yield the versions of one key that are the object no more, and the markers."""
    return (each for each in versions if each.is_marker or not each.is_latest)


def _is_named(version: ObjectVersion) -> bool:
    """Whether no other object can have its id."""
    return version.version != _NULL


def _delete(
    bucket: Bucket, versions: Iterable[ObjectVersion], may: Callable[[ObjectVersion], bool]
) -> list[ObjectVersion]:
    """Delete versions of one key. `may`: whether to try it. Returns: those that remain, without the markers.

    The markers go last, and only if nothing remains that they hide.
    """
    every = list(versions)
    still = [
        each for each in every if not (each.is_marker or (may(each) and bucket.delete_version(each.key, each.version)))
    ]
    for each in every if not still else ():
        if each.is_marker and may(each):
            bucket.delete_version(each.key, each.version)
    return still
