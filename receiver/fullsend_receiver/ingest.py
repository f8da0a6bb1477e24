"""What the receiver does with each chunk: decode the frame that it writes, hash, compare, walk, write.

Only what has passed all of this counts as arrived. What the stream is, and whether it is whole, is concluded from
the bytes, never from the sender's word.
"""

from __future__ import annotations

import hmac

from fullsend_protocol import facts
from fullsend_protocol.chunks import Cutter, Decompressor, SegmentHash
from fullsend_protocol.connection import Chunk
from fullsend_protocol.errors import ChunkError, DamagedStream, UnsupportedStream
from fullsend_protocol.facts import Facts
from fullsend_protocol.manifest import Segment
from fullsend_protocol.messages import Finish
from fullsend_protocol.records import Walker
from fullsend_receiver.partial import Batch, Partial
from fullsend_receiver.seekable import CHUNKS_MAX, IndexEntry


class Ingest:
    """The state of one arriving stream. For one thread at a time.

    `unsynced`: bytes of frames written since the last batch was taken.
    """

    def __init__(self, partial: Partial) -> None:
        """Begin at raw offset 0 of a new partial."""
        self.partial = partial
        self.walker = Walker()
        self.chunks = 0
        self.unsynced = 0
        self._cutter = Cutter(self.walker)
        self._segment = SegmentHash(0)
        self._decompressor = Decompressor()
        self._pending: list[IndexEntry] = []
        self._arrived = 0
        self._known = False  # a substream's BEGIN has come, and was looked at

    @property
    def offset(self) -> int:
        """Raw bytes that have arrived. The walker may be further: inside a chunk that was refused, or not written."""
        return self._arrived

    def take(self, chunk: Chunk) -> None:
        """Check a chunk and write its frame. Holds the raw bytes (`chunk.raw_length`) in memory meanwhile.

        Raises: ChunkError (frame or hash), StreamError (records), OSError (disk). The stream is of no more use then.
        """
        if self.chunks and not self._cutter.closed:
            msg = f"chunk at raw offset {chunk.raw_offset}: the one before it ended where none may end"
            raise DamagedStream(msg)
        if self.chunks == CHUNKS_MAX:
            msg = f"a stream of more than {CHUNKS_MAX} chunks: a stored file holds no more"
            raise UnsupportedStream(msg)
        raw = self._decompressor.decompress(chunk.frame, chunk.raw_length)
        digest = self._segment.update(raw)
        if not hmac.compare_digest(digest, chunk.sha256):
            msg = f"chunk at raw offset {chunk.raw_offset}: its SHA-256 differs from the sender's"
            raise ChunkError(msg)
        self._cutter.next()
        self._cutter.walk_chunk(raw)
        if not self._known:
            self._look()
        self.partial.write(chunk.frame)
        self._pending.append(
            IndexEntry(
                raw_length=chunk.raw_length,
                stored_length=len(chunk.frame),
                ends_at_resume_point=self.walker.at_resume_point,
                first_key=self.walker.first_key,
                starts_segment=chunk.raw_offset == self._segment.start,
                sha256=digest,
            )
        )
        self.chunks += 1
        self._arrived += chunk.raw_length
        self.unsynced += len(chunk.frame)

    def _look(self) -> None:
        """Refuse at once, not after a terabyte, what will never be stored, such as a resumed stream."""
        self._known = any(not begin.compound for begin in self.walker.begins)
        if not self._known:
            # BEGIN records with nvlists of many MiB may fill whole chunks; one that is shorter is the stream's last.
            if self._cutter.closed:
                return
            self.walker.finish()
        facts.conclude(self.walker.begins)

    def batch(self) -> Batch:
        """Take the chunks that have been written since the last batch."""
        batch = Batch(self.offset, self.partial.size, tuple(self._pending))
        self._pending.clear()
        self.unsynced = 0
        return batch

    def segments(self) -> list[Segment]:
        """Return what proves the bytes that have arrived."""
        segment = self._segment
        return [Segment(start=segment.start, end=segment.end, sha256=segment.digest().hex())]

    def conclude(self, finish: Finish) -> Facts:
        """Hold the whole stream against what the sender says of it.

        Returns: what the stream is. Raises: StreamError, ChunkError.
        """
        self.walker.finish()
        facts.check_package(self.walker.begins)
        if finish.raw_bytes != self.offset or finish.segments != self.segments():
            msg = "the whole stream's SHA-256 differs from the sender's"
            raise ChunkError(msg)
        return facts.conclude(self.walker.begins)
