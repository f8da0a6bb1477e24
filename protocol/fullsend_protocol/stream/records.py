"""The walker: reads a ZFS send stream record by record as its bytes arrive, and concludes what it is.

A send stream is a sequence of dmu_replay_record headers of 312 bytes, each followed by its payload (OpenZFS,
include/sys/zfs_ioctl.h). Offsets used here, little-endian:

    type          at           what                     payload length
    all           0 u32        type
                  4 u32        payloadlen
    0 BEGIN       8 u64        magic 0x2F5BACBAC        payloadlen: an nvlist
                  16 u64       versioninfo: bits 0-1 header type (1 substream, 2 compound), the rest features
                  24 u64       creation time; 32 u32 objset type; 36 u32 flags
                  40 u64       toguid; 48 u64 fromguid; 56 toname[256]
    1 OBJECT      8 object     28 u32 bonuslen          raw_bonuslen, else bonuslen rounded up to 8
                               36 u32 raw_bonuslen
    3 WRITE       8 object     24 offset 32 size        compressed_size if compression, else size
                               50 u8 compression, 96 compressed_size
    5 END         40 toguid                             none
    7 SPILL       8 object     16 length                compressed_size, else length
                               40 compressed_size
    8 WRITE_EMB.  8 object     16 offset 52 u32 psize   psize rounded up to 8
    2 FREEOBJECTS, 4 FREE, 6 WRITE_BYREF, 9 OBJECT_RANGE, 10 REDACT: no payload

A stream is BEGIN, records, END. A compound stream (-R, -I, -p) is BEGIN (compound), END, substreams, and a closing
END that is zero after its type. The walker does not compute the running Fletcher-4: Python cannot do that at the speed
of a disk, and `zfs receive` does (docs/verification.md says what this does not prove).

Walking is on the hot path: a zvol of 8 KiB blocks has 120,000 records a gigabyte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    DamagedStream,
    IncompleteStream,
    NotASendStream,
    TrailingBytes,
    UnsupportedStream,
)
from fullsend_protocol.stream import nvlist

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER_SIZE: Final = 312
MAGIC: Final = 0x2F5BACBAC
#: MAGIC of a big-endian host, as a little-endian one reads it.
BIG_ENDIAN_MAGIC: Final = int.from_bytes(MAGIC.to_bytes(8, "little"), "big")
#: The header types in BEGIN: of a single stream, and of a package.
SUBSTREAM: Final = 1
COMPOUND: Final = 2
#: Dnodes of one block, and of one OBJECT_RANGE: DNODES_PER_BLOCK of OpenZFS (include/sys/dnode.h), 16 KiB of 512 bytes.
DNODES_PER_BLOCK: Final = 32
#: The length of a FREE that frees everything after its offset: DMU_OBJECT_END.
TO_THE_END: Final = (1 << 64) - 1
#: DMU_OST_ZVOL of OpenZFS (include/sys/dmu.h).
_ZVOL: Final = 3
#: Where BEGIN of a raw stream has the IV set of its snapshot and that of its base: the latter is 0 in a full
#: (dsl_crypt.c, dsl_crypto_populate_key_nvlist).
_IVSET: Final = "to_ivset_guid"
BASE_IVSET: Final = "from_ivset_guid"


class RecordType(IntEnum):
    """The record types of dmu_replay_record."""

    BEGIN = 0
    OBJECT = 1
    FREEOBJECTS = 2
    WRITE = 3
    FREE = 4
    END = 5
    WRITE_BYREF = 6
    SPILL = 7
    WRITE_EMBEDDED = 8
    OBJECT_RANGE = 9
    REDACT = 10


class Feature(IntEnum):
    """Bits of a BEGIN's feature flags (DMU_BACKUP_FEATURE_*), after the two header type bits."""

    DEDUP = 0
    DEDUPPROPS = 1
    SA_SPILL = 2
    EMBED_DATA = 16
    LZ4 = 17
    LARGE_BLOCKS = 19
    RESUMING = 20
    REDACTED = 21
    COMPRESSED = 22
    LARGE_DNODE = 23
    RAW = 24
    ZSTD = 25
    HOLDS = 26
    SWITCH_TO_LARGE_BLOCKS = 27
    LONGNAME = 28
    LARGE_MICROZAP = 29


