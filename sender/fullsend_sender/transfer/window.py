"""What has been sent and is not acknowledged yet, and the proof of all that was sent.

After a reconnect the receiver goes on where its durable bytes end, with a new segment, since it has lost its running
hash. So what is sent again, and what was hashed meanwhile, is hashed anew here, out of the compressed frames: each is
decoded, held against the hash that was taken before it was compressed, and only then hashed as part of the new
segment. From the reader's next chunk on it hashes for the new segment itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, FullsendError
from fullsend_protocol.stream.chunks import Decompressor, SegmentHash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_protocol.wire.connection import Chunk
    from fullsend_sender.transfer.pipeline import Ready

#: Bytes of frames that are kept until they are acknowledged: what the receiver makes durable in one go (32 MiB), and
#: most of the next, so that the wire does not wait for a disk that keeps up. 64 were measured to be no faster, and with
#: the rest are more than the sender's 160 MiB.
WINDOW: Final = 56 * limits.MIB


class CannotGoOn(FullsendError):  # noqa: N818 - reads as what it says
    """What the receiver has of the stream is not what was sent, or not all that it had acknowledged."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """How all before the end of a chunk is proven: by the first `closed` of the closed segments, and by `segment`."""

    end: int
    closed: int
    segment: Segment | None


class Window:
    """The chunks between what was sent last and what was acknowledged last."""

    def __init__(self, limit: int = WINDOW) -> None:
        """`limit`: bytes of frames, to which one comes that waits for room; a single one may be larger."""
        self._limit = limit
        self._used = 0
        self._chunks: deque[Ready] = deque()
        self._closed: list[Segment] = []
        self._marks: deque[_Mark] = deque([_Mark(0, 0, None)])
        self._freed = asyncio.Event()
        self._rehash: SegmentHash | None = None  # of a segment that began with a chunk that is sent again
        self._decompressor = Decompressor()

    @property
    def segments(self) -> list[Segment]:
        """The proof of all that was sent."""
        return self._proof(self._marks[-1])

    @property
    def unacknowledged(self) -> list[Ready]:
        """What is to be sent again after a reconnect, in order."""
        return [*self._chunks]

    async def keep(self, ready: Ready) -> None:
        """Keep a chunk until it is acknowledged. Returns as soon as there is room for it; it is kept also where we are
        cancelled before.
        """
        self._used += len(ready.chunk.frame)
        self._chunks.append(ready)
        while self._used > self._limit and len(self._chunks) > 1:
            self._freed.clear()
            await self._freed.wait()

    async def to_send(self, ready: Ready) -> Chunk:
        """Return a chunk as it is to be sent, and count on its being sent: with the hash of the segment to which it
        belongs now. Raises: ChunkError (memory has changed it since it was compressed).
        """
        chunk = ready.chunk
        if chunk.starts_segment:
            self._rehash = None  # from here on the reader hashes for the receiver's segment
        if self._rehash is not None:
            # Not to be cancelled half-way: the hash would have this chunk in it, or not.
            hashing = asyncio.ensure_future(asyncio.to_thread(self._hash_anew, ready, self._rehash))
            try:
                chunk = await asyncio.shield(hashing)
            except asyncio.CancelledError:
                await asyncio.wait([hashing])
                raise
        self._mark(chunk)
        return chunk

    def acknowledge(self, offset: int) -> None:
        """Let go of all before this raw offset."""
        while self._chunks and self._chunks[0].chunk.raw_offset + self._chunks[0].chunk.raw_length <= offset:
            self._used -= len(self._chunks.popleft().chunk.frame)
        while len(self._marks) > 1 and self._marks[1].end <= offset:
            self._marks.popleft()
        self._freed.set()

    def start(self, segments: Sequence[Segment]) -> None:
        """Begin behind what has arrived in an earlier run, and is proven by these."""
        self._closed = [*segments]
        self._marks = deque([_Mark(segments[-1].end if segments else 0, len(segments), None)])

    def go_on(self, offset: int, segments: Sequence[Segment]) -> None:
        """After a reconnect: the receiver has all before `offset`, proven by `segments`. Raises: CannotGoOn."""
        while len(self._marks) > 1 and self._marks[0].end < offset:
            self._marks.popleft()
        mark = self._marks[0]
        if mark.end != offset:
            raise CannotGoOn(f"the receiver says that it has {offset} bytes: it has lost what it had acknowledged")
        if self._proof(mark) != [*segments]:
            raise CannotGoOn(f"the {offset} bytes that the receiver says it has are not those that were sent")
        self._closed = [*segments]
        self._marks = deque([_Mark(offset, len(segments), None)])
        self.acknowledge(offset)
        self._rehash = SegmentHash(offset)

    # --- proof -----------------------------------------------------------------------------------------------

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
