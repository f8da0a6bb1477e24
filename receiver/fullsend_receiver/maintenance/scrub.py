"""Checks stored streams: reads, decodes, hashes and parses every byte (docs/verification.md).

A check ends in one of three ways. Whole. Damaged: bytes were read and were wrong, twice, the second time from the disk
and not from this host's memory. Unreadable: an error prevented reading, which says nothing about the bytes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.format.names import HASH_SUFFIX
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream import facts
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.maintenance.reading import FAULTS_MAX, FilePass, FilePassState
from fullsend_receiver.store.api import Stamp, Store
from fullsend_receiver.store.errors import ManifestError, StoreError, StoreUnreadable, is_read_error
from fullsend_receiver.store.names import hash_line, stream_file
from fullsend_receiver.store.seekable import FileDamaged

#: Fields that the records of a raw stream show. An older manifest has none, nor has the state of an older check.
_KEYS: Final = ("ivset_guid", "base_ivset_guid")
#: Fields of a manifest that the stream's own records show. Not `features`: a later version knows more of their names.
_SHOWN: Final = (
    *("dataset", "snapshot", "guid", "base_guid", "kind", "dataset_type", "stream_class", "flags", "created"),
    "snapshots",
)


def never_interrupts() -> None:
    """Never interrupts."""


class _Unread(Exception):  # noqa: N818 - never leaves this module
    """An error prevented reading; the message is for the user."""


class StreamCheck:
    """The check of one stored stream. It can be interrupted between two chunks, and continued.

    `reading`: the current pass over its file; `waits`: the time that each stage of it takes.
    """

    def __init__(self, store: Store, file: PurePosixPath, received: str, state: FilePassState | None = None) -> None:
        """Reads nothing before `run`. `file`: its `.zst`, relative to the store; `received`: from its manifest at the
        time of selection; `state`: of a pass by an earlier process that is to continue.

        Raises: ValueError, KeyError, TypeError if the state cannot be used.
        """
        self.file = file
        self.received = received
        self.waits: Final = StageWaits("disk")
        self.reading = FilePass(store, file, state, self.waits)
        self._store = store
        self._before: Stamp | None = None
        self._begun = False
        self._first: list[str] = []  # the faults of the first pass, during the second
        self._passing: list[str] = []

    @property
    def passing(self) -> list[str]:
        """A line for each fault that was gone when the bytes were read again, from the disk: this host's memory, a
        cable or a controller may fail.
        """
        return [*self._passing, *self.reading.passing]

    @property
    def is_second(self) -> bool:
        """Whether this is the second pass, because something was wrong in the first."""
        return bool(self._first)

    def run(self, between: Callable[[], None] = never_interrupts) -> Scrubbed | None:
        """Check the stream against its manifest, its `.sha256` and itself. Blocks, perhaps for hours.

        `between`: is called before each chunk, and interrupts the check by raising; `run` continues it. Returns: the
        result; damage and read errors are part of it, and are not raised. None if the stream was removed, or removed
        and stored again: a removal removes the manifest first, and files that are missing then are no damage.
        """
        faults: list[str] = []
        sha256 = unreadable = None
        try:
            if not self._begun:
                self._before = self._stamp()
                self._begun = True
            sha256 = self._pass(faults, between)
            if faults and not (self.reading.faults or self._first):
                # Wrong once, and not in a chunk: each chunk was read twice already.
                self._first = list(faults)
                self._passing += self.reading.passing
                self._store.forget(self.file)
                self.reading = FilePass(self._store, self.file, waits=self.waits)
                faults.clear()
                sha256 = self._pass(faults, between)
            if not faults:
                self._passing += self._first
        except _Unread as error:
            unreadable = str(error)
            faults = self.reading.faults  # what was read is wrong, whatever cannot be read
        if self._was_removed():
            return None
        return Scrubbed(
            file=str(self.file),
            received=self.received,
            at=format_time(time.time()),
            damage=tuple(faults[:FAULTS_MAX]),
            sha256=None if faults or unreadable else sha256,
            unreadable=None if faults else unreadable,
        )

    def _was_removed(self) -> bool:
        if not self._begun:
            return False
        try:
            return self._before is None or self._stamp() != self._before
        except _Unread:
            return False

    def _stamp(self) -> Stamp | None:
        """Return the stamp of the stream's manifest, None if it is missing. It is empty if something else has its name:
        the stream was not removed, and reading it will show the fault. Raises: _Unread.
        """
        try:
            return self._store.stamp(self.file)
        except OSError as error:
            if is_read_error(error):
                raise _Unread(f"its manifest cannot be read: {error.strerror}") from None
            return ()
        except StoreUnreadable as error:
            raise _Unread(str(error)) from None

    def _pass(self, faults: list[str], between: Callable[[], None]) -> str | None:
        """Check once, and add the faults to `faults`. Returns: the SHA-256 of the raw stream, if it could be read.

        Raises: _Unread, and what `between` raises.
        """
        try:
            return self._examine(faults, between)
        except ManifestError as error:
            if error.unread is not None and is_read_error(error.unread):
                raise _Unread(str(error)) from None
            faults.append(str(error))
        except StoreUnreadable as error:
            raise _Unread(str(error)) from None
        except FullsendError as error:
            faults.append(str(error))
        except OSError as error:
            if is_read_error(error):
                raise _Unread(f"chunk {self.reading.chunks} cannot be read: {error.strerror}") from None
            faults.append(str(error))
        return None

    def _examine(self, faults: list[str], between: Callable[[], None]) -> str:
        store, file, reading = self._store, self.file, self.reading
        manifest = store.manifest(file)
        with contextlib.suppress(FileNotFoundError):  # reported below
            size = store.size(file)
            if size != manifest.stored_bytes:
                faults.append(f"the file has {size} bytes; its manifest says {manifest.stored_bytes}")
        reading.run(between)
        faults += reading.faults
        if not faults:
            faults += _compare(reading, manifest)
        if not faults and reading.file_sha256 != manifest.file_sha256:
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
        reading = FilePass(store, file)
        reading.run(never_interrupts)
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
            file_sha256=reading.file_sha256,
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


def _compare(reading: FilePass, manifest: Manifest) -> list[str]:
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
    for name in (*_SHOWN, *_KEYS):
        told, said = getattr(shown, name), getattr(manifest, name)
        if told != said and not (name in _KEYS and None in {told, said}):
            values = "" if isinstance(told, list) else f": {told!r}, not {said!r}"
            faults.append(f"its records show other `{name.removeprefix('stream_')}` than its manifest{values}")
    return faults
