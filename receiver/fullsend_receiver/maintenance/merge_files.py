"""Merges files with streams into one stream. No store is needed: the files are fullsend's, or anybody's.

    in_order        files in any order -> the oldest first
    MergeFile       the raw bytes of one file, proven while they are read
    write_packed    a stream -> a `.zst` as in a store, with its `.sha256`, and its manifest where it is wanted

**Nothing is published that is not proven.** Each input is compared with the SHA-256 that is known of its file, or else
with all running checksums inside it. The result is walked, hashed, written, and decoded once more from what was
written. Only then does it get its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, cast

import zstandard

from fullsend_protocol.format.manifest import MergedInput
from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_protocol.shared.errors import (
    FullsendError,
    OutputExists,
    OutputFailed,
    StreamError,
    UnsupportedStream,
    reason,
)
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.record_reader import RecordReader
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.stream.running_sums import RunningSums
from fullsend_protocol.stream.substreams import snapshots_named
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.maintenance.packing import PROGRAM, Packer, read_back
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.durable import replace_file, sync_folder, write_all
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.seekable import IndexEntry, tables

if TYPE_CHECKING:
    from typing import BinaryIO

#: Bytes that are read at a time.
_PIECE: Final = 1 << 20
_ZSTD_MAGIC: Final = (0xFD2FB528).to_bytes(4, "little")
#: Skippable frames, which may come first in a `.zst`: their magics differ in the lowest four bits (RFC 8878, 3.1.2).
_SKIPPABLE: Final = 0x184D2A50
#: The largest window that `zstd -d` accepts by itself: that of `zstd --long`.
_WINDOW_MAX: Final = 128 << 20
_HASH_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.*)")  # as sha256sum prints it
_MODE: Final = 0o600


class InputDamaged(StreamError):  # noqa: N818 - reads as a noun, like the stream errors
    """A file is not the one whose SHA-256 is known."""


class InputUnreadable(FullsendError):  # noqa: N818 - reads as what it says
    """A file cannot be read, which says nothing about what it has."""


class MergeFile:
    """A file with one stream: raw, or compressed by zstd in any number of frames.

    `proof`: "sha256", if the SHA-256 of the file is known from the `.sha256` or the manifest beside it; else
    "checksums": those inside the stream. `merged`: what it is, once `pieces` has ended.
    """

    def __init__(self, path: Path) -> None:
        """Read what is known of the file. Raises: InputUnreadable, StreamError."""
        self.path = path
        self._known = _known_sha256(path)
        self.proof = "checksums" if self._known is None else "sha256"
        with contextlib.closing(self._raw(None)) as pieces:
            reader = RecordReader(str(path), pieces)
        head, package = reader.begin.head, reader.package
        walker = Walker()
        try:
            #: Whether it may have more than one snapshot. Only the nvlist of a package says how many.
            self.may_be_package: Final = package is not None and snapshots_named(package.nvlist) != 1
            walker.walk(head[:4] + bytes(4) + head[8:], 0, len(head), 0)  # without its nvlist
            self._about = facts.conclude(walker.begins)
        except StreamError as error:
            raise type(error)(f"{path}: {error}") from None
        self.guid, self.base_guid = self._about.guid, self._about.base_guid
        self.merged: MergedInput | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield the raw bytes. Raises: InputUnreadable; at the end at the latest, InputDamaged or StreamError."""
        hashed = hashlib.sha256() if self._known is not None else None
        sums = None if hashed else RunningSums(str(self.path))
        whole = hashlib.sha256()
        for piece in self._raw(hashed):
            if sums is not None:
                sums.feed(piece)
            whole.update(piece)
            yield piece
        if sums is not None:
            sums.finish()
        if hashed is not None and hashed.hexdigest() != self._known:
            msg = f"{self.path} is damaged: its SHA-256 is not the one beside it; get it from another copy"
            raise InputDamaged(msg)
        about = self._about
        self.merged = MergedInput(
            file=self.path.name,
            dataset=about.dataset,
            snapshot=about.snapshot,
            guid=str(about.guid),
            base_guid=None if about.base_guid is None else str(about.base_guid),
            sha256=whole.hexdigest(),
        )

    def prove(self) -> None:
        """Read the whole file, and nothing else. Raises: as `pieces`."""
        for _piece in self.pieces():
            pass

    def _raw(self, hashed: hashlib._Hash | None) -> Generator[bytes]:
        """Yield the raw bytes, and hash those of the file, to its end."""
        try:
            yield from self._read(hashed)
        except OSError as error:
            msg = f"{self.path} cannot be read: {reason(error)}"
            raise InputUnreadable(msg) from None

    def _read(self, hashed: hashlib._Hash | None) -> Iterator[bytes]:
        if not stat.S_ISREG(self.path.stat().st_mode):
            msg = f"{self.path} is not a file: what is merged is read twice, so it cannot come from a pipe"
            raise UnsupportedStream(msg)
        with self.path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            reader = _HashingReader(file, hashed)
            if start == _ZSTD_MAGIC or int.from_bytes(start, "little") & ~0xF == _SKIPPABLE:
                yield from self._decoded(reader)
            else:
                while piece := reader.read(_PIECE):
                    yield piece

    def _decoded(self, reader: _HashingReader) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        try:
            source = cast("BinaryIO", reader)  # of which only `read` is used
            with decompressor.stream_reader(source, read_across_frames=True, closefd=False) as decoded:
                while piece := decoded.read(_PIECE):
                    yield piece
        except zstandard.ZstdError as error:
            msg = f"{self.path} does not decode: {error}"
            raise InputDamaged(msg) from None


