"""The paths of some objects of a snapshot, found as OpenZFS finds them: from each object to its parent.

That is what `zfs diff` prints (module/zfs/zfs_znode.c, zfs_obj_to_path_impl). An object with several names has one
path: its first name in the directory that its attributes name as its parent. It has none if that directory does not
have it any more. An object waits for its deletion if it has no links.
"""

from __future__ import annotations

import sqlite3
import stat
import weakref
from typing import TYPE_CHECKING, Final

from fullsend_protocol.dataset.zap import name_order
from fullsend_protocol.shared.errors import DamagedStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_protocol.dataset.nodes import Node
    from fullsend_receiver.files.index import FileIndex

#: What stands for the name of a directory of extended attributes.
XATTR_DIRECTORY: Final = b"<xattrdir>"
#: Steps from an object to its root: a path of more is longer than any that Linux opens.
_DEPTH_MAX: Final = 4096
#: Directories whose paths are held, so that most of their files need one step.
_HELD_MAX: Final = 1024

_SCHEMA: Final = """
CREATE TABLE place(object INTEGER PRIMARY KEY, parent INTEGER, kind INTEGER, name BLOB, rank INTEGER);
"""
_ROOT, _NAMED, _XATTR_DIRECTORY, _LOST = range(4)


class ObjectPaths:
    """The paths of objects of one index: first `want` all of them, then `load`, then `path`.

    They are kept in a temporary database, so that any number takes no memory. It is closed at the latest when nothing
    refers to the object any more.
    """

    def __init__(self, index: FileIndex) -> None:
        self._index = index
        # Whatever thread finds it unused closes it.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._database.executescript(_SCHEMA)
        self._database.execute("BEGIN")
        self._held: dict[int, bytes] = {}
        self._last: Node | None = None  # the last parent

    def close(self) -> None:
        """Drop the database."""
        self._database.close()

    def want(self, node: Node) -> None:
        """Want the path of an object, so those of all directories above it. Raises: IndexDamaged."""
        here: Node | None = node
        while here is not None and self._row(here.number) is None:
            above = None if here.parent == here.number else self._parent(here.parent)
            if here.parent == here.number:
                kind = _ROOT
            elif above is not None and here.is_xattr and here.is_directory:
                kind = _XATTR_DIRECTORY
            elif above is not None and above.is_directory:
                kind = _NAMED
            else:
                kind = _LOST
            row = here.number, 0 if kind == _LOST else here.parent, kind
            self._database.execute("INSERT INTO place VALUES (?, ?, ?, NULL, NULL)", row)
            here = above

    def _parent(self, number: int) -> Node | None:
        if self._last is None or self._last.number != number:
            self._last = self._index.node(number)
        return self._last

    def load(self) -> None:
        """Find the names. Raises: IndexDamaged, OSError."""
        wanted: Iterator[tuple[int, int]] = self._database.execute(
            "SELECT object, parent FROM place WHERE kind = ?", (_NAMED,)
        )
        salts: tuple[int, int | None] = (0, None)
        for number, directory, name in self._index.names(wanted):
            if salts[0] != directory:
                salts = directory, self._index.salt(directory)
            salt = salts[1]
            rank = 0 if salt is None else name_order(name, salt)
            self._database.execute(
                "UPDATE place SET name = ?1, rank = ?2 WHERE object = ?3 AND (name IS NULL OR (?2, ?1) < (rank, name))",
                (name, rank, number),
            )

    def path(self, node: Node) -> bytes | None:
        """Return the path of a wanted object from the root, which is `/`; None: it has none. Raises: DamagedStream."""
        return self._path(node.number)

    def _path(self, number: int) -> bytes | None:
        names: list[bytes] = []
        above: bytes | None = b""
        here = number
        while True:
            if here in self._held:
                above = self._held[here]
                break
            parent, kind, name = self._row(here) or (0, _LOST, None)
            if kind == _ROOT:
                break
            if kind == _XATTR_DIRECTORY:
                name = XATTR_DIRECTORY
            if kind == _LOST or name is None:
                above = None
                break
            names.append(name)
            if len(names) > _DEPTH_MAX:
                msg = f"{self._index.name} has object {number} more than {_DEPTH_MAX} directories deep: it is damaged"
                raise DamagedStream(msg)
            here = parent
        if above is None:
            return None
        if not names:
            return above or b"/"
        above += b"".join(b"/" + each for each in reversed(names[1:]))
        row = self._row(number)
        if row is not None:
            if len(self._held) >= _HELD_MAX:
                self._held.clear()
            self._held[row[0]] = above  # of its parent
        return above + b"/" + names[0]

    def _row(self, number: int) -> tuple[int, int, bytes | None] | None:
        found: tuple[int, int, bytes | None] | None = self._database.execute(
            "SELECT parent, kind, name FROM place WHERE object = ?", (number,)
        ).fetchone()
        return found


def is_deleted(node: Node) -> bool:
    """Whether an object waits for its deletion: somebody has it open, but no directory has it."""
    return node.links == 0


def letter(mode: int) -> str:
    """Return the letter of a type of file, as `zfs diff -F` prints it."""
    return _LETTERS.get(stat.S_IFMT(mode), "?")


_LETTERS: Final = {
    stat.S_IFBLK: "B",
    stat.S_IFCHR: "C",
    stat.S_IFDIR: "/",
    stat.S_IFIFO: "|",
    stat.S_IFLNK: "@",
    stat.S_IFSOCK: "=",
    stat.S_IFREG: "F",
}
