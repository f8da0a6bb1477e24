"""Checks stored streams: reads, decodes, hashes and parses every byte (docs/verification.md)."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.manifest import Manifest, Segment
from fullsend_protocol.format.names import HASH_SUFFIX
from fullsend_protocol.shared.errors import FullsendError, StreamError
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.store.api import Stamp, Store
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.names import hash_line, stream_file
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks, file_sha256
from fullsend_receiver.store.seekable import FileDamaged

#: Faults that are listed for one file; a lost disk has one for each chunk.
_FAULTS_MAX: Final = 20
#: Fields of a manifest that the stream's own records show. Not `features`: a later version knows more of their names.
_SHOWN: Final = (
    *("dataset", "snapshot", "guid", "base_guid", "kind", "dataset_type", "stream_class", "flags", "created"),
    "snapshots",
)


def never_interrupts() -> None:
    """Never interrupts."""


@dataclass(slots=True)
class _Reading:
    """The result of reading a file from end to end."""

    raw_bytes: int
    chunks: int
    sha256: str
    segments: list[Segment]
    faults: list[str]
    walker: Walker


def scrub(
    store: Store, file: PurePosixPath, received: str, between: Callable[[], None] = never_interrupts
) -> Scrubbed | None:
    """Check a stored stream against its manifest, its `.sha256` and itself. Reads the file twice; blocks.

    `file`: its `.zst`, relative to the store; `received`: from its manifest at the time of selection; `between`: is
    called between two reads, and ends the check, which may take hours, by raising. Returns: the result, which lists
    damage; no exception is raised for that. None if the stream was removed, or removed and stored again: a removal
    removes the manifest first, and files that are missing then are no damage.
    """
    before = _stamp(store, file)
    faults: list[str] = []
    sha256 = None
    try:
        sha256 = _check(store, file, store.manifest(file), faults, between)
    except (FullsendError, OSError) as error:
        faults.append(str(error))
    if before is None or _stamp(store, file) != before:
        return None
    return Scrubbed(
        file=str(file),
        received=received,
        at=format_time(time.time()),
        damage=tuple(faults[:_FAULTS_MAX]),
        sha256=None if faults else sha256,
    )


def _stamp(store: Store, file: PurePosixPath) -> Stamp | None:
    """Return the stamp of a stream's manifest, None if it is missing. If the disk fails, return an empty one: the
    stream was not removed, and reading it will show the fault.
    """
    try:
        return store.stamp(file)
    except OSError:
        return ()


def _check(
    store: Store, file: PurePosixPath, manifest: Manifest, faults: list[str], between: Callable[[], None]
) -> str | None:
    """Add the faults to `faults`. Returns: the SHA-256 of the raw stream, if it could be read."""
    with contextlib.suppress(FileNotFoundError):  # reported below
        size = store.size(file)
        if size != manifest.stored_bytes:
            faults.append(f"the file has {size} bytes; its manifest says {manifest.stored_bytes}")
    reading = _read(store, file, between)
    faults += reading.faults
    if not faults:
        faults += _compare(reading, manifest)
    if not faults and file_sha256(store, file, between) != manifest.file_sha256:
        faults.append("the file's SHA-256 is not the one in its manifest")
    if store.hash_line(file) != hash_line(manifest.file_sha256, file):
        faults.append(f"the {HASH_SUFFIX} file is missing, or does not say what the manifest says")
    return reading.sha256


def rebuild(store: Store, file: PurePosixPath) -> Manifest:
    """Make manifest and `.sha256` again for a `.zst` that has none, by parsing it.

    Returns: the manifest, in place and durable. Raises: StoreError if the stream is not whole, or not in the place that
    its records show, or has its manifest by now; nothing is changed then.
    """
    sender = file.parts[0]
    try:
        reading = _read(store, file)
        if reading.faults:
            raise FileDamaged(reading.faults[0])
        facts.check_package(reading.walker.begins)
        about = facts.conclude(reading.walker.begins)
        manifest = make_manifest(
            sender,
            about,
            embedded_spills=reading.walker.embedded_spills,
            segments=reading.segments,
            resumptions=[],  # only its segments show that there were any
            stored_bytes=store.size(file),
            file_sha256=file_sha256(store, file),
            chunks=reading.chunks,
            sender_program="unknown",
            zfs_version=None,
            properties=None,
            proven_by="receiver",
        )
    except (FullsendError, OSError) as error:
        msg = f"{file}: has no manifest, and none can be made: {error}"
        raise StoreError(msg) from None
    if stream_file(sender, about) != file:
        msg = f"{file}: has no manifest, and contains {about.dataset}@{about.snapshot}, which belongs elsewhere"
        raise StoreError(msg)
    store.adopt(file, manifest)
    return manifest


def _read(store: Store, file: PurePosixPath, between: Callable[[], None] = never_interrupts) -> _Reading:
    """Read and check a file from end to end. Raises: FileDamaged, StreamError, OSError."""
    walker = Walker()
    whole = hashlib.sha256()
    faults: list[str] = []
    segments: list[Segment] = []
    raw_bytes = chunks = 0
    for chunk in checked_chunks(store, file):
        chunks += 1
        between()
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
        del chunk  # never two in memory
    if not faults:
        try:
            walker.finish()
        except StreamError as error:
            faults.append(str(error))
    if not faults and (not segments or segments[0].start):
        faults.append("its index does not show where the first segment starts")
    return _Reading(raw_bytes, chunks, whole.hexdigest(), segments, faults, walker)


def _compare(reading: _Reading, manifest: Manifest) -> list[str]:
    """Compare what was read with the manifest. Returns: the faults."""
    faults = []
    if reading.raw_bytes != manifest.raw_bytes or reading.chunks != manifest.chunks:
        faults.append(
            f"the file has {reading.raw_bytes} raw bytes in {reading.chunks} chunks; its manifest says"
            f" {manifest.raw_bytes} in {manifest.chunks}"
        )
    elif reading.segments != manifest.segments:
        faults.append("the segments' SHA-256 are not those in the manifest")
    if manifest.sha256 is not None and manifest.sha256 != reading.sha256:
        faults.append("the raw stream's SHA-256 is not the one in its manifest")
    about = facts.conclude(reading.walker.begins)
    shown = make_manifest(
        manifest.sender,
        about,
        embedded_spills=reading.walker.embedded_spills,
        segments=reading.segments,
        resumptions=manifest.resumptions,
        stored_bytes=manifest.stored_bytes,
        file_sha256=manifest.file_sha256,
        chunks=reading.chunks,
        sender_program=manifest.sender_program,
        zfs_version=manifest.zfs_version,
        properties=manifest.properties,
        proven_by=manifest.proven_by,
    )
    for name in _SHOWN:
        told, said = getattr(shown, name), getattr(manifest, name)
        if told != said:
            values = "" if isinstance(told, list) else f": {told!r}, not {said!r}"
            faults.append(f"its records show other `{name.removeprefix('stream_')}` than its manifest{values}")
    return faults
