"""Writes the records of a merged stream, with right running checksums.

RecordWriter    records -> the bytes of a stream
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.stream import fletcher, runs
from fullsend_protocol.stream.checksums import END_SUM_AT, SUM_AT, SUM_FIELDS, Piece, sum_of
from fullsend_protocol.stream.fletcher import WORD_SIZE, State
from fullsend_protocol.stream.record_reader import GUID_AT, INFINITY
from fullsend_protocol.stream.records import HEADER_SIZE, TO_THE_END, RecordType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_protocol.stream.record_reader import RecordReader
    from fullsend_protocol.stream.runs import Run

_U64: Final = struct.Struct("<Q")
_FREE: Final = struct.Struct("<I4xQQQ")  # type; object, offset, length
_FREEOBJECTS: Final = struct.Struct("<I4xQQ")  # type; first object, how many


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A record with its payload."""

    head: bytes
    payload: bytes


class RecordWriter:
    """Writes records with right running checksums.

    A record without a payload, or whose payload is there, is summed. Of a block that is passed on the sum is derived:
    `_difference` is the wanted minus the found state behind it, and the found state is known once its input's next
    header is there.
    """

    def __init__(self, guid: int) -> None:
        self._guid = _U64.pack(guid)
        self._state = fletcher.ZERO
        self._behind: RecordReader | None = None  # whose current record was the last one written
        self._difference = fletcher.ZERO
        self._free: list[int] | None = None  # a FREE that may still grow: object, start, end
        self._dead: list[int] | None = None  # a FREEOBJECTS that may still grow: first, behind the last

    def begin(self, head: bytes, payload: bytes) -> Iterator[Piece]:
        self._state = fletcher.summed(payload, fletcher.summed(head))
        yield head
        if payload:
            yield payload

    def end(self) -> Iterator[Piece]:
        yield from self.flush()
        head = bytearray(HEADER_SIZE)
        struct.pack_into("<I", head, 0, RecordType.END)
        SUM_FIELDS.pack_into(head, END_SUM_AT, *self._now())
        yield from self._put(head, RecordType.END)

    def held(self, record: HeldRecord) -> Iterator[Piece]:
        """Write a record that is there as a whole."""
        yield from self.flush()
        yield from self._put(bytearray(record.head), record.head[0], record.payload)

    def passed(self, source: RecordReader) -> Iterator[Piece]:
        """Write the current record of an input. Its payload is taken from there; `settle` must follow its `next`."""
        yield from self.flush()
        head = bytearray(source.head)
        at = GUID_AT[source.kind]
        head[at : at + 8] = self._guid
        wanted = fletcher.summed(head[:SUM_AT], self._now())
        SUM_FIELDS.pack_into(head, SUM_AT, *wanted)
        found = sum_of(source.head)
        moved = fletcher.stepped(fletcher.difference(wanted, found), head[SUM_AT:], source.head[SUM_AT:])
        self._difference = fletcher.advanced(moved, source.length // WORD_SIZE)
        self._behind = source
        yield head
        yield from source.payload()

    def run(self, run: Run) -> Iterator[Piece]:
        """Write the blocks that follow the one that was passed on last, in its input."""
        assert self._behind is not None  # noqa: S101 - `passed` comes before
        data, self._difference = runs.rewrite(run, self._difference, self._guid)
        yield data

    def settle(self, source: RecordReader) -> None:
        """Note that an input has gone to its next record: now the state behind its last one is known."""
        if self._behind is source:
            found = fletcher.unsummed(source.head[:SUM_AT], sum_of(source.head))
            self._state = fletcher.added(found, self._difference)
            self._behind = None

    def free(self, number: int, start: int, end: int) -> Iterator[Piece]:
        """Write a hole; one that follows directly on another becomes a part of it (dmu_send.c, dump_free)."""
        if self._free is not None and self._free[0] == number and self._free[2] == start:
            self._free[2] = end
            return
        yield from self.flush()
        self._free = [number, start, end]

    def dead(self, start: int, end: int) -> Iterator[Piece]:
        """Write free objects; those that follow directly on others become a part of them."""
        if self._dead is not None and self._dead[1] == start:
            self._dead[1] = end
            return
        yield from self.flush()
        self._dead = [start, end]

    def flush(self) -> Iterator[Piece]:
        """Write what may still grow."""
        if self._free is not None:
            number, start, end = self._free
            self._free = None
            head = bytearray(HEADER_SIZE)
            length = TO_THE_END if end == INFINITY else end - start
            _FREE.pack_into(head, 0, RecordType.FREE, number, start, length)
            yield from self._put(head, RecordType.FREE)
        elif self._dead is not None:
            first, end = self._dead
            self._dead = None
            head = bytearray(HEADER_SIZE)
            _FREEOBJECTS.pack_into(head, 0, RecordType.FREEOBJECTS, first, end - first)
            yield from self._put(head, RecordType.FREEOBJECTS)

    def _now(self) -> State:
        assert self._behind is None  # noqa: S101 - each `passed` is followed by `next` and `settle`
        return self._state

    def _put(self, head: bytearray, kind: int, payload: bytes = b"") -> Iterator[Piece]:
        at = GUID_AT[kind]
        head[at : at + 8] = self._guid
        state = fletcher.summed(head[:SUM_AT], self._now())
        SUM_FIELDS.pack_into(head, SUM_AT, *state)
        state = fletcher.summed(head[SUM_AT:], state)
        self._state = fletcher.summed(payload, state) if payload else state
        yield head
        if payload:
            yield payload
