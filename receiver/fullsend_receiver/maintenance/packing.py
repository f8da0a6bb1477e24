"""Makes a stored file of a stream: cut into chunks, walked, hashed, compressed, and read back.

Packer         raw pieces -> frames, with all that index, journal and manifest need
read_back      what was written is what was meant
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final, NoReturn

import fullsend_protocol
from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared.errors import ChunkError
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.chunks import Compressor, Cutter, SegmentHash
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.store.journal import Batch
from fullsend_receiver.store.pending import ChunkEnd, PendingChunks
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks_of
from fullsend_receiver.store.seekable import Blob, IndexEntry

#: The program that makes such a stream, as a manifest names it.
PROGRAM: Final = f"fullsendd {fullsend_protocol.__version__}"


class Packer:
    """Packs one stream. `chunks`, `stored_bytes`: what was yielded so far; `walker`: of the stream."""

    def __init__(self, level: int) -> None:
        """`level`: of zstd."""
        self.walker = Walker()
        self.chunks = 0
        self.stored_bytes = 0
        self._compressor = Compressor(level)
        self._hash = SegmentHash(0)
        self._pending = PendingChunks(self.walker)

    @property
    def raw_bytes(self) -> int:
        """The raw bytes so far."""
        return self._hash.end

    @property
    def sha256(self) -> str:
        """The SHA-256 of the raw bytes so far, in hex."""
        return self._hash.digest().hex()

    @property
    def segments(self) -> list[Segment]:
        """The one segment that proves the stream."""
        return [Segment(start=0, end=self.raw_bytes, sha256=self.sha256)]

    def frames(self, pieces: Iterable[Piece]) -> Iterator[tuple[bytes, IndexEntry]]:
        """Yield the frame of each chunk, with its index entry. Raises: StreamError, and what `pieces` raises."""
        for raw in _chunks(pieces, Cutter(self.walker)):
            frame = self._compressor.compress(raw)
            entry = IndexEntry(
                raw_length=len(raw),
                stored_length=len(frame),
                ends_at_resume_point=self.walker.at_resume_point,
                first_key=self.walker.first_key,
                starts_segment=not self.chunks,
                sha256=self._hash.update(raw),
            )
            self.chunks += 1
            self.stored_bytes += len(frame)
            self._pending.add(ChunkEnd.of(entry, self.walker))
            yield frame, entry
        self.walker.finish()

    def batch(self) -> Batch:
        """Return the chunks since the last batch, for the journal."""
        return self._pending.take(self.stored_bytes)

    def conclude(self) -> Facts:
        """Return what the whole stream is. Raises: StreamError."""
        return facts.conclude(self.walker.begins)


def read_back(blob: Blob, name: str, *, raw_bytes: int, sha256: str) -> None:
    """Decode a file that was just written, from the disk, and compare it with what was meant; closes it. `sha256`: of
    the raw bytes, in hex, which are one segment. Raises: ChunkError if it is something else; OSError.
    """
    end, digest = 0, b""
    with closing(blob):
        blob.forget(0, blob.size)
        for chunk in checked_chunks_of(blob):
            if isinstance(chunk, DamagedChunk):
                _reads_otherwise(name, str(chunk))
            end += len(chunk.raw)
            digest = chunk.place.entry.sha256
    if end != raw_bytes or digest.hex() != sha256:
        _reads_otherwise(name, f"{end} raw bytes of {raw_bytes}")


def _reads_otherwise(name: str, what: str) -> NoReturn:
    msg = f"{name}: what was written reads back otherwise: {what}; the disk or the memory is bad"
    raise ChunkError(msg)


def _chunks(pieces: Iterable[Piece], cutter: Cutter) -> Iterator[bytearray]:
    """Cut a stream into chunks. The cutter opens the next one when the caller asks for it."""
    chunk = bytearray()
    cutter.next()
    for piece in pieces:
        at, stop = 0, len(piece)
        while at < stop:
            end = cutter.walk(piece, at, stop)
            chunk += piece[at:end]
            at = end
            if cutter.closed:
                yield chunk
                cutter.next()
                chunk = bytearray()
    if chunk:
        yield chunk
