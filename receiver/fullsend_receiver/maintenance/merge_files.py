"""Writes what a merge of files gives (`merge_inputs` reads them). No store is needed.

    write_packed    a stream -> a `.zst` as in a store, with its `.sha256`, and its manifest where it is wanted

**Nothing is published that is not proven.** The result is walked, hashed, written, and decoded once more from what was
written. Only then does it get its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_protocol.shared.errors import OutputExists, OutputFailed, reason
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.maintenance.packing import PROGRAM, Packer, read_back
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.durable import replace_file, sync_folder, write_all
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.seekable import IndexEntry, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fullsend_protocol.stream.checksums import Piece
    from fullsend_receiver.maintenance.merge_inputs import MergeFile

_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Packed:
    """A stream that was written. `raw_bytes`, `stored_bytes`: before and after compression; `sha256`: of the former."""

    path: Path
    raw_bytes: int
    stored_bytes: int
    sha256: str


def write_packed(
    path: Path, pieces: Iterable[Piece], *, level: int, merged: Sequence[MergeFile], sender: str | None
) -> Packed:
    """Write a stream as a store has it: chunks, index and seek table, with a `.sha256` beside it.

    `sender`: write a manifest, too, as of a stream of this sender. Afterwards the file is whole, durable, and was
    decoded once more. Raises: OutputExists, OutputFailed, ChunkError, and what `pieces` raises: then nothing of that
    name was made.
    """
    if path.exists():
        msg = f"{path} is there already: name another file, or remove it"
        raise OutputExists(msg)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with contextlib.ExitStack() as undo:
        undo.callback(_remove, temporary)
        try:
            file = _PackedFile(temporary, level)
            file.write(pieces)
            file.check()
            beside = {HASH_SUFFIX: hash_line(file.file_sha256, PurePosixPath(path))}
            if sender is not None:
                beside[MANIFEST_SUFFIX] = file.manifest(sender, merged)
            _name(temporary, path)
            undo.callback(_remove, path)
            sync_folder(path.parent)
            for suffix, content in beside.items():
                # Before it is written: it may be there, and not be durable.
                undo.callback(_remove, path.with_name(path.name + suffix))
                replace_file(path.with_name(path.name + suffix), content)
        except OSError as error:
            msg = f"{path} cannot be written: {reason(error)}"
            raise OutputFailed(msg) from None
        undo.pop_all()
    _remove(temporary)
    return Packed(path, file.packer.raw_bytes, file.stored_bytes, file.packer.sha256)


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name, not durably yet. Raises: OutputExists, OSError."""
    try:
        os.link(temporary, path)  # which, unlike a rename, replaces nothing
    except FileExistsError:
        msg = f"{path} was made meanwhile: name another file"
        raise OutputExists(msg) from None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # what it failed for tells more than this
        path.unlink()


class _PackedFile:
    """Writes one file."""

    def __init__(self, path: Path, level: int) -> None:
        self._path = path
        self._file_hash = hashlib.sha256()
        self.packer = Packer(level)
        self.stored_bytes = 0

    @property
    def file_sha256(self) -> str:
        return self._file_hash.hexdigest()

    def write(self, pieces: Iterable[Piece]) -> None:
        entries: list[IndexEntry] = []
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            for frame, entry in self.packer.frames(pieces):
                entries.append(entry)
                self._append(descriptor, frame)
            for table in tables(entries, len(entries)):
                self._append(descriptor, table)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, data: bytes) -> None:
        write_all(descriptor, data)
        self._file_hash.update(data)
        self.stored_bytes += len(data)

    def check(self) -> None:
        """Read back what was written. Raises: ChunkError if it is not what was meant."""
        packer = self.packer
        read_back(LocalBlob(self._path), self._path.name, raw_bytes=packer.raw_bytes, sha256=packer.sha256)

    def manifest(self, sender: str, merged: Sequence[MergeFile]) -> bytes:
        packer = self.packer
        return make_manifest(
            sender,
            packer.conclude(),
            embedded_spills=packer.walker.embedded_spills,
            segments=packer.segments,
            resumptions=[],
            stored_bytes=self.stored_bytes,
            file_sha256=self.file_sha256,
            chunks=packer.chunks,
            sender_program=PROGRAM,
            zfs_version=None,
            properties=None,
            proven_by="merge",
            merged=[each.merged for each in merged if each.merged is not None],
        ).to_json()
