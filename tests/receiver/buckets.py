"""A bucket in memory, with what Ceph's gateway does and refuses, and a bucket whose client dies."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import itertools
import os
import threading
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.receiver import crash
from tests.receiver.helpers import PROGRAM, SENDER, push_of, segments_of, take

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.stream import facts
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.names import stream_file
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store_s3 import journals
from fullsend_receiver.store_s3.bucket import (
    Bucket,
    BucketError,
    BucketObject,
    Fetched,
    LockRule,
    ObjectVersion,
    Part,
    UnfinishedUpload,
)
from fullsend_receiver.store_s3.client import Access, BotoBucket
from fullsend_receiver.store_s3.journals import BucketJournal
from fullsend_receiver.store_s3.part_sizes import COPY_MOST, PARTS_MAX, PartSizes
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fullsend_receiver.store.api import Replaced
    from fullsend_receiver.store_s3.probe import ProbedBucket

#: S3 refuses smaller parts, except for the last one.
LEAST_PART: Final = 5 << 20
#: In the real Ceph.
BUCKET: Final = "fullsend-tests"
ACCESS_KEY: Final = "testkey"
SECRET_KEY: Final = "testsecret"


def _etag(data: bytes) -> str:
    """Return what MD5 would be in Ceph, for less."""
    return hashlib.sha256(data).hexdigest()[:32]


class MemoryBucket:
    """A `Bucket` in memory. `least_part`: bytes of a part that is not the last one; `parts_most`: numbers of parts."""

    where = "s3://memory"

    def __init__(self, *, least_part: int = LEAST_PART, parts_most: int = PARTS_MAX) -> None:
        self.objects: dict[str, tuple[bytes, str, float]] = {}
        self.uploads: dict[str, tuple[str, dict[int, tuple[bytes, Part]], float]] = {}
        self._least_part = least_part
        self._parts_most = parts_most
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:
        with self._lock:
            there = self.objects.get(key)
            if (if_absent and there is not None) or (if_match is not None and (there is None or there[1] != if_match)):
                return None
            etag = _etag(data)
            self.objects[key] = (bytes(data), etag, time.time())
            return etag

    def get(self, key: str) -> Fetched | None:
        there = self.objects.get(key)
        return None if there is None else Fetched(there[0], there[1])

    def read(self, key: str, start: int, size: int) -> bytes:
        there = self.objects.get(key)
        if there is None:
            raise FileNotFoundError(key)
        return there[0][start : start + size]

    def head(self, key: str) -> BucketObject | None:
        there = self.objects.get(key)
        return None if there is None else BucketObject(key, len(there[0]), there[1], there[2])

    def delete(self, key: str) -> bool:
        self.objects.pop(key, None)
        return False

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        return iter(())

    def delete_version(self, key: str, version: str) -> bool:
        raise AssertionError(key, version)

    def versioning(self) -> str:
        return ""

    def object_lock(self) -> LockRule | None:
        return None

    def locked_until(self, key: str) -> float | None:
        raise AssertionError(key)

    def entries(self, prefix: str) -> Iterator[BucketObject]:
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix) and (found := self.head(key)) is not None:
                yield found

    def folders(self) -> list[str]:
        return sorted({key.partition("/")[0] for key in self.objects if "/" in key})

    def begin_parts(self, key: str) -> str:
        upload = f"upload-{next(self._numbers)}"
        self.uploads[upload] = (key, {}, time.time())
        return upload

    def was_repeated(self, upload: str) -> bool:
        return False

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part | None:
        found = Part(number, _etag(data), len(data), hashlib.sha256(data).hexdigest())
        if upload not in self.uploads:
            return None
        parts = self._parts(key, upload)
        if not 1 <= number <= self._parts_most:
            raise BucketError(f"{self.where}/{key}: UploadPart is refused (400 InvalidArgument)")
        parts[number] = (bytes(data), found)
        return found

    def copy_part(self, key: str, upload: str, number: int, source: BucketObject) -> Part | None:
        there = None if "%" in source.key else self.objects.get(source.key)  # as Ceph
        if there is None or upload not in self.uploads:
            return None
        if len(there[0]) > COPY_MOST:
            raise BucketError(f"{self.where}/{key}: UploadPartCopy is refused (400 EntityTooLarge)")
        return self.put_part(key, upload, number, there[0])

    def _parts(self, key: str, upload: str) -> dict[int, tuple[bytes, Part]]:
        named, parts, _begun = self.uploads[upload]
        assert named == key
        return parts

    def parts(self, key: str, upload: str) -> Sequence[Part] | None:
        if upload not in self.uploads:
            return None
        return [part for _number, (_data, part) in sorted(self._parts(key, upload).items())]

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> bool:
        there = self.parts(key, upload)
        if there is None or [(each.number, each.etag) for each in parts] != [
            (each.number, each.etag) for each in there
        ]:
            return False  # as Ceph, also for a part that is not named
        if any(each.size < self._least_part for each in parts[:-1]):
            return False
        stored = self._parts(key, upload)
        self.put(key, b"".join(stored[each.number][0] for each in parts))
        del self.uploads[upload]
        return True

    def abort(self, key: str, upload: str) -> None:
        self.uploads.pop(upload, None)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        for upload, (key, _parts, begun) in list(self.uploads.items()):
            if key.startswith(prefix):
                yield UnfinishedUpload(key, upload, begun)

    # --- what only a probe asks

    def put_wrong(self, key: str, data: bytes) -> bool:
        return False

    def date(self) -> str:
        return email.utils.formatdate(time.time(), usegmt=True)


class SteppedBucket:
    """A bucket that calls `step` before each request that changes something."""

    _CHANGES: Final = {
        *("put", "delete", "delete_version", "begin_parts", "put_part", "copy_part", "complete", "abort"),
    }

    def __init__(self, bucket: ProbedBucket, step: Callable[[str], None]) -> None:
        self.real = bucket
        self._step = step

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.real, name)
        if name not in self._CHANGES:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self._step(name)
            return real(*arguments, **named)

        return call


def gateways() -> list[str]:
    """Return the addresses of the gateways of a real Ceph; none where tests/s3/run has not started one."""
    return os.environ.get("FULLSEND_TEST_S3", "").split()


#: Where a bucket can be.
PLACES: Final = ["memory", *([pytest.param("ceph", marks=pytest.mark.s3)] if gateways() else [])]


def in_ceph(prefix: str, gateway: int = 0, name: str = BUCKET) -> BotoBucket:
    """Return a part of a bucket in the real Ceph, which is made if there is none. `gateway`: 0 or 1; `name`: of it."""
    endpoint = gateways()[gateway]
    access = Access(endpoint, "us-east-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    bucket = BotoBucket(name, prefix, access)
    there = bucket._client.exceptions
    with contextlib.suppress(there.BucketAlreadyOwnedByYou, there.BucketAlreadyExists):  # SeaweedFS has the other one
        bucket._client.create_bucket(Bucket=name)
    return bucket


def put_part(bucket: Bucket, key: str, upload: str, number: int, data: bytes) -> Part:
    """Store a part of an upload that is there."""
    part = bucket.put_part(key, upload, number, data)
    assert part is not None
    return part


# --- stores -------------------------------------------------------------------------------------------------------

RAW: Final = crash.RAW
PUSH: Final = push_of(RAW)
KEY: Final = partial_key(SENDER, PUSH)
FILE: Final = PurePosixPath("alpha/tank/data/@now.1122334455667788.full.zfs.zst")
#: Two of the three chunks of RAW are a part.
PART: Final = sum(len(chunk.frame) for chunk in crash.chunks()[:2])


#: Each chunk of RAW but the last one is a part: the first one of the object, and the others are a segment each.
SEGMENTS: Final = PartSizes(direct=1, least=400, segment=1, parts_most=20)


def store_in(bucket: Any, folder: Path, part_least: int = PART, sizes: PartSizes | None = None) -> BucketStore:
    """Return a store in a bucket, as a process has it that starts now."""
    return BucketStore(bucket, folder, sizes=sizes or PartSizes(least=part_least))


def arriving(store: BucketStore, chunks: int = 3) -> Ingest:
    """Begin an upload of RAW, and append so many chunks, each a batch."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, PUSH)))
    take(ingest, crash.chunks()[:chunks])
    return ingest


