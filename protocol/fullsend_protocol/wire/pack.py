"""A pack: files, or a volume, as a sequence of items. It is what the forms `pack` and `volume` of `files?` answer.

An item is its kind, the length of the rest, and the rest (docs/protocol.md, "Packs"). Holes are not sent. A pack
without its end is not whole. What is read here is not trusted: each value is checked before it is used.
"""

from __future__ import annotations

import stat
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.dataset.entry import DEVICES, Entry
from fullsend_protocol.dataset.nodes import Time
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_protocol.dataset.entry import EntryMaker, VolumeMaker


class PackItem(IntEnum):
    """The kinds of items."""

    DIRECTORY = 1
    FILE = 2
    DATA = 3
    SPECIAL = 4
    LINK = 5
    XATTR = 6
    DESCRIBE = 7
    VOLUME = 8
    END = 9


#: Bytes of one item, without its head: the longest path, with attributes. A reader holds one item.
ITEM_MAX: Final = 1 << 20
#: Bytes of a path. What is deeper than PATH_MAX of Linux can be made, one folder after another.
PATH_END: Final = 384 << 10
#: Bytes of contents in one item: more would make a reader hold more, fewer cost more heads.
DATA_MAX: Final = 256 << 10
#: Bytes of the extended attributes of one file, names and values: far more than file systems have, which is at most
#: some of 64 KiB each. A reader holds them.
XATTRS_MAX: Final = 16 << 20
#: PATH_MAX of Linux is 4096 with the NUL.
_TARGET_MAX: Final = 4095

_HEAD: Final = struct.Struct("<BI")
#: mode, size, uid, gid; atime and mtime, each in seconds and nanoseconds; whether there is a device, major, minor.
_FACTS: Final = struct.Struct("<IQQQqIqIBQQ")
_OFFSET: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")
_NANOSECONDS: Final = 10**9


