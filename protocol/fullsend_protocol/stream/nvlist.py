"""Packed nvlists of BEGIN records and resume tokens: decoding and encoding of the parts that fullsend uses.

OpenZFS packs the nvlist of a compound stream in XDR (libzfs_sendrecv.c, fnvlist_pack with NV_ENCODE_XDR) and those of
a substream and of a resume token natively (kernel). Layouts: module/nvpair/nvpair.c. Values of unused types are
skipped. The bytes come from outside: every length is compared with the bytes that are there, and depth is limited.
Encoded lists are native, little-endian and flat, byte for byte as the kernel packs them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from fullsend_protocol.shared.errors import DamagedStream, UnsupportedStream

#: bool: a boolean pair (present); int: any integer type; the others are literal. Other types are left out.
Value = bool | int | str | tuple[int, ...] | dict[str, "Value"]
NvList = dict[str, Value]

#: OpenZFS nests three deep at most (fss -> file system -> snapprops -> snapshot -> property).
_DEPTH_MAX: Final = 16
_NATIVE: Final = 0
_XDR: Final = 1
_LITTLE_ENDIAN: Final = 1
#: Where the pairs of a native list begin: after encoding, endian, two reserved bytes, i32 version, u32 flags.
_PAIRS_AT: Final = 12
#: NV_UNIQUE_NAME, which all lists in streams have.
_UNIQUE_NAMES: Final = 1
_NATIVE_END: Final = bytes(4)  # a pair of size zero


class _Type(IntEnum):
    BOOLEAN = 1
    UINT64 = 8
    STRING = 9
    UINT64_ARRAY = 16
    NVLIST = 19
    NVLIST_ARRAY = 20
    BOOLEAN_VALUE = 21


def decode(data: bytes | bytearray, what: str = "the nvlist of a BEGIN record") -> NvList:
    """Read a packed nvlist; empty data is an empty nvlist. `what`: its name, for errors. Raises: DamagedStream."""
    if not data:
        return {}
    data = bytes(data)
    try:
        encoding, endian = data[0], data[1]
        if encoding == _XDR:
            return _Xdr(data).nvlist(len(data), 0)
        if encoding == _NATIVE and endian == _LITTLE_ENDIAN:
            return _Native(data).nvlist(0)
    except (struct.error, IndexError, ValueError) as error:
        msg = f"{what} cannot be read: {error}"
        raise DamagedStream(msg) from None
    msg = f"{what} has an unknown encoding {encoding}, {endian}"
    raise DamagedStream(msg)


def encode(pairs: Mapping[str, bool | int | str]) -> bytes:
    """Pack a list as the kernel does: True as a boolean pair, integers as uint64, in the order given.

    Raises: ValueError for values that it cannot encode (False, a NUL in a text, an integer beyond 64 bits).
    """
    head = struct.pack("<BBxxiI", _NATIVE, _LITTLE_ENDIAN, 0, _UNIQUE_NAMES)
    return b"".join([head, *itertools.starmap(_packed, pairs.items()), _NATIVE_END])


def put_first(pairs: Mapping[str, bool | int | str], packed: bytes) -> bytes:
    """Return a packed list with these pairs before its own, which stay unchanged; empty data is an empty list.

    Raises: UnsupportedStream if the list is not native and little-endian; ValueError as `encode`.
    """
    encoded = encode(pairs)
    if not packed:
        return encoded
    if len(packed) < _PAIRS_AT + len(_NATIVE_END) or packed[:_PAIRS_AT] != encoded[:_PAIRS_AT]:
        msg = f"the nvlist of a BEGIN record is packed in a way that is not known ({packed[:_PAIRS_AT].hex()})"
        raise UnsupportedStream(msg)
    return encoded[: -len(_NATIVE_END)] + packed[_PAIRS_AT:]


def integer(packed: bytes, name: str) -> int:
    """Return the integer of this name in a packed native list, at any depth.

    Raises: UnsupportedStream if it has none, or is not native; DamagedStream.
    """
    return int(struct.unpack_from("<Q", packed, _integer_at(packed, name))[0])


def integers(packed: bytes) -> dict[str, int]:
    """Return all integers in a packed native list by name, at any depth; of two with one name the last. Empty for a
    list in another encoding. Raises: DamagedStream.
    """
    return {name: int(struct.unpack_from("<Q", packed, at)[0]) for name, at in _integers_at(packed).items()}


def with_integer(packed: bytes, name: str, value: int) -> bytes:
    """Return a packed native list with another integer of this name. Raises: as `integer`."""
    at = _integer_at(packed, name)
    return packed[:at] + struct.pack("<Q", value) + packed[at + 8 :]


def _integer_at(packed: bytes, name: str) -> int:
    at = _integers_at(packed).get(name)
    if at is None:
        msg = f"the nvlist of a BEGIN record has no {name}"
        raise UnsupportedStream(msg)
    return at


def _integers_at(packed: bytes) -> dict[str, int]:
    """Return where the integers of a native list are, by name, at any depth. Raises: DamagedStream."""
    decode(packed)  # which checks every length
    if packed[:2] != bytes([_NATIVE, _LITTLE_ENDIAN]):
        return {}
    reader = _Native(packed)
    reader.nvlist(0)
    return reader.integers


def _packed(name: str, value: bool | int | str) -> bytes:  # noqa: FBT001 - a value among others
    """Pack a pair natively."""
    match value:
        case True:
            kind, count, body = _Type.BOOLEAN, 0, b""
        case int() if value is not False and value >> 64 == 0:
            kind, count, body = _Type.UINT64, 1, value.to_bytes(8, "little")
        case str() if "\0" not in value:
            kind, count, body = _Type.STRING, 1, value.encode() + b"\0"
        case _:
            msg = f"a value that is not packed: {value!r}"
            raise ValueError(msg)
    text = name.encode() + b"\0"
    inside = text + bytes(-(16 + len(text)) % 8) + body + bytes(-len(body) % 8)
    return struct.pack("<ihhii", 16 + len(inside), len(text), 0, count, kind) + inside


def _text(raw: bytes) -> str:
    """Decode a name or a value. User properties may hold any bytes: that is no reason to refuse a backup."""
    return raw.decode(errors="backslashreplace")


class _Xdr:
    """XDR: i32 version, u32 flags; pairs of i32 encoded size (whole pair), i32 decoded size, string name, i32 type,
    i32 count, value; the end is two zero sizes. Big-endian, everything padded to 4.

    The contents of a pair must end within it: so each byte is read once, whatever the sizes claim.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 4  # after encoding, endian and two reserved bytes

    def nvlist(self, end: int, depth: int) -> NvList:
        """Read a list that ends at `end` or before."""
        if depth > _DEPTH_MAX:
            msg = "nested too deeply"
            raise ValueError(msg)
        self._take(8, end)  # version, flags
        found: NvList = {}
        while True:
            start = self._at
            size, _decoded = self._ints(end)
            if size == 0:
                return found
            pair_end = start + size
            if not self._at <= pair_end <= end:
                msg = f"a pair of {size} bytes"
                raise ValueError(msg)
            name = self._string(pair_end)
            kind, count = self._ints(pair_end)
            value = self._value(kind, count, pair_end, depth)
            if value is not None:
                found[name] = value
            self._at = pair_end

    def _value(self, kind: int, count: int, end: int, depth: int) -> Value | None:
        match kind:
            case _Type.BOOLEAN:
                return True
            case _Type.BOOLEAN_VALUE:
                return any(self._take(4, end))
            case _Type.UINT64:
                return int.from_bytes(self._take(8, end))
            case _Type.STRING:
                return self._string(end)
            case _Type.UINT64_ARRAY:
                self._take(4, end)  # the array's length, repeated
                return struct.unpack(f">{max(count, 0)}Q", self._take(count * 8, end))
            case _Type.NVLIST:
                return self.nvlist(end, depth + 1)
            case _:
                return None

    def _ints(self, end: int) -> tuple[int, int]:
        first, second = struct.unpack(">ii", self._take(8, end))
        return first, second

    def _string(self, end: int) -> str:
        length = int.from_bytes(self._take(4, end))
        raw = self._take(length, end)
        self._take(-length % 4, end)
        return _text(raw)

    def _take(self, length: int, end: int) -> bytes:
        if not 0 <= length <= end - self._at:
            msg = f"a value of {length} bytes"
            raise ValueError(msg)
        self._at += length
        return self._data[self._at - length : self._at]


