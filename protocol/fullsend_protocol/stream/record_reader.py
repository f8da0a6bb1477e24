"""Reads a stream as a merge needs it: one record at a time, and a block's bytes only where they are wanted.

RecordReader    the records of one input
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, TrailingBytes, UnsupportedStream
from fullsend_protocol.stream import runs
from fullsend_protocol.stream.checksums import CLOSING_END, SUM_AT, Piece, is_possible_length
from fullsend_protocol.stream.fletcher import WORD_SIZE
from fullsend_protocol.stream.records import (
    BIG_ENDIAN_MAGIC,
    COMPOUND,
    HEADER_SIZE,
    MAGIC,
    SUBSTREAM,
    Feature,
    RecordType,
    payload_length,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fullsend_protocol.stream.runs import Run

#: No object and no offset is so large.
INFINITY: Final = 1 << 64
#: Where each type of record has the GUID of its stream.
GUID_AT: Final[dict[int, int]] = {
    RecordType.OBJECT: 40,
    RecordType.FREEOBJECTS: 24,
    RecordType.WRITE: 40,
    RecordType.FREE: 32,
    RecordType.END: 40,
    RecordType.SPILL: 24,
    RecordType.WRITE_EMBEDDED: 32,
    RecordType.OBJECT_RANGE: 24,
}
#: Records of an object, which follow its OBJECT.
_OF_OBJECTS: Final = frozenset({RecordType.WRITE, RecordType.FREE, RecordType.SPILL, RecordType.WRITE_EMBEDDED})

_U64: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")
#: payloadlen, magic, versioninfo, creation time, objset type, flags, toguid, fromguid
_BEGIN: Final = struct.Struct("<4xIQQQIIQQ")
#: DRR_FLAG_SPILL_BLOCK of BEGIN (include/sys/zfs_ioctl.h).
_SPILL_BLOCK: Final = 8
#: Features of streams that are not one state of one dataset by themselves.
_REFUSED: Final = (Feature.DEDUP, Feature.DEDUPPROPS, Feature.REDACTED, Feature.RESUMING)
_NO_SUM: Final = bytes(32)
_SLOTS_AT: Final = 34  # of an OBJECT


@dataclass(frozen=True, slots=True)
class StreamBegin:
    """A BEGIN record: its header of 312 bytes, its nvlist, and their fields."""

    head: bytes
    payload: bytes
    features: int
    objset: int
    flags: int
    guid: int
    base_guid: int

    def has(self, feature: Feature) -> bool:
        return bool(self.features >> feature & 1)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is before the BEGIN of a stream that was sent with properties (-p): the outer BEGIN, its nvlist, and END."""

    head: bytes
    nvlist: bytes
    end: bytes


