"""One pass over a stored file: each byte is read from the disk once, decoded, hashed and walked.

The pass can stop between two chunks and continue later, also in another process (`FilePass.state`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer

from fullsend_protocol.format.manifest import DiskModel, Segment
from fullsend_protocol.shared.errors import ChunkError, StreamError
from fullsend_protocol.shared.limits import MIB
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.stream.records import EmbeddedSpill, Walker
from fullsend_receiver.maintenance.running_hash import RunningSha256, restored, saved, sha256
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.journal import begin_from_json, begin_to_json, walker_from_json, walker_to_json
from fullsend_receiver.store.playback import describe
from fullsend_receiver.store.seekable import Blob, Place, file_size, places, reads, tables_size

#: Faults that are listed for one file; a lost disk has one for each chunk.
FAULTS_MAX: Final = 20
#: The kernel keeps pieces of a file of up to 2 MiB in memory as one, and drops only whole ones.
_PIECE: Final = 2 * MIB
#: Bytes that are read before the kernel's copies of them are dropped; a multiple of _PIECE.
_DROP_EVERY: Final = 16 * MIB
#: Bytes that are read at a time behind the chunks.
_BLOCK: Final = MIB
#: A walker that holds more is not saved: the nvlists of a large package.
_HELD_MAX: Final = MIB
_NO_HASH: Final = "0" * 64


def _from_text(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


_Bytes = Annotated[
    bytes, BeforeValidator(_from_text), PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json")
]


class FilePassState(DiskModel):
    """The state of a pass between two chunks. `chunks`, `raw_bytes`, `stored_bytes`: behind it; `file_hash`,
    `segment_hash`, `whole_hash`: states of SHA-256 (running_hash.py); `whole_hash` None: as that of the segment.
    """

    chunks: int = Field(ge=1)
    raw_bytes: int = Field(ge=0)
    stored_bytes: int = Field(ge=0)
    file_hash: _Bytes
    segment_hash: _Bytes
    whole_hash: _Bytes | None
    segments: list[tuple[int, int, str]]
    walker: dict[str, Any]
    begins: list[dict[str, Any]]
    embedded_spills: list[tuple[str, int, int]]
    passing: list[str]


def pass_reads(chunks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield offset and size of all that a pass reads of a file with chunks of so many stored bytes each."""
    yield from reads(chunks)
    end = file_size(chunks)
    yield from ((at, min(_BLOCK, end - at)) for at in range(sum(chunks), end, _BLOCK))


