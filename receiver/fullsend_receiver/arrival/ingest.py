"""What the receiver does with each chunk, in order: hash the raw bytes, compare, parse the records, write the frame.

A chunk counts as arrived only after all of this. One thread may write a chunk while another checks the next one. What
the stream is, and whether it is whole, follows from its bytes alone; the sender's statements are only compared. The raw
bytes come from decode_queue.py, which decodes in parallel.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, DamagedStream, UnsupportedStream
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.chunks import Cutter, SegmentHash
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.wire.connection import Chunk
from fullsend_protocol.wire.messages import Finish
from fullsend_receiver.store.api import Upload
from fullsend_receiver.store.journal import Batch, Standing
from fullsend_receiver.store.pending import ChunkEnd, PendingChunks
from fullsend_receiver.store.seekable import CHUNKS_MAX, IndexEntry


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """A chunk that may be written: its `frame`, and what its journal needs of it."""

    frame: bytes | memoryview
    end: ChunkEnd


class Ingest:
    """The state of one arriving stream. One thread at a time may call `check`, and one the other methods.

    `chunks`: how many are written.
    """

    def __init__(self, partial: Upload, standing: Standing | None = None) -> None:
        """Begin at raw offset 0 of a new partial, or resume one at the place `standing`."""
        self.partial = partial
        self.walker = (
            Walker() if standing is None else Walker.resume(standing.walker, standing.begins, standing.embedded_spills)
        )
        self.chunks = self._checked = standing.chunks if standing else 0
        self.resumptions = list(standing.resumptions) if standing else []
        self._cutter = Cutter(self.walker)
        self._may_follow = True  # the last chunk ended where another may begin
        self._segments = list(standing.segments) if standing else []  # without the one that is being hashed
        self._segment: SegmentHash | None = None
        self._pending = PendingChunks(self.walker)
        self._known = False  # a substream's BEGIN has arrived, and was checked

    @property
    def offset(self) -> int:
        """Raw bytes that have arrived."""
        return self._pending.offset

    @property
    def unsynced(self) -> int:
        """Bytes of frames written since the last batch was taken."""
        return self._pending.frame_bytes

    def check(self, chunk: Chunk, raw: bytes) -> CheckedChunk:
        """Check the next chunk. `raw`: the decoded frame. Returns: what is to be written, in the same order.

        Raises: ChunkError (hash), StreamError (records). After an error only what was checked before may be written.
        """
        if not self._may_follow:
            msg = f"chunk at raw offset {chunk.raw_offset}: the one before it ended where none may end"
            raise DamagedStream(msg)
        if self._checked == CHUNKS_MAX:
            msg = f"a stream of more than {CHUNKS_MAX} chunks: a stored file holds no more"
            raise UnsupportedStream(msg)
        segment = self._segment
        if chunk.starts_segment or segment is None:  # the connection has checked that the first one starts one
            segment = self._begin_segment(chunk.raw_offset)
        digest = segment.update(raw)
        if not hmac.compare_digest(digest, chunk.sha256):
            msg = f"chunk at raw offset {chunk.raw_offset}: its SHA-256 differs from the sender's"
            raise ChunkError(msg)
        self._cutter.next()
        self._cutter.walk_chunk(raw)
        self._may_follow = self._cutter.closed
        if not self._known:
            self._look()
        entry = IndexEntry(
            raw_length=chunk.raw_length,
            stored_length=len(chunk.frame),
            ends_at_resume_point=self.walker.at_resume_point,
            first_key=self.walker.first_key,
            starts_segment=chunk.raw_offset == segment.start,
            sha256=digest,
        )
        self._checked += 1
        return CheckedChunk(chunk.frame, ChunkEnd.of(entry, self.walker))

    def write(self, checked: CheckedChunk) -> None:
        """Write a checked chunk's frame. Raises: OSError; none behind it may be written then."""
        self.partial.append(checked.frame)
        self._pending.add(checked.end)
        self.chunks += 1

    def _begin_segment(self, start: int) -> SegmentHash:
        self._segments = self.segments()
        if len(self._segments) == limits.SEGMENTS_MAX:
            msg = f"a stream of more than {limits.SEGMENTS_MAX} segments: it was interrupted too often, start it over"
            raise UnsupportedStream(msg)
        self._segment = SegmentHash(start)
        return self._segment

    def _look(self) -> None:
        """Refuse at once, not after a terabyte, a stream that will never be stored, such as a resumed one."""
        self._known = any(not begin.compound for begin in self.walker.begins)
        if not self._known:
            # BEGIN records with nvlists of many MiB may fill whole chunks. A shorter chunk is the stream's last.
            if self._cutter.closed:
                return
            self.walker.finish()
        facts.conclude(self.walker.begins)

    def batch(self) -> Batch:
        """Return the chunks that have been written since the last batch."""
        return self._pending.take(self.partial.size)

    def segments(self) -> list[Segment]:
        """Return the segments that prove the bytes that have arrived."""
        segment = self._segment
        if segment is None or segment.end == segment.start:
            return [*self._segments]
        return [*self._segments, Segment(start=segment.start, end=segment.end, sha256=segment.digest().hex())]

    def conclude(self, finish: Finish) -> Facts:
        """Compare the whole stream with the sender's statements.

        Returns: what the stream is. Raises: StreamError, ChunkError.
        """
        self.walker.finish()
        facts.check_package(self.walker.begins)
        if finish.raw_bytes != self.offset or finish.segments != self.segments():
            msg = "the whole stream's SHA-256 differs from the sender's"
            raise ChunkError(msg)
        return facts.conclude(self.walker.begins)
