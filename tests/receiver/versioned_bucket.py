"""A bucket in memory that keeps versions, and locks them, as Ceph and AWS do."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.store_s3.bucket import BucketError, LockRule, ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class KeptVersion:
    """`data`: None: it is a marker; `until`: of its lock, 0: none."""

    name: str
    data: bytes | None
    etag: str
    modified: float
    until: float


class VersionedBucket(MemoryBucket):
    """A `MemoryBucket` with versions. `retention`: seconds of its default retention, None: it has no Object Lock;
    `may_delete`: whether the rights suffice to delete versions; `may_see`: whether they suffice to read locks.
    """

    def __init__(self, *, retention: float | None = None, may_delete: bool = True, may_see: bool = True) -> None:
        super().__init__(least_part=1)
        self.history: dict[str, list[KeptVersion]] = {}
        self._retention = retention
        self._may_delete = may_delete
        self._may_see = may_see
        self._names = itertools.count(1)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:  # type: ignore[explicit-override]
        etag = super().put(key, data, if_absent=if_absent, if_match=if_match)
        if etag is not None:
            self._keep(key, bytes(data), etag, time.time() + self._retention if self._retention else 0.0)
        return etag

    def _keep(self, key: str, data: bytes | None, etag: str, until: float) -> None:
        version = KeptVersion(f"v{next(self._names)}", data, etag, time.time(), until)
        self.history.setdefault(key, []).append(version)

    def delete(self, key: str) -> bool:  # type: ignore[explicit-override]
        super().delete(key)
        self._keep(key, None, "", 0.0)
        return True

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:  # type: ignore[explicit-override]
        for key in sorted(self.history, key=str.encode):
            if key.startswith(prefix):
                versions = self.history[key][::-1]
                for each in versions:
                    size, is_marker = len(each.data or b""), each.data is None
                    yield ObjectVersion(key, each.name, size, each.modified, each is versions[0], is_marker)

    def delete_version(self, key: str, version: str) -> bool:  # type: ignore[explicit-override]
        found = next((each for each in self.history.get(key, ()) if each.name == version), None)
        if found is None:
            return True
        if not self._may_delete or found.until > time.time():
            return False
        was_latest = found is self.history[key][-1]
        self.history[key].remove(found)
        last = self.history[key][-1] if self.history[key] else None
        if last is None:
            del self.history[key]
        if last is None or last.data is None:
            self.objects.pop(key, None)
        elif was_latest:  # what a marker, or a newer version, had hidden is the object again
            self.objects[key] = last.data, last.etag, last.modified
        return True

    def versioning(self) -> str:  # type: ignore[explicit-override]
        return "Enabled"

    def object_lock(self) -> LockRule | None:  # type: ignore[explicit-override]
        if not self._may_see:
            return LockRule(readable=False)
        if self._retention is None:
            return None
        return LockRule("COMPLIANCE" if self._retention else "", self._retention)

    def locked_until(self, key: str) -> float | None:  # type: ignore[explicit-override]
        if not self._may_see:
            raise BucketError(f"{self.where}/{key}: GetObjectRetention is refused (403 AccessDenied)")
        until = self.history[key][-1].until if key in self.objects else 0.0
        return until if until > time.time() else None

    # --- what a person does

    def lock(self, key: str, until: float = math.inf) -> None:
        """Lock the object until then; inf: as a legal hold does."""
        self.history[key][-1] = replace(self.history[key][-1], until=until)

    def age(self, seconds: float) -> None:
        """Let time pass: what is here was written, and is locked, so much earlier."""
        for key, versions in self.history.items():
            self.history[key] = [
                replace(each, modified=each.modified - seconds, until=each.until - seconds) for each in versions
            ]

    @property
    def bytes_kept(self) -> int:
        """The bytes of all versions."""
        return sum(len(each.data or b"") for versions in self.history.values() for each in versions)
