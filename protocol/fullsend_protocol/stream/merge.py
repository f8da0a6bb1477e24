"""Merges a stream and the increments after it into one stream, byte for byte as `zfs send` would give it.

    merge       a full, or an increment, and the increments that build on it -> one full or increment

The records of a stream are sorted by object and offset (dmu_send.c), so this is a k-way merge. It holds one record of
each input: no index, no seeking. Of each block, each hole and each object the newest input wins. docs/merge.md has what
the records mean for that, with the sources in OpenZFS, and what was tried.

**Damage stays visible.** The running checksum of a block is derived from the checksums of its input by linearity (see
fletcher): it is not summed, so a wrong byte in it stays wrong for `zfs receive`. A wrong byte in a header may get a
right checksum. So the caller must prove each input while it is merged, by its known SHA-256 or by its running
checksums (see running_sums), and must discard the result if one is not proven.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UnsupportedStream
from fullsend_protocol.stream import fletcher, nvlist
from fullsend_protocol.stream.checksums import (
    CLOSING_END,
    SUM_AT,
    Piece,
    sum_of,
)
from fullsend_protocol.stream.record_reader import INFINITY, RecordReader, StreamBegin
from fullsend_protocol.stream.record_writer import HeldRecord, RecordWriter
from fullsend_protocol.stream.records import (
    BASE_IVSET,
    CLONE,
    DNODES_PER_BLOCK,
    SPILL_OFFSETS,
    SUBSTREAM,
    TO_THE_END,
    Feature,
    RecordType,
    ivset_guids,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fullsend_protocol.stream.runs import Run

_U64: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")
_TRIPLE: Final = struct.Struct("<QQQ")
#: Of an OBJECT, from 16 on: type, bonus type, block size, bonus length, (2 bytes), slots, flags.
_OBJECT: Final = struct.Struct("<4I2xBB")
#: Of a raw OBJECT, from 48 on: indblkshift, nlevels, nblkptr.
_RAW_OBJECT: Final = struct.Struct("<BBB")

#: DRR_OBJECT_SPILL in an OBJECT, DRR_SPILL_UNMODIFIED in a SPILL (include/sys/zfs_ioctl.h): the same bit.
_SPILL_BIT: Final = 4
_SPILL_FLAGS_AT: Final = 32
#: DMU_OT_PLAIN_FILE_CONTENTS and DMU_OT_ZVOL: their holes end with the object; those of metadata may lie past it.
_DATA_TYPES: Final = frozenset({19, 23})
#: DMU_OT_SA: a dnode with such a bonus has one block pointer (dmu_recv.c, deduce_nblkptr).
_SA: Final = 44
#: DN_OLD_MAX_BONUSLEN, and the size of a block pointer (the same).
_OLD_BONUS_MAX: Final = 320
_BLOCK_POINTER: Final = 128
#: Block pointers of an indirect block, as a power of two: DN_MAX_INDBLKSHIFT less SPA_BLKPTRSHIFT. Only raw streams say
#: what an object has; this is what OpenZFS gives to new ones.
_INDIRECT_MAX: Final = 17
_POINTER_SHIFT: Final = 7
#: SPA_OLD_MAXBLOCKSIZE: the largest block of a stream without -L.
_OLD_BLOCK_MAX: Final = 128 << 10
#: Where the nvlist of a package names the snapshot on which it builds (libzfs_sendrecv.c).
_BASE_NAME: Final = "fromsnap"


@dataclass(frozen=True, slots=True)
class MergeInput:
    """One input: `name`, for errors; `pieces`: its raw bytes, from the first to the last, in pieces of any size."""

    name: str
    pieces: Iterable[Piece]


def merge(inputs: Sequence[MergeInput]) -> Iterator[Piece]:
    """Merge streams of one dataset: the oldest first, each built on the one before it.

    `inputs`: two or more; the first a full or an increment, the others increments; plain or with properties (-p).
    Yields: the merged stream's bytes, in pieces. It holds one piece of each input, and of each one record without its
    block.

    Raises: UnsupportedStream for what cannot be merged; DamagedStream for impossible records; IncompleteStream,
    TrailingBytes where an input does not end with its END. Each names the input. What was yielded until then is
    worthless.
    """
    yield from _Merge([RecordReader(each.name, each.pieces) for each in inputs]).run()


@dataclass(frozen=True, slots=True)
class _Group:
    """One object in one input: what its OBJECT says, its end, and the unmodified spill block behind that. Its blocks,
    holes and modified spill block are still to come from `source`.

    `size`: bytes up to the object's end. `pointers`, `indirect`, `levels`: of its dnode; the last two only in raw
    streams, else 0.
    """

    source: RecordReader
    object: HeldRecord
    size: int
    spill: HeldRecord | None
    type: int
    block_size: int
    slots: int
    has_spill: bool
    pointers: int
    indirect: int
    levels: int

    @classmethod
    def of(cls, source: RecordReader, object_: HeldRecord, size: int, spill: HeldRecord | None) -> _Group:
        """Return the group of an OBJECT."""
        kind, bonus_type, block_size, bonus, slots, flags = _OBJECT.unpack_from(object_.head, 16)
        free = _OLD_BONUS_MAX - min(_OLD_BONUS_MAX, bonus)
        pointers = 1 if bonus_type == _SA else 1 + free // _BLOCK_POINTER
        indirect = levels = 0
        if source.begin.has(Feature.RAW):
            indirect, levels, pointers = _RAW_OBJECT.unpack_from(object_.head, 48)
        return cls(
            *(source, object_, size, spill, kind, block_size),
            *(max(slots, 1), bool(flags & _SPILL_BIT), pointers, indirect, levels),
        )

    def drops(self, older: _Group) -> bool:
        """Whether `zfs receive` frees what the object had before, when it meets this OBJECT (receive_object)."""
        return (
            self.block_size != older.block_size
            or self.slots != older.slots
            or self.pointers < older.pointers
            or self.indirect != older.indirect
            or self.levels < older.levels
        )


class _Merge:
    """Merges sources, the oldest first."""

    def __init__(self, sources: list[RecordReader]) -> None:
        self._sources = sources
        self._check()
        self._full = not sources[0].begin.base_guid
        self._out = RecordWriter(sources[-1].begin.guid)
        self._at = 1  # objects before are decided
        self._seen = 1  # behind the last dnode block that any input has

    def _check(self) -> None:
        """Refuse inputs that do not fit together."""
        if len(self._sources) < 2:  # noqa: PLR2004 - one and one
            msg = "one stream alone cannot be merged: name the stream it builds on, too"
            raise UnsupportedStream(msg)
        for older, newer in zip(self._sources, self._sources[1:], strict=False):
            if not newer.begin.base_guid:
                newer.refuse(f"is a full, not an increment on {older.name}")
            if newer.begin.base_guid != older.begin.guid:
                newer.refuse(f"builds on the snapshot with GUID {newer.begin.base_guid}, not on {older.name}")
            if newer.begin.objset != older.begin.objset:
                newer.refuse(f"is of another type of dataset than {older.name}")
            if newer.begin.has(Feature.RAW) != older.begin.has(Feature.RAW):
                newer.refuse(f"and {older.name} are raw and not raw")
            if newer.begin.has(Feature.RAW):
                _check_keys(older, newer)
            if older.begin.has(Feature.LARGE_BLOCKS) and not newer.begin.has(Feature.LARGE_BLOCKS):
                newer.refuse(f"was sent without -L, {older.name} with it")

    def run(self) -> Iterator[Piece]:
        yield from _merged_package(self._sources[-1])
        yield from self._out.begin(*_merged_begin([each.begin for each in self._sources]))
        for source in self._sources:
            self._next(source)
        while True:
            at = min(max(each.number, self._at) for each in self._sources)
            if at == INFINITY:
                break
            yield from self._dead(at)
            yield from self._decide(at)
        if self._full:
            yield from self._dead(-(-self._seen // DNODES_PER_BLOCK) * DNODES_PER_BLOCK)
        for source in self._sources:
            source.finish()
        yield from self._out.end()
        if self._sources[-1].package is not None:
            yield CLOSING_END

    def _next(self, source: RecordReader) -> None:
        source.next()
        self._out.settle(source)
        if source.end != INFINITY:
            self._seen = max(self._seen, source.end)

    def _dead(self, to: int) -> Iterator[Piece]:
        """In a full, all that nobody names is free."""
        if self._full and self._at < to:
            yield from self._out.dead(self._at, to)
        self._at = max(self._at, to)

    def _decide(self, at: int) -> Iterator[Piece]:
        """Decide about the object `at`, and about as many after it as the newest input that names it decides."""
        newest = next(each for each in reversed(self._sources) if each.number <= at < each.end)
        if newest.kind == RecordType.OBJECT_RANGE:
            yield from self._out.held(HeldRecord(newest.head, b""))
            for each in self._sources:
                if each.kind == RecordType.OBJECT_RANGE and each.number <= at:
                    self._next(each)
            return
        if newest.kind == RecordType.FREEOBJECTS:
            index = self._sources.index(newest)
            end = min([newest.end, *(each.number for each in self._sources[index + 1 :])])
            yield from self._out.dead(at, end)
        elif newest.kind == RecordType.OBJECT and newest.number == at:
            end = newest.end
            yield from self._object(at)
        else:
            newest.fail(f"has records of object {at} where an OBJECT must stand")
        self._at = end
        for each in self._sources:
            self._pass_over(each)

    def _pass_over(self, source: RecordReader) -> None:
        """Go on to the first record that is about objects not decided yet."""
        while source.number < self._at and (source.in_object or source.end <= self._at):
            self._next(source)
        if source.number < self._at and source.kind != RecordType.FREEOBJECTS:
            # An object, or a block of them, that reaches further than what has replaced its beginning.
            source.refuse(f"has an object {source.number} that is replaced in part")

    # --- one object --------------------------------------------------------------------------------------------

    def _object(self, number: int) -> Iterator[Piece]:
        """Merge an object: of all inputs that have it, back to the one in which it was free."""
        groups: list[_Group] = []  # the newest first
        for source in reversed(self._sources):
            if source.number <= number < source.end:
                if source.kind != RecordType.OBJECT or source.number != number:
                    break
                groups.append(self._group(source, number))
        newest = groups[0]
        yield from self._out.held(newest.object)
        yield from self._out.free(number, newest.size, INFINITY)
        yield from self._out.flush()
        spill = self._spill_before(groups)
        if spill is not None:
            yield from self._out.held(spill)
        alive = 1  # groups whose data are not dropped
        while alive < len(groups) and not groups[alive - 1].drops(groups[alive]):
            alive += 1
        whole = alive < len(groups) and _became_large(groups[alive - 1], groups[alive])
        yield from self._data(number, groups, alive, must_be_whole=whole)
        for group in groups[alive:]:
            self._skip_data(group.source, number)
        if spill is None:
            yield from self._spill_behind(groups, number)

    def _group(self, source: RecordReader, number: int) -> _Group:
        held = HeldRecord(source.head, self._hold(source))
        size = INFINITY
        if source.kind == RecordType.FREE and source.number == number:
            _object, offset, length = _TRIPLE.unpack_from(source.head, 8)
            if length == TO_THE_END:
                size = offset
                self._next(source)
        if size == INFINITY:
            source.fail(f"does not say where object {number} ends")
        spill = None
        if source.number == number and _is_unmodified(source):
            spill = HeldRecord(source.head, self._hold(source))
        return _Group.of(source, held, size, spill)

    def _hold(self, source: RecordReader) -> bytes:
        """Take the whole payload of the current record, and go to the next. It was summed, so it is compared too."""
        before, payload = source.head, source.held()
        self._next(source)
        state = fletcher.summed(payload, fletcher.summed(before[SUM_AT:], sum_of(before)))
        if fletcher.summed(source.head[:SUM_AT], state) != sum_of(source.head):
            source.fail(f"has a wrong checksum behind the record of object {_U64.unpack_from(before, 8)[0]}")
        return payload

    def _data(self, number: int, groups: list[_Group], alive: int, *, must_be_whole: bool) -> Iterator[Piece]:
        """Merge blocks and holes: at each offset the newest input that names it wins.

        `must_be_whole`: refuse an object of which the inputs do not name all, up to its end.
        """
        newest = groups[0]
        extents = [_Extents(group, number, newest) for group in groups[:alive]]
        at = covered = 0  # all before `at` is decided; all before `covered` was named
        while True:
            for each in extents:
                while each.is_decided(at):
                    self._next(each.source)
                    each.read(at)
            starts = [each.next_start(at) for each in extents]
            begin = min(starts)
            if begin == INFINITY:
                break
            winner = starts.index(begin)
            each, limit = extents[winner], min(starts[:winner], default=INFINITY)
            if each.is_hole_at(begin):
                end = min(each.hole_end(begin), limit)
                yield from self._out.free(number, begin, end)
                explicit = each.names(begin)
            else:
                end = each.end
                if each.start < begin or limit < end:
                    each.source.refuse(f"has a block of object {number} that is replaced in part")
                yield from self._out.passed(each.source)
                run = each.run(limit)
                if run is not None:
                    yield from self._out.run(run)
                    end = run.end
                self._next(each.source)
                each.read()
                explicit = True
            if explicit:
                for older in extents[winner + 1 :]:
                    older.touched(end)
            covered = end if begin == covered else covered
            at = end
        spanned = next((each.spanned for each in extents if each.spanned is not None), None)
        if spanned is not None:
            yield from self._out.free(number, newest.size, spanned[1])
        if must_be_whole and covered < newest.size:
            newest.source.refuse(f"switches -L on amid object {number}, of which it does not bring all")

    def _skip_data(self, source: RecordReader, number: int) -> None:
        while source.number == number and source.in_object and not _is_spill(source):
            self._next(source)

    # --- spill blocks ------------------------------------------------------------------------------------------

    def _spill_before(self, groups: list[_Group]) -> HeldRecord | None:
        """The spill block, where no input has changed it: `zfs send` writes it behind the OBJECT, as unmodified."""
        if self._full:
            return None  # it has no base
        for group in groups:
            if not group.has_spill or group.spill is None:
                return None
        return groups[0].spill

    def _spill_behind(self, groups: list[_Group], number: int) -> Iterator[Piece]:
        """Write the spill block, where an input has changed it: behind the data."""
        newest: HeldRecord | None = None
        wanted = True
        for group in groups:
            wanted = wanted and group.has_spill
            source = group.source
            while source.number == number and source.in_object:
                if not _is_spill(source):
                    source.fail(f"has records of object {number} behind its spill block")
                if wanted and newest is None and group.spill is None:
                    yield from self._out.passed(source)
                    wanted = False
                self._next(source)
            if wanted and newest is None:
                newest = group.spill
        if newest is not None:
            head = bytearray(newest.head)
            if head[0] == RecordType.SPILL:
                head[_SPILL_FLAGS_AT] &= ~_SPILL_BIT
            yield from self._out.held(HeldRecord(bytes(head), newest.payload))


class _Extents:
    """The blocks and holes of one object in one input: the current one, from `start` to `end`.

    What lies behind the object's end in this input was freed there: a hole, up to the newest end, unless the input
    itself says otherwise.

    `spanned`: of an older input the indirect block without a block in which the newest end lies, from its beginning to
    its end; None: there is none, or a newer input has something in it. `zfs send` frees such an indirect block as a
    whole, also behind the object's end, but no single block there (dmu_send.c, send_cb).
    """

    def __init__(self, group: _Group, number: int, newest: _Group) -> None:
        self.source = group.source
        self._number = number
        self._end_here = group.size
        self._newest_end = newest.size
        self._is_newest = group is newest
        self._is_data = bool(_DATA_TYPES & {group.type, newest.type})
        self._block_size = newest.block_size
        self._fan_out = max((group.indirect or _INDIRECT_MAX) - _POINTER_SHIFT, 1)
        self.spanned: tuple[int, int] | None = None
        self.start = self.end = 0
        self.read()

    def read(self, at: int = 0) -> None:
        """Take the current record of the input. All before `at` is decided."""
        source = self.source
        self._active = source.number == self._number and source.in_object and not _is_spill(source)
        if not self._active:
            return
        before = self.start
        self._hole = source.kind == RecordType.FREE
        self.start, length = _PAIR.unpack_from(source.head, 24 if source.kind == RecordType.WRITE else 16)
        self.end = INFINITY if length == TO_THE_END else self.start + length
        if self.start < before or not length or self.end > INFINITY:
            source.fail(f"has records that are not in their order, in object {self._number}")
        if self._hole and self._is_data and not self._is_newest and self.start < self._newest_end < self.end:
            self.spanned = self._spanned()
            self.touched(at)

    def run(self, limit: int) -> Run | None:
        """Take the blocks that follow the current one directly, up to what a newer input names, at `limit`."""
        if self.source.kind != RecordType.WRITE:
            return None
        found = self.source.run(self.end, min(limit, self._reach))
        if found is not None:
            self.start, self.end = found.start, found.end
        return found

    def _spanned(self) -> tuple[int, int] | None:
        """Return the largest indirect block in which the newest end lies and that the current hole covers."""
        found = None
        size = self._block_size << self._fan_out
        while size:
            begin = (self._newest_end - 1) // size * size
            if begin < self.start or begin + size > self.end:
                break
            found = begin, begin + size
            size <<= self._fan_out
        return found

    def touched(self, end: int) -> None:
        """Note that a newer input names something that ends at `end`."""
        if self.spanned is not None and end > self.spanned[0]:
            self.spanned = None

    def names(self, begin: int) -> bool:
        """Whether the current record names what is at `begin`."""
        return self._active and self.start <= begin

    @property
    def _reach(self) -> int:
        """Where the newest end cuts the current one. It cuts the blocks of older inputs, and the holes in data. Holes
        in metadata stay: there an indirect block has holes behind the end.
        """
        if self._is_newest or (self._hole and not self._is_data):
            return INFINITY
        return self._newest_end

    def is_decided(self, at: int) -> bool:
        """Whether nothing of the current one is left from `at` on."""
        return self._active and (self.end <= at or max(self.start, at) >= self._reach)

    def next_start(self, at: int) -> int:
        """Where this input names something next, from `at` on."""
        freed = max(self._end_here, at)
        start = freed if freed < self._newest_end else INFINITY
        return min(start, max(self.start, at)) if self._active else start

    def is_hole_at(self, begin: int) -> bool:
        """Whether there is a hole at `begin`, which is the next start."""
        return not self._active or self._hole or self.start > begin

    def hole_end(self, begin: int) -> int:
        """Where the hole at `begin` ends."""
        if self.names(begin):
            return min(self.end, self._reach)
        return min(self._newest_end, self.start if self._active else INFINITY)


def _check_keys(older: RecordReader, newer: RecordReader) -> None:
    """Refuse a raw stream that builds on another encrypted form of the older one's snapshot: see `ivset_guids`."""
    base = ivset_guids(newer.begin.payload)[1]
    if base is not None and base != ivset_guids(older.begin.payload)[0]:
        newer.refuse(f"builds on a copy of {older.name} that is encrypted with other keys")