class _Native:
    """Native, little-endian: i32 version, u32 flags; pairs of i32 size, i16 name length with NUL, i16 0, i32 count,
    i32 type, name padded to 8, value padded to 8; the end is a zero size. The pairs of an embedded nvlist follow
    the pair that contains it. As with _Xdr, the contents of a pair must end within it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _PAIRS_AT
        self.integers: dict[str, int] = {}  # where each integer is, at any depth

    def nvlist(self, depth: int) -> NvList:
        if depth > _DEPTH_MAX:
            msg = "nested too deeply"
            raise ValueError(msg)
        found: NvList = {}
        while True:
            start = self._at
            (size,) = struct.unpack_from("<i", self._data, start)
            if size == 0:
                self._at = start + 4
                return found
            end = start + size
            if size < 16 or end > len(self._data):  # noqa: PLR2004 - the fixed part of a pair
                msg = f"a pair of {size} bytes"
                raise ValueError(msg)
            name_size, _reserved, count, kind = struct.unpack_from("<hhii", self._data, start + 4)
            value_at = start + (16 + name_size + 7) // 8 * 8
            if name_size < 1 or value_at > end:
                msg = f"a name of {name_size} bytes"
                raise ValueError(msg)
            name = _text(self._data[start + 16 : start + 16 + name_size - 1])
            self._at = end
            if kind == _Type.UINT64:
                self.integers[name] = value_at
            value = self._value(kind, count, self._data[value_at:end], depth)
            if value is not None:
                found[name] = value

    def _value(self, kind: int, count: int, value: bytes, depth: int) -> Value | None:
        match kind:
            case _Type.BOOLEAN:
                return True
            case _Type.BOOLEAN_VALUE:
                return any(value[:4])
            case _Type.UINT64:
                return int(struct.unpack_from("<Q", value)[0])
            case _Type.STRING:
                return _text(value[: value.index(0)])
            case _Type.UINT64_ARRAY:
                if not 0 <= count <= len(value) // 8:
                    msg = f"an array of {count} integers"
                    raise ValueError(msg)
                return struct.unpack_from(f"<{count}Q", value)
            case _Type.NVLIST:
                return self.nvlist(depth + 1)
            case _Type.NVLIST_ARRAY:
                for _ in range(count):
                    self.nvlist(depth + 1)
                return None
            case _:
                return None
