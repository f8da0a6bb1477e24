"""The objects of one full stream, and their blocks, decompressed.

for each in ObjectReader("tank/home@a", pieces).records():
    match each.kind: ...
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import BlockDamaged
from fullsend_protocol.stream.decompress import Compression, decompress
from fullsend_protocol.stream.record_reader import INFINITY, RecordReader
from fullsend_protocol.stream.records import SPILL_OFFSETS, Feature, RecordType
from fullsend_protocol.stream.substreams import snapshots_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fullsend_protocol.stream.checksums import Piece

REFUSAL: Final = "its files cannot be read"
#: DMU_OST_ZFS and DMU_OST_ZVOL (include/sys/dmu.h).
_FILE_SYSTEM: Final = 2
_VOLUME: Final = 3
#: Of an OBJECT, from 16 on: type, bonus type, block size, bonus length, (2 bytes), slots, flags.
_OBJECT: Final = struct.Struct("<4I3xB")
#: Of a WRITE, from 24 on: offset, logical size, (10 bytes), compression.
_WRITE: Final = struct.Struct("<QQ10xB")
#: Of a WRITE_EMBEDDED, from 16 on: offset, length, (8 bytes), compression, (7 bytes), logical and physical size.
_EMBEDDED: Final = struct.Struct("<QQ8xB7xII")
#: Of a SPILL, from 16 on: length, (9 bytes), compression, (6 bytes), compressed size.
_SPILL: Final = struct.Struct("<Q9xB6xQ")
_PAIR: Final = struct.Struct("<QQ")
#: DN_MAX_OBJECT of OpenZFS is 2^48.
_NUMBER_END: Final = 1 << 48
_SPILL_BIT: Final = 4  # DRR_OBJECT_SPILL


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """The OBJECT record of an object. `type`, `bonus_type`: DMU_OT_*; `block_size`: bytes."""

    number: int
    type: int
    bonus_type: int
    block_size: int
    bonus: bytes
    has_spill: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A block of an object's data. `offset`: in the object, bytes."""

    number: int
    offset: int
    data: Piece


class ObjectReader:
    """Reads one full stream, record by record. `is_volume`: whether it is of a volume, not of a file system."""

    def __init__(self, name: str, pieces: Iterable[Piece]) -> None:
        """Read its beginning. `name`: of the stream, for errors; `pieces`: its raw bytes, in pieces of any size.

        Raises: UnsupportedStream for a stream whose files cannot be read; as RecordReader.
        """
        self._reader = reader = RecordReader(name, pieces, refusal=REFUSAL)
        begin = reader.begin
        if begin.has(Feature.RAW):
            reader.refuse("is raw, and encrypted with a key that only its ZFS host has")
        if begin.base_guid:
            reader.refuse(f"is an increment on the snapshot with GUID {begin.base_guid}, and was read without it")
        if begin.objset not in {_FILE_SYSTEM, _VOLUME}:
            reader.refuse(f"is of a dataset of type {begin.objset}")
        if reader.package is not None and (snapshots_named(reader.package.nvlist) or 1) > 1:
            reader.refuse("is a package of more than one snapshot")
        self.is_volume = begin.objset == _VOLUME
        self._behind = 0  # the end of the current object's last block

    @property
    def name(self) -> str:
        """Its name, for errors."""
        return self._reader.name

    @property
    def number(self) -> int:
        """The object that the current record is about."""
        return self._reader.number

    def records(self) -> Iterator[RecordType]:
        """Go through the records that have something; yield the type of each: OBJECT, WRITE for blocks of both kinds,
        SPILL for spill blocks of both kinds. The caller asks for what it wants of the current one.

        Raises: StreamError.
        """
        reader = self._reader
        while True:
            reader.next()
            kind = reader.kind
            if kind == RecordType.WRITE:
                yield RecordType.WRITE
            elif kind == RecordType.WRITE_EMBEDDED:
                embedded_spill = _PAIR.unpack_from(reader.head, 16)[0] >= SPILL_OFFSETS
                yield RecordType.SPILL if embedded_spill else RecordType.WRITE
            elif kind == RecordType.OBJECT:
                self._behind = 0
                yield RecordType.OBJECT
            elif kind == RecordType.SPILL:
                yield RecordType.SPILL
            elif kind == RecordType.END:
                break
            elif kind not in {RecordType.FREE, RecordType.FREEOBJECTS}:
                reader.fail(f"has a record of type {kind}")
        if reader.number != INFINITY:
            reader.fail("does not end with its END record")
        reader.finish()

    def head(self) -> ObjectHead:
        """Return the current OBJECT."""
        reader = self._reader
        kind, bonus_type, size, bonus, flags = _OBJECT.unpack_from(reader.head, 16)
        if reader.number >= _NUMBER_END:
            reader.fail(f"has an object {reader.number}, which is no number of one")
        if not 0 < size <= limits.RECORD_PAYLOAD_MAX:
            reader.fail(f"has an object {reader.number} with blocks of {size} bytes")
        return ObjectHead(reader.number, kind, bonus_type, size, reader.held()[:bonus], bool(flags & _SPILL_BIT))

    def block(self) -> Block:
        """Return the current block, decompressed. Raises: DamagedStream."""
        reader = self._reader
        if reader.kind == RecordType.WRITE:
            offset, size, compression = _WRITE.unpack_from(reader.head, 24)
            data = reader.held()
        else:
            offset, length, compression, size, stored = _EMBEDDED.unpack_from(reader.head, 16)
            data = reader.held()[:stored]
            if size > length:
                reader.fail(f"has an embedded block of {size} bytes for {length}, in object {reader.number}")
        if offset < self._behind or offset + size > limits.OFFSET_END or not size:
            reader.fail(f"has blocks of object {reader.number} that are not in their order, at {offset}")
        self._behind = offset + size
        return Block(reader.number, offset, self._plain(compression, data, size))

    def spill(self) -> bytes:
        """Return the current spill block, decompressed. Raises: DamagedStream."""
        reader = self._reader
        if reader.kind == RecordType.SPILL:
            size, compression, stored = _SPILL.unpack_from(reader.head, 16)
            return bytes(self._plain(compression if stored else 0, reader.held(), size))
        _offset, _length, compression, size, stored = _EMBEDDED.unpack_from(reader.head, 16)
        return bytes(self._plain(compression, reader.held()[:stored], size))

    def fail(self, what: str) -> NoReturn:
        """Raise DamagedStream. `what`: a sentence without its subject, the stream."""
        self._reader.fail(what)

    def refuse(self, what: str) -> NoReturn:
        """Raise UnsupportedStream. `what`: as in `fail`."""
        self._reader.refuse(what)

    def _plain(self, compression: int, data: bytes, size: int) -> bytes:
        try:
            return decompress(compression or Compression.OFF, data, size)
        except BlockDamaged as error:
            msg = f"{self.name}: object {self.number} has {error}"
            raise BlockDamaged(msg) from None