@dataclass(frozen=True, slots=True)
class Begin:
    """The fields of one BEGIN record. `name` is its toname (DATASET@SNAPSHOT), `features` the bits of `Feature`,
    `volume` whether its objset type is DMU_OST_ZVOL. `created`: seconds since 1970.

    `payload`: its nvlist, packed; b"" also if fullsend uses nothing else of it (for example a raw stream's keys).
    `ivset_guid`, `base_ivset_guid`: of a raw stream the IV sets of its snapshot and of its base (see `ivset_guids`);
    None: the stream does not tell.
    """

    compound: bool
    name: str
    guid: int
    base_guid: int
    created: int
    features: int
    volume: bool
    payload: bytes
    ivset_guid: int | None = None
    base_ivset_guid: int | None = None

    def has(self, feature: Feature) -> bool:
        """Whether the stream shows this feature."""
        return bool(self.features >> feature & 1)


@dataclass(frozen=True, slots=True)
class EmbeddedSpill:
    """A spill block in a WRITE_EMBEDDED record: `zfs receive` accepts it with exit 0, and loses it.

    `zfs send -e` of OpenZFS 2.4 writes one if the spill block of an object could be embedded (openzfs issue 18239).
    Its offset is 2^63 or more, which no file has. A symlink's target, or extended attributes, are lost with it.

    `snapshot`: DATASET@SNAPSHOT that brings it; `number`: of the object; `at`: the raw offset of the record.
    """

    snapshot: str
    number: int
    at: int


class Phase(StrEnum):
    """The position of a walker in the structure of a stream."""

    START = "start"  # nothing has come yet
    HEADER = "header"  # the compound BEGIN has come; its END must follow
    BETWEEN = "between"  # in a compound stream: a substream, or the closing END
    SUBSTREAM = "substream"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class WalkerState:
    """The state of a walker between two bytes of a stream, without `begins` and `embedded_spills`: enough to resume.

    `owed`: payload bytes of the current record that are still to come; `head`: the part of a header that has arrived;
    `begin`, `payload`: a BEGIN whose payload is arriving, and the part that has arrived; `resumable`: whether the last
    record is a resumable one; `record_start`: the raw offset of that record's header.
    """

    offset: int
    phase: Phase
    owed: int = 0
    head: bytes = b""
    begin: Begin | None = None
    payload: bytes = b""
    resumable: bool = False
    record_start: int = 0


_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_HOT: Final = struct.Struct("<I28xQ10xB")  # type; at 32 and 50 a WRITE's size and compression
_BONUS: Final = struct.Struct("<I4xI")  # of an OBJECT, from 28 on
_KIND: Final = struct.Struct("<II")  # type, payloadlen
_FIELDS: Final = struct.Struct("<II3Q")  # the same, and u64 at 8, 16 and 24
_BEGIN: Final = struct.Struct("<QQQIIQQ256s")  # from 8 on
#: Types of most records; as numbers, since to look up a name of an enum takes as long as all else there.
_OBJECT, _WRITE, _FREE = int(RecordType.OBJECT), int(RecordType.WRITE), int(RecordType.FREE)
FREQUENT: Final = frozenset({_OBJECT, _WRITE, _FREE})
_RESUMABLE: Final = frozenset({RecordType.OBJECT, RecordType.WRITE, RecordType.WRITE_EMBEDDED})
_FLAGS_AT: Final = 36
CLONE: Final = 1  # DRR_FLAG_CLONE of OpenZFS (include/sys/zfs_ioctl.h)
#: WRITE_EMBEDDED records with offsets from here on are not in a file: they stand for a spill block.
SPILL_OFFSETS: Final = 1 << 63
_EMPTY_END: Final = bytes(HEADER_SIZE - 4)
_OPENING_SIZE: Final = 16  # type, payloadlen, magic: enough to tell a send stream from garbage


