"""The segments of a stream that is being sent: the one owner of its hashes, from the first byte read to the proof.

    reader's thread     begin, then update and close for each chunk, finish: hashes what is read, and compares what had
                        arrived before
    event loop          start, then resume after each reconnect; to_send for each chunk, acknowledge; proof

A segment is a run of chunks that is hashed without interruption. The reader hashes ahead of what is sent. After a
reconnect the receiver resumes where its durable bytes end, with a new segment, because it has lost its running hash. So
this module hashes what is sent again, and what was hashed meanwhile, from the compressed frames. Each frame is decoded,
compared with the hash taken before compression, and only then hashed as part of the new segment. From its next chunk on
the reader itself hashes for the new segment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared.errors import ChunkError, ErrorCode, FullsendError, PeerError, StreamError
from fullsend_protocol.stream.chunks import Decompressor, SegmentHash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_protocol.wire.connection import Chunk


class DifferentBytes(StreamError):  # noqa: N818 - reads as what it says
    """A replayed stream does not have the bytes that arrived before: it cannot be resumed."""


class CannotResume(FullsendError):  # noqa: N818 - reads as what it says
    """What the receiver has of the stream is not what was sent, or not all that it had acknowledged."""


def starts_over(error: Exception) -> bool:
    """Whether a stream can be sent from its start after this error: what had arrived is of no use, or is gone."""
    if isinstance(error, PeerError):
        return error.code is ErrorCode.PARTIAL
    return isinstance(error, DifferentBytes | CannotResume)


@dataclass(frozen=True, slots=True)
class Hashed:
    """The hashes of a chunk. `sha256`: of its segment through this chunk; `before`: the segment's hash before the
    chunk.
    """

    sha256: bytes
    before: SegmentHash

    @property
    def starts_segment(self) -> bool:
        """Whether the chunk is its segment's first."""
        return self.before.end == self.before.start


@dataclass(frozen=True, slots=True)
class Ready:
    """A chunk to be sent. `before`: as in `Hashed`, in case the chunk must be hashed again."""

    chunk: Chunk
    before: SegmentHash


@dataclass(frozen=True, slots=True)
class _Mark:
    """The proof of all before the end of a chunk: the first `closed` of the closed segments, and `segment`."""

    end: int
    closed: int
    segment: Segment | None


