"""First pass over a stream: its directories, and the attributes of its files. Contents come in a second pass.

    for each in read_tree(ObjectReader(...)):
        match each:
            case Root(), Node(), DirectoryEntry(), StaleEntries(), NameSalt(), XattrContent(), VolumeSize(): ...

It yields what it finds in the order of the stream: by object numbers, not by directories. What it holds does not grow
with the number of files. Which files a directory has is known when all of it was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fullsend_protocol.dataset.nodes import Node, node
from fullsend_protocol.dataset.system_attributes import AttributeTables
from fullsend_protocol.dataset.zap import ZapEntry, ZapReader
from fullsend_protocol.shared.limits import MIB, OFFSET_END
from fullsend_protocol.stream.records import RecordType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_protocol.dataset.objects import ObjectHead, ObjectReader

#: Types of objects (include/sys/dmu.h, DMU_OT_*).
_ZNODE: Final = 17
_FILE: Final = 19
_DIRECTORY: Final = 20
_MASTER: Final = 21
_VOLUME_PROPERTIES: Final = 24
_SA: Final = 44
_SA_MASTER: Final = 45
_SA_REGISTRY: Final = 46
_SA_LAYOUTS: Final = 47
_TABLES: Final = frozenset({_MASTER, _VOLUME_PROPERTIES, _SA_MASTER, _SA_REGISTRY, _SA_LAYOUTS})
#: Entries of one of these. OpenZFS writes some dozens; layouts grow with the kinds of files.
_TABLE_MAX: Final = 1 << 14
#: MASTER_NODE_OBJ (include/sys/zfs_znode.h).
_MASTER_NUMBER: Final = 1
#: ZPL_VERSION_SA: from here on attributes are system attributes.
_VERSION_MIN: Final = 5
#: The type in a directory's entry stands in the highest 4 bits, the object in the lowest 48 (ZFS_DIRENT_*).
_TYPE_SHIFT: Final = 60
_OBJECT_MASK: Final = (1 << 48) - 1
#: XATTR_SIZE_MAX of Linux: the longest value of an extended attribute.
XATTR_MAX: Final = 64 << 10
#: Attributes that came before the tables that describe them. A dataset has the tables among its first objects.
_HELD_MAX: Final = 64 * MIB
_HELD_OVERHEAD: Final = 256


@dataclass(frozen=True, slots=True)
class Root:
    """The number of the root directory."""

    number: int


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in a directory. `child`: the number of its object; `block`: of the directory, for StaleEntries."""

    directory: int
    name: bytes
    child: int
    block: int


@dataclass(frozen=True, slots=True)
class StaleEntries:
    """The entries of this block of a directory, all yielded before, are not part of it."""

    directory: int
    block: int


@dataclass(frozen=True, slots=True)
class NameSalt:
    """The salt of a directory, of 64 bits: with `name_order`, the order in which OpenZFS goes through its names."""

    directory: int
    salt: int


@dataclass(frozen=True, slots=True)
class XattrContent:
    """The value of an extended attribute that is a file: its name is in the directory of its file's attributes."""

    number: int
    value: bytes


@dataclass(frozen=True, slots=True)
class VolumeSize:
    """The size of a volume, in bytes."""

    size: int


TreePart = Root | Node | DirectoryEntry | StaleEntries | NameSalt | XattrContent | VolumeSize


def read_tree(reader: ObjectReader) -> Iterator[TreePart]:
    """Read a whole stream. Yields: what it finds. All of it counts only when the stream has ended and is proven.

    Raises: StreamError.
    """
    yield from _Tree(reader).run()


@dataclass(slots=True)
class _Object:
    """The current object, or one that waits for the tables."""

    head: ObjectHead
    zap: ZapReader | None = None
    entries: list[ZapEntry] = field(default_factory=list)
    spill: bytes = b""
    value: bytearray | None = None  # of an extended attribute, as far as it came


