"""The running checksums of a stream are carried over to records of it that follow on something else.

OpenZFS resumes a send at (object, offset), with a BEGIN that has the feature RESUMING and some records that were sent
before. Two things stand between that and the rest of the stream that was cut: where the rest begins, and the running
Fletcher-4 in each record, which depends on all that came before it. The former is for a Seeker to find (see splice and
rejoin), the latter is done here. Since that sum is linear (see fletcher), the difference between the sum wanted and the
one found is carried from record to record for a price that does not depend on the payload; no byte of it is summed.
What is wrong in the data so stays wrong for `zfs receive` to see.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from fullsend_protocol.shared import limits
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.fletcher import MASK, WORD_SIZE, State
from fullsend_protocol.stream.records import FREQUENT, HEADER_SIZE, RecordType, payload_length

#: What a piece of the result may be.
Piece = bytes | bytearray | memoryview

#: Where the running checksum stands in each header but BEGIN's; it is the state just before these 32 bytes.
SUM_AT: Final = 280
_SUM_SIZE: Final = 32
BEFORE_SUM: Final = SUM_AT // WORD_SIZE
#: Where END also has the state before its own first byte, and the guid of its stream.
_END_SUM_AT: Final = 8
_END_GUID_AT: Final = 40
_BEFORE_END_SUM: Final = _END_SUM_AT // WORD_SIZE
_AFTER_END_SUM: Final = (SUM_AT - _END_SUM_AT - _SUM_SIZE) // WORD_SIZE
#: The header type in BEGIN of a stream that is no package.
SUBSTREAM: Final = 1

SUM_FIELDS: Final = struct.Struct("<4Q")
_WORDS: Final = struct.Struct("<8I")  # a sum, as the words that are summed
_HOT: Final = struct.Struct("<I276x4Q")  # type and checksum
_U64: Final = struct.Struct("<Q")
BEGIN_FIELDS: Final = struct.Struct("<I4xQQ16xQQ256s")  # type, magic, versioninfo; toguid, fromguid, toname

#: Payloads come in few lengths: blocks in one, compressed ones in multiples of 512 bytes. What is remembered of them is
#: bounded, because a stream that says otherwise must cost no memory.
_LENGTHS_MAX: Final = 4096

#: The END of a package (also of one with a single stream: -p), zero after its type.
CLOSING_END: Final = struct.pack("<I", RecordType.END).ljust(HEADER_SIZE, b"\0")


class Seeker(Protocol):
    """Who looks for the place where records begin to be passed on."""

    def meet(self, head: bytearray) -> Start | None:
        """See a whole header. Returns: how to begin, if it is the first that is passed on."""

    def sift(self, payload: memoryview) -> None:
        """See some bytes of that record's payload."""

    def met(self) -> State | None:
        """See that the record has ended. Returns: the difference for the next header, if that is the first."""

    def left_over(self, count: int) -> None:
        """See that bytes follow on END."""

    def stray(self, what: str) -> NoReturn:
        """Raise the error of a stream with records that cannot be, here or later on."""


@dataclass(frozen=True, slots=True)
class Start:
    """`before`: what to pass on before the header. `difference`: what its checksum is to be more than it says."""

    before: list[Piece]
    difference: State