def manifest_for(sealed: tuple[int, str], received: str = "2026-11-24T00:00:00Z") -> Manifest:
    """Return the manifest of RAW. `sealed`: what sealing it has returned."""
    return Manifest.model_validate(
        {
            "sender": SENDER,
            "dataset": PUSH.dataset,
            "snapshot": PUSH.snapshot,
            "guid": PUSH.guid,
            "base_guid": None,
            "kind": "full",
            "dataset_type": "filesystem",
            "stream_class": "plain",
            "flags": "",
            "features": [],
            "snapshots": [],
            "created": "2026-11-23T06:30:00Z",
            "received": received,
            "raw_bytes": len(RAW),
            "stored_bytes": sealed[0],
            "sha256": None,
            "file_sha256": sealed[1],
            "segments": [each.model_dump() for each in segments_of(RAW)],
            "resumptions": [],
            "chunks": len(crash.chunks()),
            "sender_program": PROGRAM,
            "receiver_program": "fullsendd 0.0",
            "zfs_version": None,
            "properties": None,
            "proven_by": "both",
        }
    )


def commit_all(ingest: Ingest) -> PurePosixPath:
    """Conclude an upload as the receiver does, and commit it. Returns: its file."""
    file = commit_if_first(ingest)
    assert file is not None
    return file


def commit_if_first(ingest: Ingest) -> PurePosixPath | None:
    """Do the same. Returns: its file; None: another one has its name."""
    ingest.walker.finish()
    about = facts.conclude(ingest.walker.begins)
    size, sha256 = ingest.partial.seal(ingest.chunks)
    manifest = make_manifest(
        SENDER,
        about,
        embedded_spills=ingest.walker.embedded_spills,
        segments=ingest.segments(),
        resumptions=[],
        stored_bytes=size,
        file_sha256=sha256,
        chunks=ingest.chunks,
        sender_program=PROGRAM,
        zfs_version=None,
        properties=None,
        proven_by="both",
    )
    file = stream_file(SENDER, about)
    return file if ingest.partial.commit(file, manifest) else None


def store_raw(store: BucketStore, replaces: Replaced | None = None) -> bool:
    """Store RAW. Returns: whether its commit has."""
    upload = arriving(store).partial
    return upload.commit(FILE, manifest_for(upload.seal(len(crash.chunks()))), replaces)


def content(store: BucketStore, file: PurePosixPath = FILE) -> bytes:
    """Return the bytes of a stored stream."""
    with contextlib.closing(store.open(file)) as blob:
        return blob.read(0, blob.size)


def names(bucket: MemoryBucket, prefix: str = "") -> list[str]:
    """Return the keys of a bucket."""
    return [each.key for each in bucket.entries(prefix)]


def journal_of(bucket: MemoryBucket) -> BucketJournal | None:
    """Read the journal of RAW. Raises: PartialDamaged."""
    opened = journals.read_open(bucket, KEY)
    return None if opened is None else journals.read(bucket, opened)
