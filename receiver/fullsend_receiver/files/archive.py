"""Writes files as a tar archive, in the format of POSIX (pax): with nanoseconds, long names and extended attributes.

The archive has its end only if the stream was proven. Without it, `tar` says that the archive is cut.
"""

from __future__ import annotations

import stat
import struct
import tarfile
from typing import TYPE_CHECKING, Final

from fullsend_files.troubles import Troubles, permissions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fullsend_files.troubles import Wishes
    from fullsend_protocol.dataset.nodes import Node, Time
    from fullsend_protocol.dataset.objects import Block
    from fullsend_receiver.files.choice import FileChoice

_ZEROS: Final = bytes(1 << 20)
#: Bytes of one file, holes included, since an archive has zeros for them: 1 PiB. Without a limit, a stream of some KiB
#: could fill 8 EiB.
SIZE_MAX: Final = 1 << 50
#: The largest values of a header's fields, in octal digits: size and time, owner, device. Larger ones are in records.
_NUMBER_MAX: Final = 0o77777777777
_OWNER_MAX: Final = 0o7777777
_DEVICE_MAX: Final = 0o7777777
_FIELD_MAX: Final = 99
_DEFAULT_ACL: Final = b"system.posix_acl_default"
_ACLS: Final = {b"system.posix_acl_access": b"SCHILY.acl.access", _DEFAULT_ACL: b"SCHILY.acl.default"}
_ACL_VERSION: Final = struct.Struct("<I")
_ACL_VERSION_2: Final = 2
_ACL_ENTRY: Final = struct.Struct("<HHI")
#: Tags of entries: what they are called, and whether they name a user or a group.
_ACL_TAGS: Final = {
    0x01: ("user", False),
    0x02: ("user", True),
    0x04: ("group", False),
    0x08: ("group", True),
    0x10: ("mask", False),
    0x20: ("other", False),
}
_TYPES: Final = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class Archive:
    """A receptacle that writes an archive."""

    def __init__(
        self, write: Callable[[bytes | memoryview], None], choice: FileChoice, wishes: Wishes, troubles: Troubles
    ) -> None:
        """`write`: takes the archive's bytes, in pieces."""
        self._write = write
        self._choice = choice
        self._wishes = wishes
        self._troubles = troubles
        self._left_out: set[bytes] = set()

    def directory(self, path: bytes, node: Node) -> None:
        """See Receptacle. It comes again in `finish`. The root comes only if it was chosen: `tar` gives its attributes
        to the folder in which it is run.
        """
        if path or self._choice.is_whole:
            self._header(path or b".", node, 0, self._more(path, node, with_default=False))

    def file(self, path: bytes, node: Node, blocks: Iterator[Block]) -> None:
        """See Receptacle. Holes become zeros."""
        if node.size > SIZE_MAX:
            self._troubles.add(path, f"has {node.size} bytes, too many for an archive without holes: use `get --into`")
            self._left_out.add(path)
            return
        self._header(path, node, node.size, self._more(path, node))
        at = 0
        for block in blocks:
            self._zeros(block.offset - at)
            self._write(memoryview(block.data))
            at = block.offset + len(block.data)
        self._zeros(node.size - at)
        self._zeros(-node.size % tarfile.BLOCKSIZE)

    def special(self, path: bytes, node: Node) -> None:
        """See Receptacle."""
        if stat.S_IFMT(node.mode) not in _TYPES:
            self._troubles.add(path, "is a socket, which no archive can have")
            self._left_out.add(path)
            return
        self._header(path, node, 0, self._more(path, node))

    def link(self, path: bytes, first: bytes) -> None:
        """See Receptacle."""
        if first in self._left_out:
            self._troubles.add(path, "is a link to a file that was left out")
            return
        entry = tarfile.TarInfo()
        entry.type = tarfile.LNKTYPE
        self._put(entry, path, first, {})

    def finish(self) -> None:
        """Write the end. The stream must be proven.

        The directories come once more before it: GNU tar sets their times when it leaves them, and the files were in
        another order.
        """
        quiet = Troubles()
        for path, node in self._choice.directories(deepest_first=True):
            if path or self._choice.is_whole:
                self._header(path or b".", node, 0, self._more(path, node, troubles=quiet), quiet)
        self._zeros(2 * tarfile.BLOCKSIZE)

    def _header(
        self, path: bytes, node: Node, size: int, more: dict[bytes, bytes], troubles: Troubles | None = None
    ) -> None:
        entry = tarfile.TarInfo()
        entry.type = _TYPES[stat.S_IFMT(node.mode)]
        entry.mode = permissions(node.mode, self._wishes, troubles or self._troubles)
        if node.device is not None:
            entry.devmajor, entry.devminor = (each & _DEVICE_MAX for each in node.device_numbers)
        for name, value, largest in (
            ("size", size, _NUMBER_MAX),
            ("uid", node.uid, _OWNER_MAX),
            ("gid", node.gid, _OWNER_MAX),
            ("mtime", node.mtime.seconds, _NUMBER_MAX),
        ):
            if 0 <= value <= largest:
                setattr(entry, name, value)
            else:
                more.setdefault(name.encode(), b"%d" % value)
        self._put(entry, path, node.target or b"", more)

    def _more(
        self, path: bytes, node: Node, *, with_default: bool = True, troubles: Troubles | None = None
    ) -> dict[bytes, bytes]:
        """Return the records before a header: times, ACLs and extended attributes. `with_default`: also the ACL for
        new files, which must not be there while the files of the archive are made.
        """
        found = {b"mtime": _decimal(node.mtime), b"atime": _decimal(node.atime)}
        for name, value in self._choice.index.xattrs(node).items():
            if value is None:
                (troubles or self._troubles).add(path, f"has an extended attribute {name!r} of more than 64 KiB")
            elif name in _ACLS and (text := posix_acl_text(value)) is not None:
                if with_default or name != _DEFAULT_ACL:
                    found[_ACLS[name]] = text
            else:
                key = name.replace(b"%", b"%25").replace(b"=", b"%3D")  # as GNU tar does
                found[b"SCHILY.xattr." + key] = value
        return found

    def _put(self, entry: tarfile.TarInfo, path: bytes, target: bytes, more: dict[bytes, bytes]) -> None:
        """Write a header, and before it what it has no room for. `tarfile` would write that in another form where it
        is not UTF-8, which GNU tar does not know.
        """
        entry.name, entry.linkname = _short(path), _short(target)
        if path != entry.name.encode():
            more[b"path"] = path
        if target != entry.linkname.encode():
            more[b"linkpath"] = target
        if more:
            records = b"".join(_record(key, value) for key, value in more.items())
            extended = tarfile.TarInfo("././@PaxHeader")
            extended.type, extended.size = tarfile.XHDTYPE, len(records)
            self._write(extended.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % tarfile.BLOCKSIZE))
        self._write(entry.tobuf(tarfile.USTAR_FORMAT))

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._write(memoryview(_ZEROS)[:count])
            count -= len(_ZEROS)