class PackWriter:
    """Writes a pack: an EntryMaker, and a VolumeMaker. ValueError says of what is too large that it is left out."""

    def __init__(self, write: Callable[[bytes | memoryview], None]) -> None:
        """`write`: takes the bytes, in pieces that are large, for small files, too."""
        self._write = write
        self._held = bytearray()
        self._count = 0

    def directory(self, path: bytes) -> None:
        """See EntryMaker. Raises: ValueError."""
        self._put(PackItem.DIRECTORY, _bounded(path))

    def file(self, path: bytes, entry: Entry) -> None:
        """See EntryMaker. Raises: ValueError."""
        self._describe(PackItem.FILE, path, entry)

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See EntryMaker."""
        view = memoryview(data)
        while view:
            self._put(PackItem.DATA, _OFFSET.pack(offset), view[:DATA_MAX])
            offset, view = offset + DATA_MAX, view[DATA_MAX:]

    def end_file(self) -> None:
        """See EntryMaker: the next item ends it."""

    def special(self, path: bytes, entry: Entry) -> None:
        """See EntryMaker. Raises: ValueError."""
        if entry.target is None and stat.S_IFMT(entry.mode) not in DEVICES:
            msg = f"is of an unknown kind, {entry.mode:o}"
            raise ValueError(msg)
        self._describe(PackItem.SPECIAL, path, entry, entry.target or b"")

    def link(self, path: bytes, first: bytes) -> None:
        """See EntryMaker. Raises: ValueError."""
        self._put(PackItem.LINK, _LENGTH.pack(len(path)), _bounded(path), _bounded(first))

    def describe(self, path: bytes, entry: Entry) -> None:
        """See EntryMaker. Raises: ValueError."""
        self._describe(PackItem.DESCRIBE, path, entry)

    def volume(self, size: int) -> None:
        """See VolumeMaker."""
        self._put(PackItem.VOLUME, _OFFSET.pack(size))

    def end(self) -> None:
        """Write the end. All that was written must be proven."""
        self._put(PackItem.END, _OFFSET.pack(self._count))
        self._flush()

    def _describe(self, kind: PackItem, path: bytes, entry: Entry, target: bytes = b"") -> None:
        _bounded(path)
        sizes = [len(name) + len(value) for name, value in entry.xattrs.items()]
        if sum(sizes) > XATTRS_MAX or max(sizes, default=0) > ITEM_MAX - _LENGTH.size:
            msg = f"has more than {XATTRS_MAX >> 20} MiB of extended attributes, or more than 1 MiB in one"
            raise ValueError(msg)
        for name, value in entry.xattrs.items():
            self._put(PackItem.XATTR, _LENGTH.pack(len(name)), name, value)
        times = entry.atime.seconds, entry.atime.nanoseconds, entry.mtime.seconds, entry.mtime.nanoseconds
        device = (0, 0, 0) if entry.device is None else (1, *entry.device)
        facts = _FACTS.pack(entry.mode, entry.size, entry.uid, entry.gid, *times, *device)
        self._put(kind, facts, _LENGTH.pack(len(path)), path, target)

    def _put(self, kind: PackItem, *parts: bytes | memoryview) -> None:
        self._held += _HEAD.pack(kind, sum(map(len, parts)))
        for each in parts:
            self._held += each
        self._count += 1
        if len(self._held) >= DATA_MAX:
            self._flush()

    def _flush(self) -> None:
        self._write(bytes(self._held))
        self._held.clear()


class _Items:
    """Cuts bytes into items. `ended`: whether the end was there."""

    def __init__(self, take: Callable[[int, bytes], None], last: Callable[[], None]) -> None:
        """`take`: takes the kind and the rest of an item; `last`: is called at the end."""
        self._take = take
        self._last = last
        self._rest = bytearray()
        self._count = 0
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises: RemoteProtocolError, and what the maker raises."""
        self._rest += data
        at = 0
        while len(self._rest) - at >= _HEAD.size:
            if self.ended:
                _fail("it goes on behind its end")
            kind, length = _HEAD.unpack_from(self._rest, at)
            if length > ITEM_MAX:
                _fail(f"it has an item of {length} bytes")
            begin = at + _HEAD.size
            if len(self._rest) - begin < length:
                break
            at = begin + length
            body = bytes(memoryview(self._rest)[begin:at])
            try:
                if kind == PackItem.END:
                    self._end(body)
                else:
                    self._take(kind, body)
            except struct.error:
                _fail(f"it has an item of kind {kind} with {length} bytes")
            self._count += 1
        del self._rest[:at]
        if self.ended and self._rest:
            _fail("it goes on behind its end")

    def _end(self, body: bytes) -> None:
        if _OFFSET.unpack(body)[0] != self._count:
            _fail(f"it has {self._count} items, and should have another number")
        self._last()
        self.ended = True


