"""The inputs of a merge, proven while they are read: streams of the store, and files outside a store.

    StoredInput     the raw bytes of a stored stream
    MergeFile       the raw bytes of one file: fullsend's, or anybody's
    in_order        files in any order -> the oldest first

Each chunk of a stored stream is compared with the SHA-256 that was proven when it arrived, and each segment with the
manifest. A file is compared with the SHA-256 that is known of it, or else with all running checksums inside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, cast

import zstandard

from fullsend_protocol.format.manifest import Manifest, MergedInput
from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_protocol.shared.errors import FullsendError, StreamError, UnsupportedStream, reason
from fullsend_protocol.shared.limits import MIB
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.record_reader import RecordReader
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.stream.running_sums import RunningSums
from fullsend_protocol.stream.substreams import snapshots_named
from fullsend_receiver.store.errors import ManifestError
from fullsend_receiver.store.playback import DamagedChunk, RawChunk, checked_chunks_of
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from typing import BinaryIO

    from fullsend_protocol.stream.checksums import Piece
    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.store.api import Store

#: Bytes that are read before the kernel's copies of them are dropped: merged streams are not read again.
_DROP_EVERY: Final = 16 * MIB
#: Bytes that are read at a time.
_PIECE: Final = 1 << 20
_ZSTD_MAGIC: Final = (0xFD2FB528).to_bytes(4, "little")
#: Skippable frames, which may come first in a `.zst`: their magics differ in the lowest four bits (RFC 8878, 3.1.2).
_SKIPPABLE: Final = 0x184D2A50
#: The largest window that `zstd -d` accepts by itself: that of `zstd --long`.
_WINDOW_MAX: Final = 128 << 20
_HASH_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.*)")  # as sha256sum prints it


class InputSpoilt(StreamError):  # noqa: N818 - reads as a noun, like the stream errors
    """A stored stream is not as it was proven when it arrived. `file`: which one."""

    def __init__(self, file: PurePosixPath, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = file


class StoredInput:
    """A stored stream as input. `merged`: what it is, once `pieces` has ended: then all of it is proven."""

    def __init__(
        self, store: Store, about: Summary, read: Callable[[int], None], waits: StageWaits | None = None
    ) -> None:
        """`read`: is called with the stored bytes of each chunk that was read; `waits`: notes when it reads ("input")
        and when the merge has what it needs ("merge"). Raises: InputSpoilt.
        """
        self.file: Final = PurePosixPath(about.path)
        self._store = store
        self._read = read
        self._waits = waits or StageWaits("input")
        try:
            self.manifest: Final[Manifest] = store.manifest(self.file)
        except ManifestError as error:
            raise InputSpoilt(self.file, str(error)) from None
        self.merged: MergedInput | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield the raw bytes, a chunk at a time. Raises: InputSpoilt; OSError."""
        proven = {each.end: each.sha256 for each in self.manifest.segments}
        known = self.manifest.sha256
        whole = hashlib.sha256()
        end = dropped = at = 0
        try:
            with closing(self._store.open(self.file)) as blob:
                for chunk in self._noted(checked_chunks_of(blob)):
                    if isinstance(chunk, DamagedChunk):
                        raise InputSpoilt(self.file, str(chunk))
                    entry = chunk.place.entry
                    end = chunk.place.raw_offset + entry.raw_length
                    if proven.pop(end, entry.sha256.hex()) != entry.sha256.hex():
                        raise InputSpoilt(self.file, f"the SHA-256 of its first {end} raw bytes is not the manifest's")
                    if known is None:  # it came in several segments
                        whole.update(chunk.raw)
                    self._read(entry.stored_length)
                    yield chunk.raw
                    at = chunk.place.file_offset + entry.stored_length
                    if at - dropped >= _DROP_EVERY:
                        blob.forget(dropped, at - dropped)
                        dropped = at
                blob.forget(dropped, at - dropped)
        except FileDamaged as error:
            raise InputSpoilt(self.file, str(error)) from None
        if proven or end != self.manifest.raw_bytes:
            raise InputSpoilt(self.file, f"it has {end} raw bytes, and not the segments of its manifest")
        about = self.manifest
        self.merged = MergedInput(
            file=str(self.file),
            dataset=about.dataset,
            snapshot=about.snapshot,
            guid=about.guid,
            base_guid=about.base_guid,
            sha256=known or whole.hexdigest(),
        )

    def _noted(self, chunks: Iterator[RawChunk | DamagedChunk]) -> Iterator[RawChunk | DamagedChunk]:
        """Yield the same, and note how long reading them takes."""
        while True:
            self._waits.head("input")
            chunk = next(chunks, None)
            self._waits.head("merge")
            if chunk is None:
                return
            yield chunk


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