class _Tree:
    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._current: _Object | None = None
        self._parts: dict[int, list[ZapEntry]] = {}  # the registry and the layouts, until both are there
        self._tables: AttributeTables | None = None
        self._held: list[_Object] = []
        self._held_bytes = 0
        self._root = False
        self._volume = False

    def run(self) -> Iterator[TreePart]:
        reader = self._reader
        for kind in reader.records():
            if kind == RecordType.OBJECT:
                yield from self._close()
                self._open(reader.head())
            elif kind == RecordType.WRITE:
                yield from self._block()
            elif self._current is not None:
                self._current.spill = reader.spill()
        yield from self._close()
        if self._held:
            reader.fail("has no tables of attributes")
        if reader.is_volume and not self._volume:
            reader.fail("does not say how large its volume is")
        if not reader.is_volume and not self._root:
            reader.fail("has no root directory")

    def _open(self, head: ObjectHead) -> None:
        self._current = current = _Object(head)
        if head.type in _TABLES or head.type == _DIRECTORY:
            current.zap = ZapReader(f"{self._reader.name}: object {head.number}", head.block_size)
        elif _ZNODE in {head.bonus_type, head.type}:
            self._reader.refuse("is of a file system of ZPL version 4 or older")
        elif head.type == _FILE and head.bonus_type == _SA and self._may_be_xattr(head):
            current.value = bytearray()

    def _may_be_xattr(self, head: ObjectHead) -> bool:
        """Whether an object is an extended attribute, as far as it is known without its spill block."""
        if self._tables is None:
            return True
        found = self._tables.decode(head.number, head.bonus)
        return bool(int.from_bytes(found.get("ZPL_FLAGS", b""), "little") & 1)

    def _block(self) -> Iterator[TreePart]:
        current = self._current
        if current is None:
            return
        if current.zap is not None:
            block = self._reader.block()
            for each in current.zap.take(block.offset, block.data):
                if current.head.type == _DIRECTORY:
                    yield self._entry(current.head.number, each)
                elif len(current.entries) >= _TABLE_MAX:
                    self._reader.fail(f"has more than {_TABLE_MAX} names in object {current.head.number}")
                else:
                    current.entries.append(each)
        elif current.value is not None:
            block = self._reader.block()
            end = block.offset + len(block.data)
            if block.offset >= XATTR_MAX:
                return
            current.value += bytes(min(block.offset, XATTR_MAX) - len(current.value))
            current.value += block.data[: min(end, XATTR_MAX) - block.offset]

    def _entry(self, directory: int, entry: ZapEntry) -> DirectoryEntry:
        name = entry.name
        if len(entry.integers) != 1 or name in {b".", b".."} or b"/" in name:
            self._reader.fail(f"has an impossible name in directory {directory}: {name!r}")
        return DirectoryEntry(directory, name, entry.integers[0] & _OBJECT_MASK, entry.block)

    def _close(self) -> Iterator[TreePart]:
        """End the current object."""
        current, self._current = self._current, None
        if current is None:
            return
        head = current.head
        if current.zap is not None:
            for block in current.zap.finish():
                if head.type == _DIRECTORY:
                    yield StaleEntries(head.number, block)
                current.entries = [each for each in current.entries if each.block != block]
            if head.type == _DIRECTORY and current.zap.salt is not None:
                yield NameSalt(head.number, current.zap.salt)
            yield from self._table(current)
        if head.has_spill and not current.spill:
            self._reader.fail(f"lacks the spill block of object {head.number}")
        if head.bonus_type == _SA and head.type in {_FILE, _DIRECTORY}:
            yield from self._node(current)

    def _table(self, current: _Object) -> Iterator[TreePart]:
        head = current.head
        if head.type == _MASTER and head.number == _MASTER_NUMBER:
            named = {each.name: each.integers[0] for each in current.entries if len(each.integers) == 1}
            if named.get(b"VERSION", 0) < _VERSION_MIN:
                self._reader.refuse(f"is of a file system of ZPL version {named.get(b'VERSION', 0)}")
            if b"ROOT" not in named:
                self._reader.fail("has no root directory")
            self._root = True
            yield Root(named[b"ROOT"])
        elif head.type == _VOLUME_PROPERTIES:
            for each in current.entries:
                if each.name == b"size" and len(each.integers) == 1:
                    if each.integers[0] >= OFFSET_END:
                        self._reader.fail(f"has a volume of the impossible size {each.integers[0]}")
                    self._volume = True
                    yield VolumeSize(each.integers[0])
        elif head.type in {_SA_REGISTRY, _SA_LAYOUTS}:
            self._parts[head.type] = current.entries
            if len(self._parts) == 2 and self._tables is None:  # noqa: PLR2004 - both
                self._tables = AttributeTables(self._parts[_SA_REGISTRY], self._parts[_SA_LAYOUTS])
                held, self._held = self._held, []
                for waiting in held:
                    yield from self._node(waiting)

    def _node(self, current: _Object) -> Iterator[TreePart]:
        head = current.head
        if self._tables is None:
            self._held.append(current)
            size = len(head.bonus) + len(current.spill) + len(current.value or b"")
            self._held_bytes += size + _HELD_OVERHEAD
            if self._held_bytes > _HELD_MAX:
                self._reader.refuse("has its tables of attributes too far behind its first files")
            return
        found = self._tables.decode(head.number, head.bonus)
        if current.spill:
            found |= self._tables.decode(head.number, current.spill)
        made = node(head.number, found)
        yield made
        if made.is_xattr and made.is_file and current.value is not None and made.size <= XATTR_MAX:
            value = bytes(current.value[: made.size])
            yield XattrContent(head.number, value + bytes(made.size - len(value)))