def posix_acl_text(value: bytes) -> bytes | None:
    """Return a POSIX ACL as archives have it. `value`: of system.posix_acl_access or _default, as Linux and OpenZFS
    store it (include/uapi/linux/posix_acl_xattr.h). Returns: None if it has another form.
    """
    if len(value) < _ACL_VERSION.size or (len(value) - _ACL_VERSION.size) % _ACL_ENTRY.size:
        return None
    if _ACL_VERSION.unpack_from(value)[0] != _ACL_VERSION_2:
        return None
    entries = []
    for tag, bits, who in _ACL_ENTRY.iter_unpack(value[_ACL_VERSION.size :]):
        if tag not in _ACL_TAGS:
            return None
        name, named = _ACL_TAGS[tag]
        letters = "".join(letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        entries.append(f"{name}:{who if named else ''}:{letters}")
    return ",".join(entries).encode()


def _short(text: bytes) -> str:
    """Return what a header's field of 100 bytes has of a name. The record before it has all."""
    return text.decode("ascii", "replace").replace("\ufffd", "?")[:_FIELD_MAX]


def _record(key: bytes, value: bytes) -> bytes:
    """Return a record of pax: its own length in decimal, a space, key=value, and the end of the line."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    while size != rest + len(str(size)):
        size = rest + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)


def _decimal(time: Time) -> bytes:
    """Write seconds with nanoseconds, as pax has them."""
    total = time.total
    sign, total = (b"-", -total) if total < 0 else (b"", total)
    return b"%b%d.%09d" % (sign, total // 10**9, total % 10**9)