class Carrier:
    """Drops records up to the place that a seeker finds, and passes on the others, to END, with other checksums.

    `carrying`: the place was found. `done`: END was passed on. After an error it is of no more use.
    """

    def __init__(self, seeker: Seeker, guid: int) -> None:
        """`guid`: of the snapshot, which END must have."""
        self.carrying = False
        self.done = False
        self._seeker = seeker
        self._guid = guid
        self._head = bytearray()  # of a header that is not whole yet
        self._owed = 0  # payload bytes of the current record that are still to come
        # What the checksum of the next header is to be more than it says (see fletcher).
        self._difference = fletcher.ZERO
        self._powers: dict[int, tuple[int, int, int]] = {}  # by payload length: over it, to the next header's checksum

    def jump(self) -> None:
        """What is fed next begins with another record than the next."""
        self._head.clear()
        self._owed = 0

    def feed(self, data: Piece) -> list[Piece]:
        """As Splicer.feed and Rejoiner.feed."""
        view = memoryview(data)
        if view.readonly:
            view = memoryview(bytearray(data))
        pieces: list[Piece] = []
        position, stop = 0, len(view)
        opened = 0  # where the piece begins that is to be passed on next
        while position < stop:
            if self._owed:
                count = min(self._owed, stop - position)
                self._owed -= count
                if not self.carrying:
                    self._seeker.sift(view[position : position + count])
                    opened = position + count
                    if not self._owed:
                        self._met()
                position += count
            elif self.done:
                self._seeker.left_over(stop - position)
                break
            elif self.carrying and not self._head and stop - position >= HEADER_SIZE:
                position = self._run(view, position, stop)
            else:
                if position > opened:
                    pieces.append(view[opened:position])
                position = opened = self._gather(view, position, stop, pieces)
        if position > opened:
            pieces.append(view[opened:position])
        return pieces

    def _gather(self, view: memoryview, position: int, stop: int, pieces: list[Piece]) -> int:
        """Collect a header that `view` holds in part, or that a seeker wants to see. Returns: the position reached."""
        count = min(HEADER_SIZE - len(self._head), stop - position)
        self._head += view[position : position + count]
        if len(self._head) == HEADER_SIZE:
            head, self._head = self._head, bytearray()
            if not self.carrying:
                start = self._seeker.meet(head)
                if start is None:
                    self._owed = self._length(head)
                    if not self._owed:
                        self._met()
                    return position + count
                pieces += start.before
                self._carry(start.difference)
            self._owed = self._correct(head)
            pieces.append(head)
        return position + count

    def _met(self) -> None:
        difference = self._seeker.met()
        if difference is not None:
            self._carry(difference)

    def _carry(self, difference: State) -> None:
        self._difference = difference
        self.carrying = True

    def _run(self, view: memoryview, position: int, stop: int) -> int:
        """Correct the records whose headers lie whole in `view`. Straight-line on purpose: a volume of 8 KiB blocks is
        120,000 records a gigabyte. What is not frequent goes through `_correct`.
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
            for ours, theirs in zip(words(view, at), before):  # noqa: B905 - it costs, and both are eight
                a += ours - theirs
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
        """Correct one header in place. Returns: the length of its payload."""
        kind, length = kind_of(head), self._length(head)
        moved = self._difference
        if kind == RecordType.BEGIN:
            self._seeker.stray("has a BEGIN record where none may stand")
        if kind == RecordType.END:
            (guid,) = _U64.unpack_from(head, _END_GUID_AT)
            if guid != self._guid:
                self._seeker.stray(f"ends as that of the snapshot with GUID {guid}, not {self._guid}")
            # The eight words differ by the difference as it was before END.
            earlier = fletcher.advanced(moved, -BEFORE_SUM)
            here = fletcher.advanced(earlier, _BEFORE_END_SUM)
            here = fletcher.stepped(here, *_raise(head, _END_SUM_AT, earlier))
            moved = fletcher.advanced(here, _AFTER_END_SUM)
            self.done = True
        moved = fletcher.stepped(moved, *_raise(head, SUM_AT, moved))
        self._difference = fletcher.advanced(moved, length // WORD_SIZE + BEFORE_SUM)
        return length

    def _length(self, head: bytearray | memoryview) -> int:
        """Return the length of the payload, if it can be."""
        length = payload_length(head)
        if length is None:
            self._seeker.stray(f"has a record of the unknown type {kind_of(head)}")
        if not possible(length):
            self._seeker.stray(f"has a record of type {kind_of(head)} with a payload of {length} bytes")
        return length

    def _power(self, length: int) -> tuple[int, int, int]:
        """Return, and remember, what carries the difference over a payload to the next header's checksum."""
        if not possible(length):
            self._seeker.stray(f"has a record with a payload of {length} bytes")
        if len(self._powers) >= _LENGTHS_MAX:
            self._powers.clear()
        found = fletcher.coefficients(length // WORD_SIZE + BEFORE_SUM)
        self._powers[length] = found
        return found


def said(guid: int, base_guid: int, name: bytes) -> str:
    """Say which stream that is."""
    base = f"from GUID {base_guid}" if base_guid else "full"
    return f"{name.decode(errors='backslashreplace')} (GUID {guid}, {base})"


def kind_of(head: bytes | bytearray | memoryview) -> int:
    """Return the type of a record, known or not."""
    return int.from_bytes(head[:4], "little")


def possible(length: int) -> bool:
    """Whether a payload can be so long: nothing longer is sent, and nothing that does not end with a word."""
    return length <= limits.RECORD_PAYLOAD_MAX and length % WORD_SIZE == 0


def sum_of(head: bytes | bytearray) -> State:
    """Return the running checksum that a header says."""
    a, b, c, d = SUM_FIELDS.unpack_from(head, SUM_AT)
    return a, b, c, d


def _raise(head: bytearray | memoryview, at: int, moved: State) -> tuple[bytes, bytes]:
    """Add `moved` to the four sums that stand at `at`. Returns: their bytes after and before."""
    before = bytes(head[at : at + _SUM_SIZE])
    a, b, c, d = SUM_FIELDS.unpack(before)
    after = SUM_FIELDS.pack(*fletcher.added((a, b, c, d), moved))
    head[at : at + _SUM_SIZE] = after
    return after, before
