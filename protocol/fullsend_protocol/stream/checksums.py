"""Rewrites the running checksums of records, so that they continue another part of the same stream.

OpenZFS resumes a send at (object, offset). It sends a BEGIN with the feature RESUMING, and some records that were sent
before. Two things differ from the rest of the stream that was cut: where the rest begins, and the running Fletcher-4 in
each record, which depends on all bytes before it. A Seeker finds the former (see splice and rejoin). This module
rewrites the latter. The sum is linear (see fletcher). So the difference between the wanted and the found sum moves from
record to record at a cost that does not depend on the payload, and no payload byte is summed. Thus a wrong byte in the
data stays wrong, and `zfs receive` finds it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from fullsend_protocol.shared import limits
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.fletcher import MASK, WORD_SIZE, State
from fullsend_protocol.stream.records import FREQUENT, HEADER_SIZE, RecordType, payload_length

#: The type of a piece of the result.
Piece = bytes | bytearray | memoryview

#: Where each header but BEGIN's has the running checksum: the state just before these 32 bytes.
SUM_AT: Final = 280
_SUM_SIZE: Final = 32
BEFORE_SUM: Final = SUM_AT // WORD_SIZE
#: Where END also has the state before its own first byte, and the GUID of its stream.
END_SUM_AT: Final = 8
_END_GUID_AT: Final = 40
_BEFORE_END_SUM: Final = END_SUM_AT // WORD_SIZE
_AFTER_END_SUM: Final = (SUM_AT - END_SUM_AT - _SUM_SIZE) // WORD_SIZE

SUM_FIELDS: Final = struct.Struct("<4Q")
_WORDS: Final = struct.Struct("<8I")  # a sum, as the words that Fletcher-4 adds
_HOT: Final = struct.Struct("<I276x4Q")  # type and checksum
_U64: Final = struct.Struct("<Q")
BEGIN_FIELDS: Final = struct.Struct("<I4xQQ16xQQ256s")  # type, magic, versioninfo; toguid, fromguid, toname

#: Payloads have few lengths: one for blocks, multiples of 512 bytes for compressed ones. The cache of them is limited,
#: because a stream with other lengths must cost no memory.
_LENGTHS_MAX: Final = 4096

#: The END of a package (also of one with a single stream: -p), zero after its type.
CLOSING_END: Final = struct.pack("<I", RecordType.END).ljust(HEADER_SIZE, b"\0")


class Seeker(Protocol):
    """Finds the first record to pass on."""

    def take_header(self, head: bytearray) -> Beginning | None:
        """Examine a whole header. Returns: how to begin, if this record is the first to pass on."""

    def take_payload(self, payload: memoryview) -> None:
        """Examine some bytes of that record's payload."""

    def end_record(self) -> State | None:
        """Note the record's end. Returns: the difference for the next header, if that record is the first."""

    def take_rest(self, count: int) -> None:
        """Note that `count` bytes follow END."""

    def fail(self, what: str) -> NoReturn:
        """Raise the error of a stream with an impossible record. `what`: the end of the sentence for the user."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """`before`: what to pass on before the header. `difference`: wanted minus found checksum of that header."""

    before: list[Piece]
    difference: State


class ChecksumRewriter:
    """Drops records up to the place that a seeker finds. Passes on the others, to END, with rewritten checksums.

    `forwarding`: the place was found. `done`: END was passed on. After an error the object is unusable.
    """

    def __init__(self, seeker: Seeker, guid: int) -> None:
        """`guid`: of the snapshot, which END must have."""
        self.forwarding = False
        self.done = False
        self._seeker = seeker
        self._guid = guid
        self._head = bytearray()  # the part of a header that has arrived
        self._owed = 0  # payload bytes of the current record that are still to come
        # Wanted minus found checksum of the next header (see fletcher).
        self._difference = fletcher.ZERO
        self._powers: dict[int, tuple[int, int, int]] = {}  # coefficients by payload length, to the next header's sum

    def jump(self) -> None:
        """Prepare for a record that does not follow the last one."""
        self._head.clear()
        self._owed = 0

    def feed(self, data: Piece) -> list[Piece]:
        """Take the next bytes. Returns: pieces to pass on. See Splicer.feed and Rejoiner.feed."""
        view = memoryview(data)
        if view.readonly:
            view = memoryview(bytearray(data))
        pieces: list[Piece] = []
        position, stop = 0, len(view)
        opened = 0  # where the next piece to pass on begins
        while position < stop:
            if self._owed:
                count = min(self._owed, stop - position)
                self._owed -= count
                if not self.forwarding:
                    self._seeker.take_payload(view[position : position + count])
                    opened = position + count
                    if not self._owed:
                        self._end_record()
                position += count
            elif self.done:
                self._seeker.take_rest(stop - position)
                break
            elif self.forwarding and not self._head and stop - position >= HEADER_SIZE:
                position = self._run(view, position, stop)
            else:
                if position > opened:
                    pieces.append(view[opened:position])
                position = opened = self._gather(view, position, stop, pieces)
        if position > opened:
            pieces.append(view[opened:position])
        return pieces

    def _gather(self, view: memoryview, position: int, stop: int, pieces: list[Piece]) -> int:
        """Collect a header that `view` has only in part, or that a seeker must see. Returns: the position reached."""
        count = min(HEADER_SIZE - len(self._head), stop - position)
        self._head += view[position : position + count]
        if len(self._head) == HEADER_SIZE:
            head, self._head = self._head, bytearray()
            if not self.forwarding:
                start = self._seeker.take_header(head)
                if start is None:
                    self._owed = self._length(head)
                    if not self._owed:
                        self._end_record()
                    return position + count
                pieces += start.before
                self._start_forwarding(start.difference)
            self._owed = self._correct(head)
            pieces.append(head)
        return position + count

    def _end_record(self) -> None:
        difference = self._seeker.end_record()
        if difference is not None:
            self._start_forwarding(difference)

    def _start_forwarding(self, difference: State) -> None:
        self._difference = difference
        self.forwarding = True

    def _run(self, view: memoryview, position: int, stop: int) -> int:
        """Rewrite the records whose headers lie whole in `view`. Inlined on purpose: a volume of 8 KiB blocks has
        120,000 records a gigabyte. Rare records go through `_correct`.
        """
        unpack, words, put = _HOT.unpack_from, _WORDS.unpack_from, SUM_FIELDS.pack_into
        powers, mask = self._powers, MASK
        last_header = stop - HEADER_SIZE
        a, b, c, d = self._difference
        while position <= last_header:
            kind, was_a, was_b, was_c, was_d = unpack(view, position)
            if kind not in FREQUENT:
                self._difference = a, b, c, d
                length = self._correct(view[position : position + HEADER_SIZE])
                a, b, c, d = self._difference
                position += HEADER_SIZE + length
                if self.done:
                    break
                continue
            length = payload_length(view, position) or 0
            n, n2, n3 = powers.get(length) or self._power(length)
            at = position + SUM_AT
            before = words(view, at)
            put(view, at, was_a + a & mask, was_b + b & mask, was_c + c & mask, was_d + d & mask)
            # fletcher.stepped
            for left, right in zip(words(view, at), before):  # noqa: B905 - it costs, and both are eight
                a += left - right
                b += a
                c += b
                d += c
            # fletcher.advanced
            d = d + n * c + n2 * b + n3 * a & mask
            c = c + n * b + n2 * a & mask
            b = b + n * a & mask
            a &= mask
            position += HEADER_SIZE + length
        self._difference = a, b, c, d
        if position > stop:
            self._owed = position - stop
            position = stop
        return position

    def _correct(self, head: bytearray | memoryview) -> int:
        """Rewrite one header in place. Returns: the length of its payload, in bytes."""
        kind, length = kind_of(head), self._length(head)
        moved = self._difference
        if kind == RecordType.BEGIN:
            self._seeker.fail("has a BEGIN record in a wrong place")
        if kind == RecordType.END:
            (guid,) = _U64.unpack_from(head, _END_GUID_AT)
            if guid != self._guid:
                self._seeker.fail(f"ends as that of the snapshot with GUID {guid}, not {self._guid}")
            # The eight words differ by the difference as of before END.
            earlier = fletcher.advanced(moved, -BEFORE_SUM)
            here = fletcher.advanced(earlier, _BEFORE_END_SUM)
            here = fletcher.stepped(here, *_raise(head, END_SUM_AT, earlier))
            moved = fletcher.advanced(here, _AFTER_END_SUM)
            self.done = True
        moved = fletcher.stepped(moved, *_raise(head, SUM_AT, moved))
        self._difference = fletcher.advanced(moved, length // WORD_SIZE + BEFORE_SUM)
        return length

    def _length(self, head: bytearray | memoryview) -> int:
        """Return the length of the payload, in bytes. Raises: the seeker's error if it is not possible."""
        length = payload_length(head)
        if length is None:
            self._seeker.fail(f"has a record of the unknown type {kind_of(head)}")
        if not is_possible_length(length):
            self._seeker.fail(f"has a record of type {kind_of(head)} with a payload of {length} bytes")
        return length

    def _power(self, length: int) -> tuple[int, int, int]:
        """Return, and cache, the coefficients that move the difference over a payload to the next header's checksum."""
        if not is_possible_length(length):
            self._seeker.fail(f"has a record with a payload of {length} bytes")
        if len(self._powers) >= _LENGTHS_MAX:
            self._powers.clear()
        found = fletcher.coefficients(length // WORD_SIZE + BEFORE_SUM)
        self._powers[length] = found
        return found


def identity_text(guid: int, base_guid: int, name: bytes) -> str:
    """Return the stream's identity as text for an error."""
    base = f"from GUID {base_guid}" if base_guid else "full"
    return f"{name.decode(errors='backslashreplace')} (GUID {guid}, {base})"


def kind_of(head: bytes | bytearray | memoryview) -> int:
    """Return the type of a record, known or not."""
    return int.from_bytes(head[:4], "little")


def is_possible_length(length: int) -> bool:
    """Whether a payload can be `length` bytes: at most RECORD_PAYLOAD_MAX, and a whole number of words."""
    return length <= limits.RECORD_PAYLOAD_MAX and length % WORD_SIZE == 0


def sum_of(head: bytes | bytearray, at: int = SUM_AT) -> State:
    """Return the running checksum in a header. `at`: where; END has another one, at END_SUM_AT."""
    a, b, c, d = SUM_FIELDS.unpack_from(head, at)
    return a, b, c, d


def _raise(head: bytearray | memoryview, at: int, moved: State) -> tuple[bytes, bytes]:
    """Add `moved` to the four sums at `at`. Returns: their bytes after and before."""
    before = bytes(head[at : at + _SUM_SIZE])
    a, b, c, d = SUM_FIELDS.unpack(before)
    after = SUM_FIELDS.pack(*fletcher.added((a, b, c, d), moved))
    head[at : at + _SUM_SIZE] = after
    return after, before
