"""ZAP objects: the tables of names in which ZFS keeps directories, and what it knows of a file system.

The layouts are those of OpenZFS (include/sys/zap_impl.h, zap_leaf.h; module/zfs/zap.c, zap_leaf.c, zap_micro.c). A
micro ZAP is one block: a header of 64 bytes, and entries of 64. A fat one is a header block, blocks of a pointer table,
and leaves, which are cut into chunks of 24 bytes. docs/stream.md has the fields.

All of it comes from outside. A leaf is read chunk by chunk, not along its hash chains. Each chunk is used once at most,
so no loop among chunks can be followed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared.errors import DamagedStream

if TYPE_CHECKING:
    from fullsend_protocol.stream.checksums import Piece

#: ZAP_MAXNAMELEN_NEW of OpenZFS is 1024 with the NUL: names of the feature `longname` have up to 1023 bytes.
NAME_BYTES_MAX: Final = 1023
#: Leaves of one ZAP: of 16 KiB each, they have some 150 million names. What is kept of each takes about 200 bytes.
_LEAVES_MAX: Final = 1 << 20

_LEAF: Final = 1 << 63  # ZBT_LEAF
_HEADER: Final = (1 << 63) + 1  # ZBT_HEADER
_MICRO: Final = (1 << 63) + 3  # ZBT_MICRO
_HEADER_MAGIC: Final = 0x2F52AB2AB  # ZAP_MAGIC
_LEAF_MAGIC: Final = 0x2AB1EAF  # ZAP_LEAF_MAGIC
#: Block sizes of a fat ZAP, as powers of two: its smallest header, and SPA_MAXBLOCKSHIFT.
_SHIFT_MIN: Final = 9
_SHIFT_MAX: Final = 24

_U64: Final = struct.Struct("<Q")
#: mzap_ent_phys_t: value, cd, (2 bytes), name.
_MICRO_ENTRY: Final = struct.Struct("<QI2x50s")
#: zap_phys_t: type, magic; of the pointer table block, blocks, shift, (16 bytes); free block, leaves, entries, salt,
#: normalization, flags.
_FAT_HEADER: Final = struct.Struct("<QQQQQ16xQQQQQQ")
_FLAG_INTEGER_KEYS: Final = 2  # ZAP_FLAG_UINT64_KEY
#: zap_leaf_phys_t: type, (8 bytes), prefix, magic, free chunks, entries, prefix length, free list.
_LEAF_HEADER: Final = struct.Struct("<Q8xQIHHHH")
_LEAF_HEADER_SIZE: Final = 48
_CHUNK: Final = 24  # ZAP_LEAF_CHUNKSIZE
#: zap_leaf_entry: type, bytes of an integer, next, name chunk, name bytes, value chunk, value integers, cd, hash.
_LEAF_ENTRY: Final = struct.Struct("<BBHHHHHIQ")
_ENTRY_CHUNK: Final = 252
_ARRAY_CHUNK: Final = 251
_ARRAY_BYTES: Final = 21  # ZAP_LEAF_ARRAY_BYTES
_INTEGER_SIZES: Final = frozenset({1, 2, 4, 8})
#: mzap_phys_t: type, salt, normalization.
_MICRO_HEADER: Final = struct.Struct("<QQQ")
#: ZFS_CRC64_POLY (include/sys/spa.h), and the bits of a hash that order names (zap_hashbits).
_HASH_POLYNOMIAL: Final = 0xC96C5795D7870F42
_HASH_BITS: Final = 28


@dataclass(frozen=True, slots=True)
class ZapEntry:
    """One name with its integers. `block`: the number of the block that it is in."""

    name: bytes
    integers: tuple[int, ...]
    block: int


def name_order(name: bytes, salt: int) -> int:
    """Return the place of a name among those of a ZAP: OpenZFS goes through them in the order of this hash."""
    value = salt
    for byte in name:
        value = value >> 8 ^ _HASHES[(value ^ byte) & 0xFF]
    return value >> 64 - _HASH_BITS


def _hashes() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _bit in range(8):
            value = value >> 1 ^ (_HASH_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


_HASHES: Final = _hashes()


class ZapReader:
    """Reads one ZAP, block after block, the first one first."""

    def __init__(self, what: str, block_size: int) -> None:
        """`what`: its name, for errors; `block_size`: bytes of a block, as its object says."""
        self._what = what
        self._size = block_size
        self._next = 0  # the number of the next block at least
        self._kind = 0  # of the first block
        self._entries = 0  # that the header says
        self._table = range(0)  # the blocks of the pointer table
        self._table_seen = 0
        self._pointers: set[int] = set()
        self._leaves: dict[int, int] = {}  # entries in each
        #: With which its names are hashed; None: not known yet, or they are normalized before.
        self.salt: int | None = None

    def take(self, offset: int, data: Piece) -> list[ZapEntry]:
        """Take a block. `offset`: of the block, in bytes. Returns: its entries. Raises: DamagedStream."""
        if len(data) != self._size or offset % max(self._size, 1):
            self._fail(f"has a block of {len(data)} bytes at {offset}, not of {self._size}")
        number = offset // self._size
        if number < self._next or (number and not self._kind):
            self._fail("has blocks that are not in their order")
        self._next = number + 1
        if self._kind == 0:
            return self._first(data)
        if self._kind == _MICRO:
            self._fail("is a micro ZAP of more than one block")
        if number in self._table:
            self._point(data)
            return []
        kind = _U64.unpack_from(data)[0]
        return self._leaf(number, data) if kind == _LEAF else []

    def finish(self) -> list[int]:
        """Check that it is whole. Returns: the leaves that are not part of it: their entries do not count.

        Raises: DamagedStream.
        """
        if not self._kind:
            self._fail("is empty")
        if self._kind == _MICRO:
            return []
        if self._table_seen < len(self._table):
            self._fail("has a pointer table that is not whole")
        if not self._pointers <= self._leaves.keys():
            self._fail("points to a leaf that is not there")
        found = sum(self._leaves[each] for each in self._pointers)
        if found != self._entries:
            self._fail(f"has {found} names, and says it has {self._entries}")
        return sorted(self._leaves.keys() - self._pointers)

    def _first(self, data: Piece) -> list[ZapEntry]:
        if self._size < 1 << _SHIFT_MIN:
            self._fail(f"has blocks of {self._size} bytes")
        kind = _U64.unpack_from(data)[0]
        if kind == _MICRO:
            self._kind = kind
            _kind, salt, normalization = _MICRO_HEADER.unpack_from(data)
            self.salt = None if normalization else salt
            return self._micro(data)
        if kind != _HEADER or self._size & (self._size - 1) or self._size > 1 << _SHIFT_MAX:
            self._fail("is not a ZAP")
        _kind, magic, table, blocks, shift, _free, _leaves, entries, salt, normalization, flags = (
            _FAT_HEADER.unpack_from(data)
        )
        if magic != _HEADER_MAGIC:
            self._fail("has a header with a wrong magic")
        if flags & _FLAG_INTEGER_KEYS:
            self._fail("has numbers for names")
        self._kind, self._entries = kind, entries
        self.salt = None if normalization else salt
        if not blocks:
            self._point(memoryview(data)[self._size // 2 :])
        elif table < 1 or blocks > _LEAVES_MAX or blocks * self._size != 8 << min(shift, 64):
            self._fail(f"has a pointer table of {blocks} blocks for 2^{shift} pointers")
        else:
            self._table = range(table, table + blocks)
        return []

    def _micro(self, data: Piece) -> list[ZapEntry]:
        found = []
        for at in range(_MICRO_ENTRY.size, len(data) - _MICRO_ENTRY.size + 1, _MICRO_ENTRY.size):
            value, _cd, text = _MICRO_ENTRY.unpack_from(data, at)
            name, nul, _rest = text.partition(b"\0")
            if not nul:
                self._fail("has a name without its end")
            if name:
                found.append(ZapEntry(name, (value,), 0))
        return found

    def _point(self, data: Piece) -> None:
        """Take pointers to leaves."""
        self._table_seen += 1 if self._table else 0
        self._pointers.update(each for (each,) in _U64.iter_unpack(data))
        if len(self._pointers) > _LEAVES_MAX:
            self._fail(f"has more than {_LEAVES_MAX} leaves")

    def _leaf(self, number: int, data: Piece) -> list[ZapEntry]:
        _kind, _prefix, magic, _free, entries, _length, _list = _LEAF_HEADER.unpack_from(data)
        if magic != _LEAF_MAGIC:
            self._fail(f"has a leaf with a wrong magic, in block {number}")
        first = _LEAF_HEADER_SIZE + (self._size >> 5 << 1)  # behind the hash table
        chunks = _Chunks(self._what, number, memoryview(data)[first : first + self._chunks * _CHUNK])
        found = chunks.entries()
        if len(found) != entries:
            self._fail(f"has {len(found)} names in block {number}, and says it has {entries}")
        self._leaves[number] = entries
        if len(self._leaves) > _LEAVES_MAX:
            self._fail(f"has more than {_LEAVES_MAX} leaves")
        return found

    @property
    def _chunks(self) -> int:
        """How many chunks a leaf has: ZAP_LEAF_NUMCHUNKS."""
        return (self._size - (self._size >> 5 << 1)) // _CHUNK - 2

    def _fail(self, why: str) -> NoReturn:
        msg = f"{self._what} {why}: it is damaged"
        raise DamagedStream(msg)


class _Chunks:
    """The chunks of one leaf."""

    def __init__(self, what: str, number: int, data: memoryview) -> None:
        self._what = what
        self._number = number
        self._data = data
        self._left = self._count = len(data) // _CHUNK  # how many may still be read

    def entries(self) -> list[ZapEntry]:
        found = []
        for at in range(0, self._count * _CHUNK, _CHUNK):
            if self._data[at] != _ENTRY_CHUNK:
                continue
            _kind, size, _next, name_at, name_bytes, value_at, count, _cd, _hash = _LEAF_ENTRY.unpack_from(
                self._data, at
            )
            if size not in _INTEGER_SIZES:
                self._fail(f"integers of {size} bytes")
            if not 1 < name_bytes <= NAME_BYTES_MAX + 1:
                self._fail(f"a name of {name_bytes - 1} bytes")
            name = self._array(name_at, name_bytes)
            if name.find(b"\0") != name_bytes - 1:
                self._fail("a name that does not end where it should")
            raw = self._array(value_at, count * size)
            integers = tuple(int.from_bytes(raw[at : at + size]) for at in range(0, len(raw), size))
            found.append(ZapEntry(name[:-1], integers, self._number))
        return found

    def _array(self, chunk: int, length: int) -> bytes:
        """Return the bytes of a chain of chunks."""
        if length <= _ARRAY_BYTES and chunk < self._count and self._data[chunk * _CHUNK] == _ARRAY_CHUNK:
            self._left -= 1  # the usual case
            return bytes(self._data[chunk * _CHUNK + 1 : chunk * _CHUNK + 1 + length])
        parts = []
        while length:
            self._left -= 1
            at = chunk * _CHUNK
            if self._left < 0 or chunk >= self._count or self._data[at] != _ARRAY_CHUNK:
                self._fail("a chain of chunks that does not end")
            part = bytes(self._data[at + 1 : at + 1 + min(length, _ARRAY_BYTES)])
            length -= len(part)
            parts.append(part)
            chunk = int.from_bytes(self._data[at + _CHUNK - 2 : at + _CHUNK], "little")
        return b"".join(parts)

    def _fail(self, why: str) -> NoReturn:
        msg = f"{self._what} has {why}, in block {self._number}: it is damaged"
        raise DamagedStream(msg)
