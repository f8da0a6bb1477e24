"""Extended attributes among the system attributes (xattr=sa): a packed nvlist of byte arrays, in XDR.

module/zfs/zfs_sa.c (zfs_sa_set_xattr) packs them, module/nvpair/nvpair.c has the layout. Unlike the nvlists in BEGIN
records (stream/nvlist.py), names are bytes here.
"""

from __future__ import annotations

import struct
from typing import Final

from fullsend_protocol.shared.errors import DamagedStream

#: XATTR_LIST_MAX of Linux would allow about 32,000 names of one byte. A spill block could have as many.
_COUNT_MAX: Final = 1 << 15
_XDR: Final = 1
_PAIRS_AT: Final = 12  # behind encoding, endian, two reserved bytes, version, flags
_BYTE_ARRAY: Final = 10  # DATA_TYPE_BYTE_ARRAY
_PAIR: Final = struct.Struct(">ii")
_SPACES: Final = (b"user.", b"security.", b"trusted.", b"system.")


def unpacked(data: bytes, what: str) -> dict[bytes, bytes]:
    """Return the attributes by their stored names. `what`: whose they are, for errors. Raises: DamagedStream."""
    try:
        return _unpacked(data)
    except (struct.error, ValueError, IndexError) as error:
        msg = f"{what} has extended attributes that cannot be read ({error}): the stream is damaged"
        raise DamagedStream(msg) from None


def linux_name(stored: bytes) -> bytes:
    """Return the name that Linux shows. FreeBSD, and `xattr_compat=all`, store names of users without their space."""
    return stored if stored.startswith(_SPACES) else b"user." + stored


def _unpacked(data: bytes) -> dict[bytes, bytes]:
    if data[0] != _XDR:
        msg = f"an unknown encoding {data[0]}"
        raise ValueError(msg)
    found: dict[bytes, bytes] = {}
    at = _PAIRS_AT
    while True:
        size, _decoded = _PAIR.unpack_from(data, at)
        if size == 0:
            return found
        end = at + size
        if size <= _PAIR.size or end > len(data) or len(found) >= _COUNT_MAX:
            msg = f"a pair of {size} bytes"
            raise ValueError(msg)
        (length,) = struct.unpack_from(">I", data, at + 8)
        at += 12
        name = data[at : at + length]
        at += length + 3 & ~3
        kind, count = _PAIR.unpack_from(data, at)
        at += 8
        if kind != _BYTE_ARRAY or count < 0 or at + count > end or len(name) != length or not name or b"\0" in name:
            msg = f"a value of type {kind} and {count} bytes"
            raise ValueError(msg)
        found[name] = data[at : at + count]
        at = end