class Segments:
    """The segments of one stream. It has two halves, for two threads. Shared between them are `_known`, set before the
    reader closes a chunk that had arrived before, and `_is_lost`.
    """

    def __init__(self) -> None:
        """Start for a stream that is read from its first byte on; `begin` changes that."""
        # The reader's half.
        self._hash = SegmentHash(0)
        self._before = self._hash.copy()  # at the start of the open chunk
        self._known: deque[Segment] = deque()  # what had arrived before, and must still be compared
        self._is_lost = False  # the receiver has lost the segment that the reader hashes
        # The event loop's half: what was sent.
        self._closed: list[Segment] = []
        self._marks: deque[_Mark] = deque([_Mark(0, 0, None)])
        self._rehash: SegmentHash | None = None  # of a segment that began with a chunk that is sent again
        self._decompressor = Decompressor()

    # --- in the reader's thread ------------------------------------------------------------------------------

    def begin(self, offset: int) -> None:
        """Start at this raw offset instead."""
        self._hash = SegmentHash(offset)
        self._before = self._hash.copy()

    def update(self, raw: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes of the open chunk."""
        self._hash.update(raw)

    def close(self) -> Hashed | None:
        """End the open chunk here. Returns: its hash; None if it had arrived before, and has the same bytes as far as
        is known yet. Raises: DifferentBytes if it has not.
        """
        if self._known and self._known[-1].end > self._before.end:
            self._compare(self._known[0])
            self._before = self._hash.copy()
            return None
        hashed = Hashed(self._hash.digest(), self._before)
        if self._is_lost:
            self._is_lost = False
            self._hash = SegmentHash(self._hash.end)
        self._before = self._hash.copy()
        return hashed

    def finish(self) -> None:
        """Note the stream's end. Raises: DifferentBytes if more of it had arrived before."""
        if self._known and self._known[-1].end > self._hash.end:
            raise DifferentBytes(f"the stream has {self._hash.end} bytes, and {self._known[-1].end} had arrived before")

    def _compare(self, known: Segment) -> None:
        if self._hash.end < known.end:
            return
        if self._hash.end > known.end or self._hash.digest().hex() != known.sha256:
            raise DifferentBytes(f"the bytes {known.start} to {known.end} are not those that arrived before")
        self._known.popleft()
        self._hash = SegmentHash(known.end)

    # --- on the event loop -----------------------------------------------------------------------------------

    @property
    def proof(self) -> list[Segment]:
        """The segments of all that was sent, and of what had arrived before."""
        return self._proof(self._marks[-1])

    def start(self, known: Sequence[Segment]) -> None:
        """Begin behind what has arrived in an earlier run. `known`: its segments, from raw offset 0 on; the reader
        compares them with what it reads.
        """
        self._known.extend(known)
        self._closed = [*known]
        self._marks = deque([_Mark(known[-1].end if known else 0, len(known), None)])

    def resume(self, offset: int, segments: Sequence[Segment]) -> None:
        """After a reconnect: the receiver has all before `offset`, proven by `segments`. Raises: CannotResume."""
        while len(self._marks) > 1 and self._marks[0].end < offset:
            self._marks.popleft()
        mark = self._marks[0]
        if mark.end != offset:
            raise CannotResume(f"the receiver says that it has {offset} bytes: it has lost what it had acknowledged")
        if self._proof(mark) != [*segments]:
            raise CannotResume(f"the {offset} bytes that the receiver says it has are not those that were sent")
        self._closed = [*segments]
        self._marks = deque([_Mark(offset, len(segments), None)])
        self._rehash = SegmentHash(offset)
        self._is_lost = True

    async def to_send(self, ready: Ready) -> Chunk:
        """Return a chunk for sending, with the hash of the segment to which it belongs now; it counts as sent. Raises:
        ChunkError (memory has changed it since it was compressed).
        """
        chunk = ready.chunk
        if chunk.starts_segment:
            self._rehash = None  # from here on the reader hashes for the receiver's segment
        if self._rehash is not None:
            # This must not be cancelled half-way: the hash would include this chunk, or not.
            hashing = asyncio.ensure_future(asyncio.to_thread(self._hash_anew, ready, self._rehash))
            try:
                chunk = await asyncio.shield(hashing)
            except asyncio.CancelledError:
                await asyncio.wait([hashing])
                raise
        self._mark(chunk)
        return chunk

    def acknowledge(self, offset: int) -> None:
        """Forget the ends of chunks before this raw offset: the receiver will not resume there."""
        while len(self._marks) > 1 and self._marks[1].end <= offset:
            self._marks.popleft()

    def _proof(self, mark: _Mark) -> list[Segment]:
        return [*self._closed[: mark.closed], *([mark.segment] if mark.segment else [])]

    def _mark(self, chunk: Chunk) -> None:
        last = self._marks[-1]
        start, closed = chunk.raw_offset, last.closed
        if chunk.starts_segment:
            if last.segment is not None:
                self._closed.append(last.segment)
                closed += 1
        elif last.segment is not None:
            start = last.segment.start
        end = chunk.raw_offset + chunk.raw_length
        self._marks.append(_Mark(end, closed, Segment(start=start, end=end, sha256=bytes(chunk.sha256).hex())))

    def _hash_anew(self, ready: Ready, segment: SegmentHash) -> Chunk:
        chunk = ready.chunk
        raw = self._decompressor.decompress(chunk.frame, chunk.raw_length)
        if ready.before.copy().update(raw) != chunk.sha256:
            raise ChunkError(
                f"the chunk at {chunk.raw_offset} is not what it was before it was compressed: check this host's memory"
            )
        starts = segment.end == segment.start
        return replace(chunk, sha256=segment.update(raw), starts_segment=starts)