def payload_length(data: bytes | bytearray | memoryview, at: int = 0) -> int | None:
    """Return the payload length after the header at `at`, in bytes, as it claims; None for an unknown type. The
    frequent types come first.
    """
    kind, size, compression = _HOT.unpack_from(data, at)
    if kind == _WRITE:
        return _U64.unpack_from(data, at + 96)[0] if compression else size  # type: ignore[no-any-return]
    if kind == _FREE:
        return 0
    if kind == _OBJECT:
        bonuslen, raw_bonuslen = _BONUS.unpack_from(data, at + 28)
        return raw_bonuslen or (bonuslen + 7) & ~7  # type: ignore[no-any-return]
    return _rare_length(kind, data, at)


def _rare_length(kind: int, data: bytes | bytearray | memoryview, at: int) -> int | None:
    match kind:
        case RecordType.BEGIN:
            return int(_U32.unpack_from(data, at + 4)[0])
        case RecordType.SPILL:
            return int(_U64.unpack_from(data, at + 40)[0] or _U64.unpack_from(data, at + 16)[0])
        case RecordType.WRITE_EMBEDDED:
            return int(_U32.unpack_from(data, at + 52)[0] + 7) & ~7
        case (
            RecordType.END
            | RecordType.FREEOBJECTS
            | RecordType.WRITE_BYREF
            | RecordType.OBJECT_RANGE
            | RecordType.REDACT
        ):
            return 0
        case _:
            return None


def without_clone(begin: bytes) -> bytes:
    """Return a BEGIN record, header and nvlist, without the mark of a clone's increment; as it is, where it has none.

    See reparent for what the mark means.
    """
    head = bytearray(begin)
    (flags,) = _U32.unpack_from(head, _FLAGS_AT)
    _U32.pack_into(head, _FLAGS_AT, flags & ~CLONE)
    return bytes(head)


def ivset_guids(payload: bytes) -> tuple[int | None, int | None]:
    """Return the IV sets of a raw stream's snapshot and of its base, from the nvlist of its BEGIN; None: it does not
    tell.

    An IV set identifies the encrypted form of a snapshot. `zfs receive` of a raw stream keeps it, like the GUID. A
    plain receive into an encrypted dataset keeps the GUID alone, so two datasets may have one snapshot with different
    keys. `zfs receive` refuses a raw increment on another IV set (dsl_crypt.c, dsl_crypto_recv_raw_objset_check).
    """
    try:
        found = nvlist.integers(payload) if len(payload) <= limits.BEGIN_KEYS_MAX else {}
    except DamagedStream:  # `zfs receive` judges the keys
        return None, None
    return found.get(_IVSET) or None, found.get(BASE_IVSET) or None


