"""Packed nvlists as BEGIN records carry them, decoded as far as we need them.

OpenZFS packs the nvlist of a compound stream in XDR (libzfs_sendrecv.c, fnvlist_pack with NV_ENCODE_XDR) and that
of a substream natively (kernel). Layouts: module/nvpair/nvpair.c. Values of types that we have no use for are
passed over. The bytes come from outside: every length is held against what is there, and depth is bounded.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from fullsend_protocol.errors import DamagedStream

#: bool: a boolean pair (present); int: any integer type; the rest as they read. Others are left out.
Value = bool | int | str | tuple[int, ...] | dict[str, "Value"]
NvList = dict[str, Value]

#: OpenZFS nests three deep at most (fss -> file system -> snapprops -> snapshot -> property).
_DEPTH_MAX: Final = 16
_NATIVE: Final = 0
_XDR: Final = 1
_LITTLE_ENDIAN: Final = 1


class _Type(IntEnum):
    BOOLEAN = 1
    UINT64 = 8
    STRING = 9
    UINT64_ARRAY = 16
    NVLIST = 19
    NVLIST_ARRAY = 20
    BOOLEAN_VALUE = 21


def decode(data: bytes | bytearray) -> NvList:
    """Read a packed nvlist; empty data is an empty nvlist. Raises: DamagedStream."""
    if not data:
        return {}
    try:
        encoding, endian = data[0], data[1]
        if encoding == _XDR:
            return _Xdr(data).nvlist(0)
        if encoding == _NATIVE and endian == _LITTLE_ENDIAN:
            return _Native(data).nvlist(0)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        msg = f"the nvlist of a BEGIN record cannot be read: {error}"
        raise DamagedStream(msg) from None
    msg = f"the nvlist of a BEGIN record has an unknown encoding {encoding}, {endian}"
    raise DamagedStream(msg)


class _Xdr:
    """XDR: i32 version, u32 flags; pairs of i32 encoded size (whole pair), i32 decoded size, string name, i32 type,
    i32 count, value; the end is two zero sizes. Big-endian, everything padded to 4.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self._at = 4  # past encoding, endian and two reserved bytes

    def nvlist(self, depth: int) -> NvList:
        if depth > _DEPTH_MAX:
            msg = "nested too deeply"
            raise ValueError(msg)
        self._at += 8  # version, flags
        found: NvList = {}
        while True:
            start = self._at
            size, _decoded = struct.unpack_from(">ii", self._data, start)
            self._at = start + 8
            if size == 0:
                return found
            if size < 0 or start + size > len(self._data):
                msg = f"a pair of {size} bytes"
                raise ValueError(msg)
            name = self._string()
            kind, count = struct.unpack_from(">ii", self._data, self._at)
            self._at += 8
            value = self._value(kind, count, depth)
            if value is not None:
                found[name] = value
            self._at = start + size

    def _value(self, kind: int, count: int, depth: int) -> Value | None:
        match kind:
            case _Type.BOOLEAN:
                return True
            case _Type.BOOLEAN_VALUE:
                return bool(struct.unpack_from(">i", self._data, self._at)[0])
            case _Type.UINT64:
                return int(struct.unpack_from(">Q", self._data, self._at)[0])
            case _Type.STRING:
                return self._string()
            case _Type.UINT64_ARRAY:
                self._need(count * 8 + 4)
                return struct.unpack_from(f">{count}Q", self._data, self._at + 4)  # the array's length stands in front
            case _Type.NVLIST:
                return self.nvlist(depth + 1)
            case _:
                return None

    def _string(self) -> str:
        (length,) = struct.unpack_from(">I", self._data, self._at)
        self._need(length + 4)
        text = bytes(self._data[self._at + 4 : self._at + 4 + length]).decode()
        self._at += 4 + (length + 3) // 4 * 4
        return text

    def _need(self, length: int) -> None:
        if length < 0 or self._at + length > len(self._data):
            msg = f"a value of {length} bytes"
            raise ValueError(msg)


class _Native:
    """Native, little-endian: i32 version, u32 flags; pairs of i32 size, i16 name length with NUL, i16 0, i32 count,
    i32 type, name padded to 8, value padded to 8; the end is a zero size. The pairs of an embedded nvlist follow
    the pair that holds it.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self._at = 12  # past encoding, endian, two reserved bytes, version, flags

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
            if size < 16 or start + size > len(self._data):  # noqa: PLR2004 - the fixed part of a pair
                msg = f"a pair of {size} bytes"
                raise ValueError(msg)
            name_size, _reserved, count, kind = struct.unpack_from("<hhii", self._data, start + 4)
            value_at = start + (16 + name_size + 7) // 8 * 8
            name = bytes(self._data[start + 16 : start + 16 + name_size - 1]).decode()
            self._at = start + size
            value = self._value(kind, count, value_at, depth)
            if value is not None:
                found[name] = value

    def _value(self, kind: int, count: int, at: int, depth: int) -> Value | None:
        if not 0 <= count <= len(self._data):
            msg = f"a pair of {count} values"
            raise ValueError(msg)
        match kind:
            case _Type.BOOLEAN:
                return True
            case _Type.BOOLEAN_VALUE:
                return bool(struct.unpack_from("<i", self._data, at)[0])
            case _Type.UINT64:
                return int(struct.unpack_from("<Q", self._data, at)[0])
            case _Type.STRING:
                return bytes(self._data[at : self._data.index(0, at)]).decode()
            case _Type.UINT64_ARRAY:
                return struct.unpack_from(f"<{count}Q", self._data, at)
            case _Type.NVLIST:
                return self.nvlist(depth + 1)
            case _Type.NVLIST_ARRAY:
                for _ in range(count):
                    self.nvlist(depth + 1)
                return None
            case _:
                return None