class FilePass:
    """A pass. Only one thread at a time may use it.

    `chunks`, `raw_bytes`, `stored_bytes`: read so far. `faults`: a line for each damaged chunk, at most FAULTS_MAX. Its
    bytes were wrong twice, the second time from the disk. `passing`: a line for each chunk that was wrong once only.
    `segments`, `walker`: what the bytes show. `file_sha256`: of the file, in hex, after `run`.
    """

    def __init__(
        self,
        store: Store,
        file: PurePosixPath,
        state: FilePassState | None = None,
        waits: StageWaits | None = None,
    ) -> None:
        """Reads nothing before `run`. `state`: of an earlier pass that is to continue; `waits`: notes the time that
        each stage takes: "disk", "decode", "hash".

        Raises: ValueError, KeyError, TypeError if the state cannot be used.
        """
        self._store = store
        self._file = file
        self._waits = waits or StageWaits("disk")
        self._decompressor = Decompressor()
        self.faults: list[str] = []
        self.passing: list[str] = []
        self.file_sha256 = ""
        self._file_hash = sha256() if state is None else restored(state.file_hash)
        # Of the segment so far, None behind a damaged chunk; and of all, None as long as that is the same.
        self._segment: RunningSha256 | None = sha256() if state is None else restored(state.segment_hash)
        self._whole: RunningSha256 | None = None
        self.chunks = self.raw_bytes = self.stored_bytes = 0
        self.segments: list[Segment] = []
        self.walker = Walker()
        if state is not None:
            self._whole = None if state.whole_hash is None else restored(state.whole_hash)
            self.chunks, self.raw_bytes, self.stored_bytes = state.chunks, state.raw_bytes, state.stored_bytes
            self.passing = list(state.passing)
            self.segments = [Segment(start=start, end=end, sha256=text) for start, end, text in state.segments]
            self.walker = Walker.resume(
                walker_from_json(state.raw_bytes, state.walker),
                map(begin_from_json, state.begins),
                (EmbeddedSpill(*each) for each in state.embedded_spills),
            )
        self._dropped = self.stored_bytes  # the kernel's copies were dropped up to here

    @property
    def sha256(self) -> str:
        """The SHA-256 of the raw bytes so far, in hex. Only without faults."""
        running = self._whole or self._segment
        return "" if running is None else running.digest().hex()

    @property
    def state(self) -> FilePassState | None:
        """The state, to continue in another process; None if it cannot be saved. Between two chunks only."""
        running = [saved(each) for each in (self._file_hash, self._segment) if each is not None]
        whole = None if self._whole is None else saved(self._whole)
        walker = self.walker
        held = sum(len(begin.payload) for begin in walker.begins) + len(walker.state.payload)
        if self.faults or not self.chunks or None in running or held > _HELD_MAX:
            return None
        return FilePassState.model_validate(
            {
                "chunks": self.chunks,
                "raw_bytes": self.raw_bytes,
                "stored_bytes": self.stored_bytes,
                "file_hash": running[0],
                "segment_hash": running[1],
                "whole_hash": whole,
                "segments": [(each.start, each.end, each.sha256) for each in self.segments],
                "walker": walker_to_json(walker.state),
                "begins": list(map(begin_to_json, walker.begins)),
                "embedded_spills": [(each.snapshot, each.number, each.at) for each in walker.embedded_spills],
                "passing": self.passing,
            }
        )

    def run(self, between: Callable[[], None]) -> None:
        """Read on, to the end of the file or to the FAULTS_MAX-th fault. `between`: is called before each chunk, and
        ends this by raising; `run` can be called again then.

        Raises: FileDamaged, OSError, and what `between` raises.
        """
        with closing(self._store.open(self._file)) as blob:
            # What is in memory says nothing of the disk.
            blob.forget(self.stored_bytes, blob.size - self.stored_bytes)
            for place in places(blob):
                if place.number < self.chunks:
                    continue
                between()
                if place.entry.starts_segment:
                    self._begin_segment(place)
                raw = self._chunk(blob, place)
                self.chunks += 1
                self.stored_bytes += place.entry.stored_length
                self._drop(blob)
                if raw is not None:
                    self._take(place, raw)
                del raw  # never two in memory
                if len(self.faults) >= FAULTS_MAX:
                    return
            self._hash_tables(blob)
        if not self.faults:
            try:
                self.walker.finish()
            except StreamError as error:
                self.faults.append(str(error))
        if not self.faults and (not self.segments or self.segments[0].start):
            self.faults.append("its index does not show where the first segment starts")

    def _begin_segment(self, place: Place) -> None:
        if self.segments and self._whole is None and self._segment is not None:
            self._whole = self._segment
        self._segment = sha256()
        self.segments.append(Segment(start=place.raw_offset, end=place.raw_offset, sha256=_NO_HASH))

    def _chunk(self, blob: Blob, place: Place) -> bytes | None:
        """Read a chunk, and read it again from the disk if it is wrong. Returns: its raw bytes; None: it is damaged.

        Raises: OSError.
        """
        entry = place.entry
        first = ""
        while True:
            self._waits.head("disk")
            frame = blob.read(place.file_offset, entry.stored_length)
            raw, fault = self._judge(place, frame)
            if not fault:
                if first:
                    self.passing.append(f"{describe(place)}: {first}")
                self._file_hash.update(frame)
                return raw
            if first:
                self.faults.append(f"{describe(place)}: {fault}")
                self._file_hash.update(frame)
                self._segment = None
                return None
            first = fault
            begin = max(0, place.file_offset - _PIECE)
            blob.forget(begin, place.file_offset + entry.stored_length + _PIECE - begin)

    def _judge(self, place: Place, frame: bytes) -> tuple[bytes | None, str]:
        """Return a frame's raw bytes, and what is wrong with it. If nothing is, its segment's hash has grown."""
        entry = place.entry
        if len(frame) != entry.stored_length:
            return None, "the file ends inside it"
        self._waits.head("decode")
        try:
            raw = self._decompressor.decompress(frame, entry.raw_length)
        except ChunkError as error:
            return None, str(error)
        self._waits.head("hash")
        if self._segment is not None:
            grown = self._segment.copy()
            grown.update(raw)
            if grown.digest() != entry.sha256:
                return None, "its SHA-256 is not the proven one"
            self._segment = grown
        return raw, ""

    def _take(self, place: Place, raw: bytes) -> None:
        """Count a chunk's raw bytes, and walk their records."""
        self.raw_bytes += len(raw)
        if self._whole is not None:
            self._whole.update(raw)
        if self.segments:
            end = place.raw_offset + len(raw)
            self.segments[-1] = Segment(start=self.segments[-1].start, end=end, sha256=place.entry.sha256.hex())
        if not self.faults:
            try:
                self.walker.walk(raw, 0, len(raw), 1 << 63)
            except StreamError as error:
                # The bytes are those that were proven: the next chunks cannot be walked, and are still compared.
                self.faults.append(str(error))

    def _hash_tables(self, blob: Blob) -> None:
        """Hash what follows the chunks."""
        self._waits.head("disk")
        at, end = self.stored_bytes, self.stored_bytes + tables_size(self.chunks)
        while at < end and (block := blob.read(at, min(_BLOCK, end - at))):
            self._file_hash.update(block)
            at += len(block)
        blob.forget(self._dropped, at - self._dropped)
        self.file_sha256 = self._file_hash.digest().hex()

    def _drop(self, blob: Blob) -> None:
        """Let the kernel use its memory for other files: a stored stream is hardly ever read twice."""
        end = self.stored_bytes // _DROP_EVERY * _DROP_EVERY
        if end > self._dropped:
            blob.forget(self._dropped, end - self._dropped)
            self._dropped = end