class _HashingReader:
    """A file of which all that is read is hashed."""

    def __init__(self, file: BinaryIO, hashed: hashlib._Hash | None) -> None:
        self._file = file
        self._hashed = hashed

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if self._hashed is not None:
            self._hashed.update(data)
        return data


@contextlib.contextmanager
def proving(files: Sequence[MergeFile]) -> Iterator[None]:
    """Name the damaged file where a merge of these ends with an error of its streams.

    A wrong byte in one file may show as an error of another one, such as a GUID that does not fit. So then all are
    proven, which takes as long as reading them. Raises: the error of the first file that is not proven, else the
    merge's own.
    """
    try:
        yield
    except StreamError:
        for each in files:
            each.prove()
        raise


def in_order(files: Sequence[MergeFile]) -> list[MergeFile]:
    """Return the files in the order of their chain, the oldest first.

    Raises: UnsupportedStream if they are not one chain: one is missing, or two are at the same place.
    """
    by_guid: dict[int, MergeFile] = {}
    by_base: dict[int | None, MergeFile] = {}
    for each in files:
        if by_guid.setdefault(each.guid, each) is not each:
            msg = f"{by_guid[each.guid].path} and {each.path} have the same snapshot: name one of them"
            raise UnsupportedStream(msg)
        if by_base.setdefault(each.base_guid, each) is not each:
            what = "are both fulls" if each.base_guid is None else "build on the same snapshot"
            msg = f"{by_base[each.base_guid].path} and {each.path} {what}: name one of them"
            raise UnsupportedStream(msg)
    order = [each for each in files if each.base_guid not in by_guid][:1]
    while order and order[-1].guid in by_base:
        order.append(by_base[order[-1].guid])
    for each in files:
        if each not in order:
            msg = f"{each.path} builds on the snapshot with GUID {each.base_guid}, which no other file here has"
            raise UnsupportedStream(msg)
    return order


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
    try:
        file = _PackedFile(temporary, level)
        file.write(pieces)
        file.check()
        _name(temporary, path)
        replace_file(path.with_name(path.name + HASH_SUFFIX), hash_line(file.file_sha256, PurePosixPath(path)))
        if sender is not None:
            replace_file(path.with_name(path.name + MANIFEST_SUFFIX), file.manifest(sender, merged))
    except OSError as error:
        msg = f"{path} cannot be written: {reason(error)}"
        raise OutputFailed(msg) from None
    finally:
        with contextlib.suppress(OSError):  # the first error tells more than this one
            temporary.unlink()
    return Packed(path, file.packer.raw_bytes, file.stored_bytes, file.packer.sha256)


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name, durably. Raises: OutputExists, OSError."""
    try:
        os.link(temporary, path)  # which, unlike a rename, replaces nothing
    except FileExistsError:
        msg = f"{path} was made meanwhile: name another file"
        raise OutputExists(msg) from None
    sync_folder(path.parent)


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


def _known_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file that the `.sha256` or the manifest beside it says; None: neither is there.

    Raises: InputDamaged if what is there cannot be read.
    """
    beside = path.with_name(path.name + HASH_SUFFIX)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for line in beside.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            found = _HASH_LINE.fullmatch(line)
            if found and Path(found[2]).name == path.name:
                return found[1]
        msg = f"{beside} has no SHA-256 of {path.name}: remove it, and the checksums inside the stream are compared"
        raise InputDamaged(msg)
    manifest = path.with_name(path.name + MANIFEST_SUFFIX)
    with contextlib.suppress(FileNotFoundError):
        try:
            said = json.loads(manifest.read_bytes())["file_sha256"]
            if isinstance(said, str):
                return said
        except (ValueError, KeyError, TypeError):
            pass
        msg = f"{manifest} is not a manifest: remove it, and the checksums inside the stream are compared"
        raise InputDamaged(msg)
    return None
