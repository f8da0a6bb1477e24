"""Checking stored streams: every byte is read, decoded, hashed and walked again (docs/verification.md)."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol import facts
from fullsend_protocol.errors import FullsendError, StreamError
from fullsend_protocol.manifest import Manifest, Segment
from fullsend_protocol.records import Walker
from fullsend_protocol.units import format_time
from fullsend_receiver.catalogue import Stored
from fullsend_receiver.commit import make_manifest
from fullsend_receiver.durable import replace_file
from fullsend_receiver.names import HASH_SUFFIX, MANIFEST_SUFFIX, stream_file
from fullsend_receiver.playback import DamagedChunk, checked_chunks, file_sha256
from fullsend_receiver.scrublog import Scrubbed
from fullsend_receiver.store import Store, StoreError

#: Faults named of one file; a disk that is gone has as many as chunks.
_FAULTS_MAX: Final = 20


@dataclass(slots=True)
class _Reading:
    """What reading a file from end to end found."""

    raw_bytes: int
    chunks: int
    sha256: str
    segments: list[Segment]
    faults: list[str]
    walker: Walker


def scrub(store: Store, stored: Stored) -> Scrubbed:
    """Check one stored stream against its manifest, its `.sha256` and itself. Reads the file twice; blocks.

    Returns: what was found; nothing is raised for damage.
    """
    path = store.root / stored.file
    manifest = stored.manifest
    faults: list[str] = []
    sha256 = None
    try:
        size = path.stat().st_size
        if size != manifest.stored_bytes:
            faults.append(f"the file has {size} bytes; its manifest says {manifest.stored_bytes}")
        reading = _read(store, stored.file)
        faults += reading.faults
        if not faults:
            sha256 = reading.sha256
            faults += _compare(reading, manifest)
        if not faults and file_sha256(path) != manifest.file_sha256:
            faults.append("the file's SHA-256 is not the one in its manifest")
        line = path.with_name(path.name + HASH_SUFFIX).read_text(encoding="ascii")
        if line != f"{manifest.file_sha256}  {path.name}\n":
            faults.append(f"{HASH_SUFFIX} file: does not say what the manifest says")
    except (FullsendError, OSError, ValueError) as error:
        faults.append(str(error))
    return Scrubbed(str(stored.file), format_time(time.time()), tuple(faults[:_FAULTS_MAX]), None if faults else sha256)


def rebuild(store: Store, file: PurePosixPath) -> Manifest:
    """Make manifest and `.sha256` anew for a `.zst` that has none, by walking it.

    Returns: the manifest, in place and durable. Raises: StoreError where the stream is not whole, or not where its
    own records say it belongs; nothing is changed then.
    """
    sender = file.parts[0]
    path = store.root / file
    try:
        reading = _read(store, file)
        reading.walker.finish()
        facts.check_package(reading.walker.begins)
        about = facts.conclude(reading.walker.begins)
    except (FullsendError, OSError) as error:
        msg = f"{file}: has no manifest, and none can be made: {error}"
        raise StoreError(msg) from None
    if reading.faults:
        msg = f"{file}: has no manifest, and none can be made: {reading.faults[0]}"
        raise StoreError(msg)
    if stream_file(sender, about) != file:
        msg = f"{file}: has no manifest, and holds {about.dataset}@{about.snapshot}, which belongs elsewhere"
        raise StoreError(msg)
    manifest = make_manifest(
        sender,
        about,
        segments=reading.segments,
        stored_bytes=path.stat().st_size,
        file_sha256=file_sha256(path),
        chunks=reading.chunks,
        sender_program="unknown",
        zfs_version=None,
        proven_by="receiver",
    )
    line = f"{manifest.file_sha256}  {file.name}\n".encode()
    replace_file(path.with_name(path.name + HASH_SUFFIX), line, 0o640)
    replace_file(path.with_name(path.name + MANIFEST_SUFFIX), manifest.to_json(), 0o640)
    return manifest


def _read(store: Store, file: PurePosixPath) -> _Reading:
    """Read and check a file from end to end. Raises: FileDamaged, StreamError, OSError."""
    walker = Walker()
    whole = hashlib.sha256()
    faults: list[str] = []
    segments: list[Segment] = []
    raw_bytes = chunks = 0
    for chunk in checked_chunks(store.root / file):
        chunks += 1
        if isinstance(chunk, DamagedChunk):
            faults.append(str(chunk))
            if len(faults) >= _FAULTS_MAX:
                break
            continue
        entry = chunk.place.entry
        raw_bytes += len(chunk.raw)
        whole.update(chunk.raw)
        if entry.starts_segment:
            segments.append(Segment(start=chunk.place.raw_offset, end=chunk.place.raw_offset, sha256="0" * 64))
        if segments:
            end = chunk.place.raw_offset + len(chunk.raw)
            segments[-1] = Segment(start=segments[-1].start, end=end, sha256=entry.sha256.hex())
        if not faults:
            walker.walk(chunk.raw, 0, len(chunk.raw), 1 << 63)
    if not faults:
        try:
            walker.finish()
        except StreamError as error:
            faults.append(str(error))
    return _Reading(raw_bytes, chunks, whole.hexdigest(), segments, faults, walker)


def _compare(reading: _Reading, manifest: Manifest) -> list[str]:
    """Hold what was read against the manifest."""
    faults = []
    if reading.raw_bytes != manifest.raw_bytes or reading.chunks != manifest.chunks:
        faults.append(
            f"the file holds {reading.raw_bytes} raw bytes in {reading.chunks} chunks; its manifest says"
            f" {manifest.raw_bytes} in {manifest.chunks}"
        )
    elif reading.segments != manifest.segments:
        faults.append("the segments' SHA-256 are not those in the manifest")
    if manifest.sha256 is not None and manifest.sha256 != reading.sha256:
        faults.append("the raw stream's SHA-256 is not the one in its manifest")
    about = facts.conclude(reading.walker.begins)
    if (about.dataset, about.snapshot, str(about.guid)) != (manifest.dataset, manifest.snapshot, manifest.guid):
        faults.append(f"the file holds {about.dataset}@{about.snapshot}, which its manifest does not say")
    return faults