class PackReader:
    """Reads a pack of files, and has them made."""

    def __init__(self, to: EntryMaker) -> None:
        self._items = _Items(self._take, self._last)
        self._to = to
        self._size: int | None = None  # of the file that is written
        self._xattrs: dict[bytes, bytes] = {}
        self._held = 0  # bytes of `_xattrs`

    @property
    def ended(self) -> bool:
        """Whether the end of the pack was there."""
        return self._items.ended

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises: RemoteProtocolError, and what the maker raises."""
        self._items.feed(data)

    def _take(self, kind: int, body: bytes) -> None:
        if kind == PackItem.DATA:
            self._data(body)
            return
        self._end_file()
        if kind == PackItem.XATTR:
            self._xattr(body)
            return
        if kind in {PackItem.DIRECTORY, PackItem.LINK}:
            self._no_xattrs()
        match kind:
            case PackItem.DIRECTORY:
                self._to.directory(_path(body))
            case PackItem.LINK:
                path, first = _divided(body)
                self._to.link(_path(path), _path(first))
            case PackItem.FILE:
                path, entry = self._described(body)
                if not stat.S_ISREG(entry.mode) or entry.target is not None:
                    _fail("it has a file with the attributes of something else")
                self._size = entry.size
                self._to.file(_path(path), entry)
            case PackItem.SPECIAL:
                path, entry = self._described(body)
                if stat.S_IFMT(entry.mode) not in DEVICES and entry.target is None:
                    _fail("it has a file of an unknown kind")
                self._to.special(_path(path), entry)
            case PackItem.DESCRIBE:
                path, entry = self._described(body)
                if not stat.S_ISDIR(entry.mode) or entry.target is not None:
                    _fail("it has a directory with the attributes of something else")
                self._to.describe(_path(path) if path else b"", entry)
            case _:
                _fail(f"it has an item of kind {kind}")

    def _last(self) -> None:
        self._end_file()
        self._no_xattrs()

    def _data(self, body: bytes) -> None:
        if self._size is None:
            _fail("it has contents of no file")
        offset, data = _OFFSET.unpack_from(body)[0], memoryview(body)[_OFFSET.size :]
        if offset + len(data) > self._size:
            _fail("it has contents behind the end of a file")
        self._to.data(offset, data)

    def _end_file(self) -> None:
        if self._size is not None:
            self._size = None
            self._to.end_file()

    def _xattr(self, body: bytes) -> None:
        name, value = _divided(body)
        self._held += len(name) + len(value)
        if name in self._xattrs or self._held > XATTRS_MAX:
            _fail("it has an extended attribute twice, or too many of them")
        self._xattrs[name] = value

    def _no_xattrs(self) -> None:
        if self._xattrs:
            _fail("it has extended attributes of no file")

    def _described(self, body: bytes) -> tuple[bytes, Entry]:
        mode, size, uid, gid, *rest = _FACTS.unpack_from(body)
        path, target = _divided(body[_FACTS.size :])
        atime, mtime, (has_device, *device) = Time(*rest[:2]), Time(*rest[2:4]), rest[4:]
        if size >= limits.OFFSET_END or mode >> 16 or max(atime.nanoseconds, mtime.nanoseconds) >= _NANOSECONDS:
            _fail("it has a file with an impossible size, mode or time")
        if stat.S_ISLNK(mode) != bool(target) or b"\0" in target or len(target) > _TARGET_MAX:
            _fail("it has a symlink with an impossible target")
        xattrs, self._xattrs, self._held = self._xattrs, {}, 0
        return path, Entry(
            mode=mode,
            size=size,
            uid=uid,
            gid=gid,
            atime=atime,
            mtime=mtime,
            device=(device[0], device[1]) if has_device else None,
            target=target or None,
            xattrs=xattrs,
        )


class VolumeReader:
    """Reads the pack of a volume, and has its image made. `size`: bytes, None: it is not known yet."""

    def __init__(self, to: VolumeMaker) -> None:
        self._items = _Items(self._take, self._last)
        self._to = to
        self.size: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the end of the pack was there."""
        return self._items.ended

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises: RemoteProtocolError, and what the maker raises."""
        self._items.feed(data)

    def _take(self, kind: int, body: bytes) -> None:
        if kind == PackItem.VOLUME and self.size is None:
            self.size = _OFFSET.unpack(body)[0]
            if self.size >= limits.OFFSET_END:
                _fail("it has a volume of an impossible size")
            self._to.volume(self.size)
        elif kind == PackItem.DATA and self.size is not None:
            offset, data = _OFFSET.unpack_from(body)[0], memoryview(body)[_OFFSET.size :]
            if offset + len(data) > self.size:
                _fail("it has contents behind the end of the volume")
            self._to.data(offset, data)
        else:
            _fail(f"it has an item of kind {kind} in a volume")

    def _last(self) -> None:
        if self.size is None:
            _fail("it has no volume")


def _bounded(path: bytes) -> bytes:
    if len(path) > PATH_END:
        msg = f"has a path of more than {PATH_END >> 10} KiB"
        raise ValueError(msg)
    return path


def _divided(body: bytes) -> tuple[bytes, bytes]:
    """Return the two parts of what begins with the length of the first."""
    length = _LENGTH.unpack_from(body)[0]
    if length > len(body) - _LENGTH.size:
        _fail("it has an item that is shorter than it says")
    return body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]


def _path(path: bytes) -> bytes:
    """Check a path. Raises: RemoteProtocolError for one that could lead elsewhere, or nowhere."""
    if len(path) > PATH_END or b"\0" in path or not {b"", b".", b".."}.isdisjoint(path.split(b"/")):
        _fail("it has an impossible path")
    return path


def _fail(why: str) -> NoReturn:
    msg = f"what the receiver sends is no pack of files: {why}"
    raise RemoteProtocolError(msg)