def resume_key(head: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Return (object, offset) of a resumable record from its header, of an OBJECT (its number, 0); else None."""
    kind, _payloadlen, number, u16, u24 = _FIELDS.unpack_from(head)
    match kind:
        case RecordType.OBJECT:
            return number, 0
        case RecordType.WRITE:
            return number, u24
        case RecordType.WRITE_EMBEDDED:
            return number, u16
        case _:
            return None


class Walker:
    """Walks one stream, from its first byte.

    `offset`: raw bytes walked so far. `begins`: the BEGIN records, in order. `embedded_spills`: spill blocks
    that `zfs receive` will lose, in order, the first EMBEDDED_SPILLS_MAX of them. `done`: the last END has arrived.
    `at_resume_point`: the bytes walked so far end exactly at the end of a resumable record (OBJECT, WRITE,
    WRITE_EMBEDDED). `record_start`: the raw offset at which that record began; undefined elsewhere. `first_key`:
    (object, offset) of the first resumable record seen since it was last set to None. After any StreamError the walker
    is unusable.
    """

    def __init__(self) -> None:
        """Start before the first record."""
        self.offset = 0
        self.begins: list[Begin] = []
        self.embedded_spills: list[EmbeddedSpill] = []
        self.at_resume_point = False
        self.record_start = 0
        self.first_key: tuple[int, int] | None = None
        self._phase = Phase.START
        self._compound = False
        self._owed = 0  # payload bytes of the current record that are still to come
        self._resumable = False  # whether the current record is a resumable one
        self._head = bytearray()  # the part of a header that has arrived
        self._begin: Begin | None = None  # whose payload is arriving in _payload
        self._payload = bytearray()

        self._kept = 0  # payload bytes in `begins`

    @classmethod
    def resume(
        cls, state: WalkerState, begins: Iterable[Begin], embedded_spills: Iterable[EmbeddedSpill] = ()
    ) -> Walker:
        """Return a walker that continues from a state. `begins`, `embedded_spills`: all up to there."""
        walker = cls()
        walker.offset = state.offset
        walker.begins = list(begins)
        walker.embedded_spills = list(embedded_spills)
        walker.record_start = state.record_start
        walker._phase = state.phase
        walker._compound = bool(walker.begins) and walker.begins[0].compound
        walker._owed = state.owed
        walker._resumable = state.resumable
        walker._head = bytearray(state.head)
        walker._begin = state.begin
        walker._payload = bytearray(state.payload)
        walker._kept = sum(len(begin.payload) for begin in walker.begins)
        walker.at_resume_point = state.resumable and not state.owed and not state.head
        return walker

    @property
    def state(self) -> WalkerState:
        """What `resume` needs, besides `begins` and `embedded_spills`."""
        return WalkerState(
            offset=self.offset,
            phase=self._phase,
            owed=self._owed,
            head=bytes(self._head),
            begin=self._begin,
            payload=bytes(self._payload),
            resumable=self._resumable,
            record_start=self.record_start,
        )

    @property
    def done(self) -> bool:
        """Whether the stream's last END record has arrived."""
        return self._phase is Phase.DONE

    def walk(self, data: bytes | bytearray | memoryview, start: int, stop: int, target: int) -> int:
        """Walk over data[start:stop], the stream's next bytes.

        Stops early right after the first resumable record whose end lies at raw offset `target` or later; then
        `at_resume_point` is true. Returns: the position reached in `data`.
        Raises: NotASendStream, UnsupportedStream, DamagedStream, TrailingBytes.
        """
        position = start
        while position < stop:
            if self._owed:
                position = self._pay(data, position, stop)
            elif self._head or stop - position < HEADER_SIZE or self._phase is not Phase.SUBSTREAM:
                position = self._gather(data, position, stop)
            else:
                position = self._run(data, position, stop, target)
            if self.at_resume_point and self.offset >= target:
                break
        return position

    def finish(self) -> None:
        """Note the end of the stream's bytes. Raises: NotASendStream, IncompleteStream if that is too early."""
        if self.done:
            return
        if self.offset == 0:
            msg = "no data: not a single byte of a send stream arrived"
            raise NotASendStream(msg)
        if self.offset < _OPENING_SIZE:
            msg = f"not a ZFS send stream: only {self.offset} bytes"
            raise NotASendStream(msg)
        where = {
            Phase.BETWEEN: "before the closing END record of the package",
            Phase.SUBSTREAM: "before its END record",
        }.get(self._phase, "inside its first records")
        msg = f"the stream ends {where}, after {self.offset} bytes: it was cut, or its producer died"
        raise IncompleteStream(msg)

    # --- the hot loop --------------------------------------------------------------------------------------

    def _run(self, data: bytes | bytearray | memoryview, position: int, stop: int, target: int) -> int:
        """Walk over records of a substream whose headers lie whole in `data`. Inlined on purpose: fields that every
        record needs are unpacked at once, rare ones only when needed.
        """
        unpack = _HOT.unpack_from
        header_size, longest = HEADER_SIZE, limits.RECORD_PAYLOAD_MAX
        last_header = stop - header_size
        base = self.offset - position  # raw offset of data[0]
        target -= base
        need_key = self.first_key is None
        resumable = False
        begun = position
        while position <= last_header:
            kind, length, compression = unpack(data, position)
            if kind == 3:  # noqa: PLR2004 - WRITE; an enum's name would be looked up for every record
                if compression:
                    (length,) = _U64.unpack_from(data, position + 96)
            elif kind == 4:  # noqa: PLR2004 - FREE
                position += header_size
                resumable = False
                continue
            elif kind == 1:  # OBJECT
                bonuslen, raw_bonuslen = _BONUS.unpack_from(data, position + 28)
                length = raw_bonuslen or (bonuslen + 7) & ~7
            else:
                self.offset = base + position
                return self._gather(data, position, position + header_size)
            if length > longest:
                self._refuse_length(kind, length, base + position)
            if need_key:
                need_key = False
                (number,) = _U64.unpack_from(data, position + 8)
                offset = 0 if kind == 1 else _U64.unpack_from(data, position + 24)[0]
                self.first_key = (number, offset)
            resumable = True
            begun = position
            position += header_size + length
            if position >= stop:
                self._owed = position - stop
                position = stop
                break
            if position >= target:
                break
        self.offset = base + position
        self.record_start = base + begun
        self._resumable = resumable
        self.at_resume_point = resumable and not self._owed
        return position

    # --- everything else -----------------------------------------------------------------------------------

    def _pay(self, data: bytes | bytearray | memoryview, position: int, stop: int) -> int:
        """Skip the payload of the current record."""
        count = min(self._owed, stop - position)
        if self._begin is not None:
            self._payload += data[position : position + count]
        self._owed -= count
        self.offset += count
        if not self._owed:
            self._record_ended()
        return position + count

    def _gather(self, data: bytes | bytearray | memoryview, position: int, stop: int) -> int:
        """Collect a header that the data have only in part, or that needs a full check; process it when it is whole."""
        count = min(HEADER_SIZE - len(self._head), stop - position)
        if self._phase is Phase.DONE:
            msg = f"bytes follow the stream's end at {self.offset}: one send stream at a time"
            raise TrailingBytes(msg)
        self._head += data[position : position + count]
        self.offset += count
        self.at_resume_point = False
        if self._phase is Phase.START:
            self._check_opening()
        if len(self._head) == HEADER_SIZE:
            head = bytes(self._head)
            self._head.clear()
            self._take(head)
            if not self._owed:
                self._record_ended()
        return position + count

    def _check_opening(self) -> None:
        """Recognize garbage by its first 16 bytes, without waiting for more."""
        if len(self._head) < _OPENING_SIZE:
            return
        kind, magic = _U64.unpack_from(self._head)[0] & 0xFFFFFFFF, _U64.unpack_from(self._head, 8)[0]
        if kind == RecordType.BEGIN and magic == MAGIC:
            return
        if magic == BIG_ENDIAN_MAGIC:
            msg = "a big-endian send stream (from a SPARC or other big-endian host): not supported"
            raise UnsupportedStream(msg)
        msg = "not a ZFS send stream: it does not begin with a BEGIN record"
        raise NotASendStream(msg)

    def _take(self, head: bytes) -> None:
        """Process one whole header; sets what its record owes."""
        kind, payloadlen = _KIND.unpack_from(head)
        at = self.record_start = self.offset - HEADER_SIZE
        self._resumable = kind in _RESUMABLE
        if kind == RecordType.BEGIN:
            self._take_begin(head, payloadlen, at)
            return
        if kind == RecordType.END:
            self._take_end(head, at)
            return
        if self._phase is not Phase.SUBSTREAM:
            msg = f"record type {kind} at {at}, where a BEGIN or END must stand: the stream is damaged"
            raise DamagedStream(msg)
        length = payload_length(head)
        if length is None:
            msg = f"unknown record type {kind} at {at}: the stream is damaged, or newer than this fullsend"
            raise DamagedStream(msg)
        self._owed = length
        if length > limits.RECORD_PAYLOAD_MAX:
            self._refuse_length(kind, length, at)
        if self._resumable and self.first_key is None:
            self.first_key = resume_key(head)
        if kind == RecordType.WRITE_EMBEDDED and len(self.embedded_spills) < limits.EMBEDDED_SPILLS_MAX:
            number, offset = _U64.unpack_from(head, 8)[0], _U64.unpack_from(head, 16)[0]
            if offset >= SPILL_OFFSETS:
                self.embedded_spills.append(EmbeddedSpill(self.begins[-1].name, number, at))

    def _refuse_length(self, kind: int, length: int, at: int) -> NoReturn:
        msg = f"{RecordType(kind).name} record at {at} with a payload of {length} bytes: the stream is damaged"
        raise DamagedStream(msg)

    def _take_begin(self, head: bytes, payloadlen: int, at: int) -> None:
        magic, version, created, objset_type, _flags, guid, base_guid, name = _BEGIN.unpack_from(head, 8)
        compound = version & 3 == COMPOUND
        if self._phase is Phase.SUBSTREAM and self._compound and magic == MAGIC:
            self._refuse_cut(at)
        if (
            self._phase not in {Phase.START, Phase.BETWEEN}
            or magic != MAGIC
            or version & 3 not in {SUBSTREAM, COMPOUND}
        ):
            msg = f"BEGIN record at {at} in a wrong place: the stream is damaged"
            raise DamagedStream(msg)
        if compound and self._phase is not Phase.START:
            msg = f"compound BEGIN record at {at}, inside a package: the stream is damaged"
            raise DamagedStream(msg)
        if len(self.begins) > limits.SUBSTREAMS_MAX:
            msg = (
                f"a package of more than {limits.SUBSTREAMS_MAX} snapshots is not supported: send the datasets one by"
                " one instead"
            )
            raise UnsupportedStream(msg)
        if payloadlen > limits.BEGIN_PAYLOAD_MAX:
            self._refuse_payload(payloadlen)
        try:
            toname = name[: name.index(0)].decode()
        except ValueError:  # no NUL, or no UTF-8 (UnicodeDecodeError)
            msg = f"BEGIN record at {at} with a name that is not UTF-8 of at most {limits.NAME_MAX} bytes"
            raise DamagedStream(msg) from None
        self._begin = Begin(compound, toname, guid, base_guid, created, version >> 2, objset_type == _ZVOL, b"")
        self._owed = payloadlen

    def _refuse_payload(self, size: int) -> NoReturn:
        msg = (
            f"nvlists of {size} bytes in its BEGIN records (at most {limits.BEGIN_PAYLOAD_MAX} are supported): send the"
            " datasets one by one instead of as one package"
        )
        raise UnsupportedStream(msg)

    def _refuse_cut(self, at: int) -> NoReturn:
        """Refuse a substream without its END inside a package: libzfs continues after an error."""
        msg = (
            f"{self.begins[-1].name} is cut off at {at}: `zfs send` failed there, and its own message says why; the"
            " package is not whole"
        )
        raise IncompleteStream(msg)

    def _take_end(self, head: bytes, at: int) -> None:
        if self._phase is Phase.HEADER:
            self._phase = Phase.BETWEEN
        elif self._phase is Phase.BETWEEN:
            if head[4:] != _EMPTY_END:
                msg = f"END record at {at} where the closing one must stand: the stream is damaged"
                raise DamagedStream(msg)
            self._phase = Phase.DONE
        else:  # in a substream: the very first record is a BEGIN, and no record is accepted after the last one
            if self._compound and head[4:] == _EMPTY_END:
                self._refuse_cut(at)
            guid = _U64.unpack_from(head, 40)[0]
            if guid != self.begins[-1].guid:
                msg = f"END record at {at} of GUID {guid}, in a stream of {self.begins[-1].guid}: damaged"
                raise DamagedStream(msg)
            self._phase = Phase.BETWEEN if self._compound else Phase.DONE

    def _record_ended(self) -> None:
        self.at_resume_point = self._resumable
        if self._begin is None:
            return
        begin = self._begin
        self._begin = None
        if begin.compound or begin.has(Feature.REDACTED):
            payload = bytes(self._payload)
            self._kept += len(payload)
            if self._kept > limits.BEGIN_PAYLOAD_MAX:
                self._refuse_payload(self._kept)
            nvlist.decode(payload)  # refuse now what would be unreadable at the end
            begin = replace(begin, payload=payload)
        if begin.has(Feature.RAW):
            ivset_guid, base_ivset_guid = ivset_guids(bytes(self._payload))
            begin = replace(begin, ivset_guid=ivset_guid, base_ivset_guid=base_ivset_guid)
        self.begins.append(begin)
        self._payload = bytearray()
        if begin.compound:
            self._compound = True
            self._phase = Phase.HEADER
        else:
            self._phase = Phase.SUBSTREAM
