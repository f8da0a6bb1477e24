"""The attributes of one file, directory or link, as its system attributes have them.

The names of attributes are those of OpenZFS (module/zfs/zfs_sa.c, zfs_attr_table); their meanings are in
include/sys/zfs_znode.h.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared.errors import DamagedStream
from fullsend_protocol.shared.limits import OFFSET_END

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ZFS_XATTR in ZPL_FLAGS: the object is an extended attribute, or the directory of some.
_IS_XATTR: Final = 1
_U64: Final = struct.Struct("<Q")
_TIME: Final = struct.Struct("<qQ")
_NANOSECONDS: Final = 10**9
#: A symlink's target: PATH_MAX is 4096 with the NUL. The other variable attributes fit into a spill block.
_TARGET_MAX: Final = 4095
#: Linux's dev_t in the kernel has 20 bits for the minor number. FreeBSD and illumos have 32, and major numbers above.
_MINOR_BITS: Final = 20
_WIDE_MINOR_BITS: Final = 32


@dataclass(frozen=True, slots=True)
class Time:
    """A point in time: `seconds` since 1970, and `nanoseconds` after."""

    seconds: int
    nanoseconds: int

    @property
    def total(self) -> int:
        """Nanoseconds since 1970."""
        return self.seconds * _NANOSECONDS + self.nanoseconds


@dataclass(frozen=True, slots=True)
class Node:
    """An object with attributes. `number`: of the object; `mode`: type and permissions, as in `st_mode`; `size`: bytes,
    or of a directory its number of entries and 2; `links`: as in `st_nlink`; `flags`: ZPL_FLAGS.

    `device`: as stored, None: none. `project`: the project id, None: none. `xattr_directory`: the object of the
    directory that has extended attributes, 0: none. `target`: of a symlink. `packed_xattrs`: extended attributes among
    the system attributes (see `xattrs`). `acl`: the NFSv4 ACL (see `acl`), None: none.
    """

    number: int
    mode: int
    size: int
    uid: int
    gid: int
    links: int
    parent: int
    generation: int
    flags: int
    atime: Time
    mtime: Time
    ctime: Time
    created: Time
    device: int | None
    project: int | None
    xattr_directory: int
    target: bytes | None
    packed_xattrs: bytes | None
    acl: bytes | None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_xattr(self) -> bool:
        """Whether it is an extended attribute, or the directory of some: then no directory lists it."""
        return bool(self.flags & _IS_XATTR)

    @property
    def device_numbers(self) -> tuple[int, int]:
        """Major and minor number of a device."""
        device = self.device or 0
        bits = _MINOR_BITS if device < 1 << _WIDE_MINOR_BITS else _WIDE_MINOR_BITS
        return device >> bits, device & (1 << bits) - 1


def node(number: int, attributes: Mapping[str, bytes]) -> Node:
    """Return what these attributes say of an object. Raises: DamagedStream."""

    def integer(name: str) -> int:
        value = optional(name)
        if value is None:
            _fail(number, f"has no {name}")
        return value

    def optional(name: str) -> int | None:
        raw = attributes.get(name)
        if raw is None:
            return None
        if len(raw) != _U64.size:
            _fail(number, f"has a {name} of {len(raw)} bytes")
        return int(_U64.unpack(raw)[0])

    def time(name: str) -> Time:
        raw = attributes.get(name, b"")
        if len(raw) != _TIME.size:
            _fail(number, f"has no {name}")
        found = Time(*_TIME.unpack(raw))
        if found.nanoseconds >= _NANOSECONDS:
            _fail(number, f"has {found.nanoseconds} nanoseconds in {name}")
        return found

    mode, size = integer("ZPL_MODE"), integer("ZPL_SIZE")
    if size >= OFFSET_END or mode >> 16:
        _fail(number, f"has a size of {size} bytes and the mode {mode:o}")
    target = attributes.get("ZPL_SYMLINK")
    if stat.S_ISLNK(mode):
        target = (target or b"")[:size]
        if not target or b"\0" in target or len(target) > _TARGET_MAX:
            _fail(number, "is a symlink with an impossible target")
    return Node(
        number=number,
        mode=mode,
        size=size,
        uid=integer("ZPL_UID"),
        gid=integer("ZPL_GID"),
        links=integer("ZPL_LINKS"),
        parent=integer("ZPL_PARENT"),
        generation=integer("ZPL_GEN"),
        flags=integer("ZPL_FLAGS"),
        atime=time("ZPL_ATIME"),
        mtime=time("ZPL_MTIME"),
        ctime=time("ZPL_CTIME"),
        created=time("ZPL_CRTIME"),
        device=optional("ZPL_RDEV"),
        project=optional("ZPL_PROJID"),
        xattr_directory=optional("ZPL_XATTR") or 0,
        target=target if stat.S_ISLNK(mode) else None,
        packed_xattrs=attributes.get("ZPL_DXATTR") or None,
        acl=attributes.get("ZPL_DACL_ACES") or None,
    )


def _fail(number: int, why: str) -> NoReturn:
    msg = f"object {number} {why}: the stream is damaged"
    raise DamagedStream(msg)
