"""The chunks of a stream that are written and not durable yet, until a line of its journal has them."""

from __future__ import annotations

from dataclasses import dataclass

from fullsend_protocol.stream.records import Walker, WalkerState
from fullsend_receiver.store.journal import Batch, Written
from fullsend_receiver.store.seekable import IndexEntry


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """A chunk, and the stream's state behind it: the walker's, and how many BEGIN records and embedded spill blocks it
    has.
    """

    written: Written
    state: WalkerState
    begins: int
    embedded_spills: int

    @classmethod
    def of(cls, entry: IndexEntry, walker: Walker) -> ChunkEnd:
        """Return the end of a chunk at which a walker stands."""
        written = Written(entry, walker.record_start)
        return cls(written, walker.state, len(walker.begins), len(walker.embedded_spills))


class PendingChunks:
    """Collects the chunks of one stream, in order. `frame_bytes`: of their frames, since the last batch.

    The walker may be further, inside a chunk that is never written.
    """

    def __init__(self, walker: Walker) -> None:
        """Begin where a walker stands: at the beginning, or behind chunks that are durable."""
        self.frame_bytes = 0
        self._walker = walker
        self._chunks: list[Written] = []
        self._state = walker.state
        # How many of them there are, and how many are in batches.
        self._begins = self._taken_begins = len(walker.begins)
        self._spills = self._taken_spills = len(walker.embedded_spills)

    def __bool__(self) -> bool:
        """Whether there is a chunk that is in no batch."""
        return bool(self._chunks)

    @property
    def offset(self) -> int:
        """Raw bytes of the stream through the last chunk."""
        return self._state.offset

    def add(self, end: ChunkEnd) -> None:
        """Note a chunk that is written."""
        self._chunks.append(end.written)
        self._state, self._begins, self._spills = end.state, end.begins, end.embedded_spills
        self.frame_bytes += end.written.entry.stored_length

    def take(self, stored: int) -> Batch:
        """Return the chunks since the last batch. `stored`: bytes of the data file through the last one."""
        walker = self._walker
        batch = Batch(
            offset=self.offset,
            stored=stored,
            chunks=tuple(self._chunks),
            walker=self._state,
            begins=tuple(walker.begins[self._taken_begins : self._begins]),
            embedded_spills=tuple(walker.embedded_spills[self._taken_spills : self._spills]),
        )
        self._taken_begins, self._taken_spills = self._begins, self._spills
        self._chunks.clear()
        self.frame_bytes = 0
        return batch
