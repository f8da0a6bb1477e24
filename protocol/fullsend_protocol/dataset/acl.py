"""NFSv4 ACLs as OpenZFS stores them: ZPL_DACL_ACES, a row of entries (include/sys/zfs_acl.h, zfs_ace_t).

Linux has no place for such an ACL outside ZFS. POSIX ACLs (acltype=posix) are extended attributes, and not here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared.errors import DamagedStream

#: ZFS_ACL_TRIVIAL in ZPL_FLAGS: the ACL says the same as the mode.
_TRIVIAL: Final = 4
#: zfs_ace_hdr_t: type, flags, access mask.
_HEADER: Final = struct.Struct("<HHI")
_WHO: Final = struct.Struct("<Q")
#: ACE_OWNER, ACE_GROUP with ACE_IDENTIFIER_GROUP, ACE_EVERYONE: entries without a number of a user or group.
_SPECIAL: Final = {0x1000: "owner@", 0x2040: "group@", 0x4000: "everyone@"}
_TYPE_FLAGS: Final = 0x7040
_GROUP: Final = 0x40
#: Types of entries, with what they are called. 5 to 8 are of objects (zfs_object_ace_t), with two GUIDs of 16 bytes.
_TYPES: Final = {0: "allow", 1: "deny", 2: "audit", 3: "alarm"}
_OBJECT_TYPES: Final = range(5, 9)
_GUIDS: Final = 32


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One entry. `who`: owner@, group@, everyone@, user:N or group:N; `flags`, `mask`: as in NFSv4 (RFC 7530, 6.2)."""

    kind: str
    who: str
    flags: int
    mask: int


def is_trivial(flags: int) -> bool:
    """Whether the ACL says no more than the mode. `flags`: ZPL_FLAGS."""
    return bool(flags & _TRIVIAL)


def entries(stored: bytes, number: int) -> list[AccessEntry]:
    """Return the entries of a stored ACL. `number`: of its object, for errors. Raises: DamagedStream."""
    found, at = [], 0
    try:
        while at < len(stored):
            kind, flags, mask = _HEADER.unpack_from(stored, at)
            at += _HEADER.size
            who = _SPECIAL.get(flags & _TYPE_FLAGS)
            if who is None or kind in _OBJECT_TYPES:
                (fuid,) = _WHO.unpack_from(stored, at)
                at += _WHO.size + (_GUIDS if kind in _OBJECT_TYPES else 0)
                who = f"{'group' if flags & _GROUP else 'user'}:{fuid}"
            found.append(AccessEntry(_TYPES.get(kind, f"type {kind}"), who, flags & ~_TYPE_FLAGS, mask))
    except struct.error:
        msg = f"object {number} has an ACL that is not whole: the stream is damaged"
        raise DamagedStream(msg) from None
    return found
