"""Checking stored streams: every byte is read, decoded, hashed and walked again (docs/verification.md)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from fullsend_protocol.format.manifest import Manifest, Segment
from fullsend_protocol.format.restore_commands import HASH_SUFFIX
from fullsend_protocol.shared.errors import FullsendError, StreamError
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.summaries import read_manifest
from fullsend_receiver.store.durable import ABSENT, locked, replace_file, signature, sync_folders
from fullsend_receiver.store.local import Store, StoreError
from fullsend_receiver.store.names import MANIFEST_SUFFIX, stream_file
from fullsend_receiver.store.partials import committing
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks, file_sha256
from fullsend_receiver.store.seekable import FileDamaged

#: Faults named of one file; a disk that is gone has as many as chunks.
_FAULTS_MAX: Final = 20
#: What a manifest says that the stream's own records show. Not `features`: a later version knows more of their names.
_SHOWN: Final = (
    *("dataset", "snapshot", "guid", "base_guid", "kind", "dataset_type", "stream_class", "flags", "created"),
    "snapshots",
)


def _go_on() -> None:
    """Nobody interrupts."""


@dataclass(slots=True)
class _Reading:
    """What reading a file from end to end found."""

    raw_bytes: int
    chunks: int
    sha256: str
    segments: list[Segment]
    faults: list[str]
    walker: Walker


def scrub(store: Store, file: PurePosixPath, received: str, between: Callable[[], None] = _go_on) -> Scrubbed | None:
    """Check a stored stream against its manifest, its `.sha256` and itself. Reads the file twice; blocks.

    `file`: its `.zst`, relative to the store; `received`: when it came, as its manifest said when it was chosen;
    `between` is called between two reads: what it raises ends the check, which may take hours. Returns: what was
    found; nothing is raised for damage. None where it has been removed, or removed and stored again: who removes a
    stream removes its manifest first, and what is missing then is no damage.
    """
    path = store.root / f"{file}{MANIFEST_SUFFIX}"
    before = _which(path)
    faults: list[str] = []
    sha256 = None
    try:
        sha256 = _check(store, file, read_manifest(store, file), faults, between)
    except (FullsendError, OSError) as error:
        faults.append(str(error))
    if before == ABSENT or _which(path) != before:
        return None
    return Scrubbed(
        file=str(file),
        received=received,
        at=format_time(time.time()),
        damage=tuple(faults[:_FAULTS_MAX]),
        sha256=None if faults else sha256,
    )


def _which(path: Path) -> tuple[int, int, int] | None:
    """Return a file's signature; None where the disk fails: that removes nothing, and reading it says what is wrong."""
    try:
        return signature(path)
    except OSError:
        return None


def _check(
    store: Store, file: PurePosixPath, manifest: Manifest, faults: list[str], between: Callable[[], None]
) -> str | None:
    """Add to `faults` what is wrong. Returns: the SHA-256 of the raw stream, where it could be read."""
    path = store.root / file
    with contextlib.suppress(FileNotFoundError):  # said below
        size = path.stat().st_size
        if size != manifest.stored_bytes:
            faults.append(f"the file has {size} bytes; its manifest says {manifest.stored_bytes}")
    reading = _read(store, file, between)
    faults += reading.faults
    if not faults:
        faults += _compare(reading, manifest)
    if not faults and file_sha256(path, between) != manifest.file_sha256:
        faults.append("the file's SHA-256 is not the one in its manifest")
    try:
        line = path.with_name(path.name + HASH_SUFFIX).read_bytes()
    except FileNotFoundError:
        line = b""
    if line != _hash_line(manifest.file_sha256, file):
        faults.append(f"the {HASH_SUFFIX} file is missing, or does not say what the manifest says")
    return reading.sha256


def rebuild(store: Store, file: PurePosixPath) -> Manifest:
    """Make manifest and `.sha256` anew for a `.zst` that has none, by walking it.

    Returns: the manifest, in place and durable. Raises: StoreError where the stream is not whole, or not where its
    own records say it belongs, or has its manifest by now; nothing is changed then.
    """
    sender = file.parts[0]
    path = store.root / file
    try:
        reading = _read(store, file)
        if reading.faults:
            raise FileDamaged(reading.faults[0])
        facts.check_package(reading.walker.begins)
        about = facts.conclude(reading.walker.begins)
        _sync(path, store)
        manifest = make_manifest(
            sender,
            about,
            embedded_spills=reading.walker.embedded_spills,
            segments=reading.segments,
            resumptions=[],  # only its segments tell that there were any
            stored_bytes=path.stat().st_size,
            file_sha256=file_sha256(path),
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
        msg = f"{file}: has no manifest, and holds {about.dataset}@{about.snapshot}, which belongs elsewhere"
        raise StoreError(msg)
    # `.state` is where the next start looks for what a crash leaves behind; it takes the lock for that.
    with locked(store.lock):
        target = path.with_name(path.name + MANIFEST_SUFFIX)
        if file in committing(store) or target.exists():
            msg = f"{file}: has its manifest by now, or is just getting it"
            raise StoreError(msg)
        line = _hash_line(manifest.file_sha256, file)
        replace_file(path.with_name(path.name + HASH_SUFFIX), line, 0o640, beside=store.state)
        replace_file(target, manifest.to_json(), 0o640, beside=store.state)
    return manifest


def _sync(path: Path, store: Store) -> None:
    """Make a file durable that somebody else has put there: a manifest promises that it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folders(path, store.root)


def _hash_line(sha256: str, file: PurePosixPath) -> bytes:
    """Return what the `.sha256` file holds."""
    return f"{sha256}  {file.name}\n".encode()


def _read(store: Store, file: PurePosixPath, between: Callable[[], None] = _go_on) -> _Reading:
    """Read and check a file from end to end. Raises: FileDamaged, StreamError, OSError."""
    walker = Walker()
    whole = hashlib.sha256()
    faults: list[str] = []
    segments: list[Segment] = []
    raw_bytes = chunks = 0
    for chunk in checked_chunks(store.root / file):
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
        del chunk  # not two at a time
    if not faults:
        try:
            walker.finish()
        except StreamError as error:
            faults.append(str(error))
    if not faults and (not segments or segments[0].start):
        faults.append("its index does not say where the first segment starts")
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
