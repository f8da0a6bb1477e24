"""The manifests of a store in a bucket, by which streams are stored, and removed.

A manifest is put if absent, and that is the commit. It names the object that has the stream's bytes. A removal does not
delete it: it replaces it, by its ETag, with a tombstone. The next stream of this name replaces the tombstone, by its
ETag. So a process that stalls and wakes up later cannot store, remove or replace anything that it has not read.

    a stream      the manifest as in docs/format.md, and "bucket": {"data": KEY, "removed": [KEY, ...]}
    a tombstone   {"bucket": {"data": null, "removed": [KEY, ...], "mark": random}}

`removed`: the objects that earlier streams of this name had, by which an interrupted commit sees that it was complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.format.names import hash_of, manifest_of
from fullsend_protocol.shared.errors import reason
from fullsend_receiver.store.api import Stamp
from fullsend_receiver.store.errors import ManifestError
from fullsend_receiver.store_s3 import keys, versions
from fullsend_receiver.store_s3.bucket import Bucket

_PLACE: Final = "bucket"
#: How many earlier objects a manifest names. More were removed long before any process can still be at work on them.
_REMOVED_MAX: Final = 20
#: Bits of a stamp.
_STAMP_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """A manifest's object, or a tombstone. `data`: key of the stream's bytes, None: it is a tombstone; `content`: the
    manifest, as JSON.
    """

    content: dict[str, Any]
    data: str | None
    removed: tuple[str, ...]
    etag: str

    @property
    def stamp(self) -> Stamp:
        """The identity of the manifest, and which object has the bytes; 0: none, it is a tombstone."""
        return (number_of(self.etag), 0 if self.data is None else number_of(self.data))


def number_of(name: str) -> int:
    """Return the number in a stamp that stands for an ETag, or for a key: never 0."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:_STAMP_BYTES]) or 1


def key_of(file: PurePosixPath | str) -> str:
    """Return the key of a stream's manifest."""
    return manifest_of(str(file))


def read(bucket: Bucket, file: PurePosixPath) -> ManifestObject | None:
    """Return the manifest's object of a stream; None: there is none. Raises: ManifestError if it is not one;
    BucketError.
    """
    found = bucket.get(key_of(file))
    return None if found is None else understood(key_of(file), found.data, found.etag)


def understood(key: str, data: bytes, etag: str) -> ManifestObject:
    """Return what an object says. A manifest that names no bytes has them beside it, as another program has put them.

    Raises: ManifestError.
    """
    try:
        content = json.loads(data)
        place = content.pop(_PLACE, None) or {"data": key.removesuffix(manifest_of("")), "removed": []}
        name = place["data"]
        return ManifestObject(
            content, None if name is None else str(name), tuple(str(each) for each in place["removed"]), etag
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(key, f"cannot be read: {error}", spoilt=True) from None


def parse(file: PurePosixPath, found: ManifestObject) -> Manifest:
    """Return the manifest of a stream. Raises: ManifestError."""
    key = key_of(file)
    try:
        manifest = Manifest.model_validate(found.content)
    except ValidationError as error:
        later = found.content.get("format") != Manifest.model_fields["format"].default
        raise ManifestError(key, f"cannot be read: {reason(error).splitlines()[0]}", spoilt=not later) from None
    if manifest.sender != file.parts[0]:
        raise ManifestError(key, f"belongs to sender {manifest.sender}: it was moved")
    return manifest


def stream_bytes(content: dict[str, Any], data: str, before: ManifestObject | None) -> bytes:
    """Return the object by which a stream is stored. `before`: what stands under its name."""
    return _encode(content | {_PLACE: {"data": data, "removed": _removed(before)}})


def tombstone_bytes(before: ManifestObject) -> bytes:
    """Return the tombstone of a stream."""
    return _encode({_PLACE: {"data": None, "removed": _removed(before), "mark": keys.unique()}})


def _removed(before: ManifestObject | None) -> list[str]:
    if before is None:
        return []
    return [*before.removed, *([] if before.data is None else [before.data])][-_REMOVED_MAX:]


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def delete_bytes(bucket: Bucket, data: str) -> bool:
    """Delete the bytes of a stream, which no manifest names any more.

    Returns: whether the bucket keeps versions of what is deleted or replaced.
    """
    versions.purge(bucket, hash_of(data))
    return versions.purge(bucket, data)


def locked_until(bucket: Bucket, file: PurePosixPath, data: str) -> float | None:
    """Return until when a stream cannot be removed for good. See `Bucket.locked_until`."""
    found = (bucket.locked_until(data), bucket.locked_until(key_of(file)))
    return max((each for each in found if each is not None), default=None)