def _is_unmodified(source: RecordReader) -> bool:
    """Whether the record behind an object's end is its spill block, unchanged since the base. An embedded one does not
    say so: there it is taken for unchanged because of its place.
    """
    if source.kind == RecordType.SPILL:
        return bool(source.head[_SPILL_FLAGS_AT] & _SPILL_BIT)
    return _is_spill(source)


def _is_spill(source: RecordReader) -> bool:
    if source.kind == RecordType.WRITE_EMBEDDED:
        return bool(_U64.unpack_from(source.head, 16)[0] >= SPILL_OFFSETS)
    return source.kind == RecordType.SPILL


def _became_large(newer: _Group, older: _Group) -> bool:
    """Whether the block size differs because -L was switched on, so that `zfs receive` refuses the newer stream."""
    return (
        newer.source.begin.has(Feature.LARGE_BLOCKS)
        and not older.source.begin.has(Feature.LARGE_BLOCKS)
        and older.block_size == _OLD_BLOCK_MAX < newer.block_size
        and older.size > older.block_size
    )


def _merged_package(last: RecordReader) -> Iterator[Piece]:
    """Return what is before the merged stream: the properties of the last one. They name no base (`zfs send -p -i`)."""
    package = last.package
    if package is None:
        return
    if _BASE_NAME in nvlist.decode(package.nvlist):
        last.refuse("names the snapshot on which it builds, as `zfs send -I` does")
    yield from (package.head, package.nvlist, package.end)


def _merged_begin(begins: list[StreamBegin]) -> tuple[bytes, bytes]:
    """Return the BEGIN of the merged stream: the last one's, on the base of the first."""
    first, last = begins[0], begins[-1]
    features = 0
    for each in begins:
        features |= each.features
    payload = last.payload
    if last.has(Feature.RAW):
        payload = nvlist.with_integer(payload, BASE_IVSET, nvlist.integer(first.payload, BASE_IVSET))
    head = bytearray(last.head)
    _U64.pack_into(head, 16, features << 2 | SUBSTREAM)
    struct.pack_into("<I", head, 36, last.flags & ~CLONE | first.flags & CLONE)
    _U64.pack_into(head, 48, first.base_guid)
    return bytes(head), payload