class RecordReader:
    """The records of one input, one at a time.

    `head`: the header of the current record, 312 bytes; `kind`, `length`: its type, and its payload's bytes. `number`,
    `end`: the first object that it is about, and the one behind the last; INFINITY at END.
    """

    def __init__(self, name: str, pieces: Iterable[Piece], *, refusal: str = "it cannot be merged") -> None:
        """Read BEGIN. `name`: of the input, for errors; `pieces`: its raw bytes, in pieces of any size; `refusal`: what
        cannot be done with a stream that is refused.

        Raises: as `next`, and UnsupportedStream for streams that cannot be merged.
        """
        self.name = name
        self._refusal = refusal
        self._pieces = iter(pieces)
        self._data = memoryview(b"")
        self._at = 0
        self._owed = 0  # payload bytes of the current record that were not taken yet
        self.head = b""
        self.kind = -1
        self.length = 0
        self.number = 0
        self.end = 0
        self._has_object = self._in_range = False
        self.package: Envelope | None = None
        self.begin = self._read_begin()

    # --- bytes -------------------------------------------------------------------------------------------------

    def _more(self) -> bool:
        for piece in self._pieces:
            if len(piece):
                self._data, self._at = memoryview(piece), 0
                return True
        return False

    def _need_more(self) -> None:
        """Have at least a byte. Raises: IncompleteStream."""
        if self._at == len(self._data) and not self._more():
            msg = f"{self.name} ends before its END record"
            raise IncompleteStream(msg)

    def _bytes(self, count: int) -> bytes:
        """Take the next `count` bytes, as a copy."""
        data, at = self._data, self._at
        if len(data) - at >= count:
            self._at = at + count
            return bytes(data[at : at + count])
        parts = []
        while count:
            self._need_more()
            part = bytes(self._data[self._at : self._at + count])
            self._at += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def payload(self) -> Iterator[memoryview]:
        """Take what is left of the current record's payload, in pieces."""
        while self._owed:
            self._need_more()
            part = self._data[self._at : self._at + self._owed]
            self._at += len(part)
            self._owed -= len(part)
            yield part

    def finish(self) -> None:
        """Check that nothing follows END but the closing one of a package."""
        if self.package is not None and self._bytes(HEADER_SIZE) != CLOSING_END:
            self.refuse("is a package of more than one snapshot")
        if self._at < len(self._data) or self._more():
            msg = f"{self.name} has bytes after its END record: one send stream at a time"
            raise TrailingBytes(msg)

    def held(self) -> bytes:
        """Take the current record's payload, as a copy. For bonus buffers and spill blocks."""
        count, self._owed = self._owed, 0
        return self._bytes(count)

    def run(self, at: int, limit: int) -> Run | None:
        """Take the blocks that follow the current one, whose payload was taken, in the piece that is there.

        `at`: where the current block ends, in its object; `limit`: up to where the run may reach. Returns: None if the
        next record is not such a block. Else the last one is the current record, and its payload is taken.
        """
        found = runs.find(*(self._data, self._at), number=self.number, guid=self.begin.guid, at=at, limit=limit)
        if found is not None:
            self._at += len(found.data)
            self.length = found.lengths[-1]
            last = len(found.data) - self.length - HEADER_SIZE
            self.head = bytes(found.data[last : last + HEADER_SIZE])
        return found

    # --- records -----------------------------------------------------------------------------------------------

    def _read_begin(self) -> StreamBegin:
        head, payload = self._begin_record()
        if _U64.unpack_from(head, 16)[0] & 3 == COMPOUND:
            self.package = Envelope(head, payload, self._bytes(HEADER_SIZE))
            if self.package.end[:4] != CLOSING_END[:4]:
                self.fail("begins like a package, without its END")
            head, payload = self._begin_record()
        _size, _magic, version, _created, objset, flags, guid, base = _BEGIN.unpack_from(head)
        if version & 3 != SUBSTREAM:
            self.fail("has the BEGIN record of a package in a wrong place")
        features = version >> 2
        for feature in _REFUSED:
            if features >> feature & 1:
                self.refuse(f"is a stream with the feature {feature.name}")
        if not flags & _SPILL_BLOCK:
            self.refuse("was sent by an OpenZFS before 0.8")
        return StreamBegin(head, payload, features, objset, flags, guid, base)

    def _begin_record(self) -> tuple[bytes, bytes]:
        """Read a BEGIN record: its header, and its nvlist."""
        head = self._bytes(HEADER_SIZE)
        size, magic, *_rest = _BEGIN.unpack_from(head)
        if magic == BIG_ENDIAN_MAGIC:
            self.refuse("is a big-endian stream")
        if head[:4] != bytes(4) or magic != MAGIC:
            self.fail("does not begin with a BEGIN record")
        if size > limits.BEGIN_PAYLOAD_MAX or size % WORD_SIZE:
            self.fail(f"has a BEGIN record with {size} bytes")
        return head, self._bytes(size)

    def next(self) -> None:
        """Go to the next record; the rest of the current one's payload is passed over."""
        for _part in self.payload():
            pass
        head = self._bytes(HEADER_SIZE)
        kind = int.from_bytes(head[:4], "little")
        length = payload_length(head)
        guid_at = GUID_AT.get(kind)
        if length is None or guid_at is None:
            if kind in {RecordType.WRITE_BYREF, RecordType.REDACT}:
                self.refuse(f"has a record of type {RecordType(kind).name}")
            self.fail(f"has a record of type {kind}")
        if not is_possible_length(length):
            self.fail(f"has a record of type {kind} with a payload of {length} bytes")
        if _U64.unpack_from(head, guid_at)[0] != self.begin.guid:
            self.fail(f"has a record of type {kind} of another stream")
        if head[SUM_AT:] == _NO_SUM:
            self.refuse("has no running checksums (it was sent before 2015)")
        self.head, self.kind, self.length, self._owed = head, kind, length, length
        self._place(*_PAIR.unpack_from(head, 8))

    def _place(self, first: int, second: int) -> None:
        """Note what the current record is about. Check that records are in their order."""
        kind = self.kind
        if kind in _OF_OBJECTS:
            if not self._has_object or first != self.number:
                self.fail(f"has a record of object {first} without its OBJECT")
            return
        behind = self.number if self._in_range else self.end
        self._has_object, self._in_range = kind == RecordType.OBJECT, kind == RecordType.OBJECT_RANGE
        if kind == RecordType.END:
            self.number = self.end = INFINITY
            return
        if first < behind:
            self.fail(f"has records that are not in their order, at object {first}")
        self.number = first
        self.end = min(first + (max(self.head[_SLOTS_AT], 1) if self._has_object else second), INFINITY)

    @property
    def in_object(self) -> bool:
        """Whether the current record belongs to an object that an OBJECT before it has begun."""
        return self.kind in _OF_OBJECTS

    def fail(self, what: str) -> NoReturn:
        msg = f"{self.name} {what}: it is damaged"
        raise DamagedStream(msg)

    def refuse(self, what: str) -> NoReturn:
        msg = f"{self.name} {what}: {self._refusal}"
        raise UnsupportedStream(msg)
