"""What has changed between two snapshots of a file system, as `zfs diff` says it.

It follows OpenZFS (lib/libzfs/libzfs_diff.c, write_inuse_diffs_one and describe_free), in what it leaves out, too:
objects are compared by their numbers. One with the same generation has changed if its ctime has. Contents are not
compared. What it takes in memory does not grow with the number of files.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from fullsend_protocol.shared.errors import FullsendError
from fullsend_receiver.files.index import NoSuchFile
from fullsend_receiver.files.object_paths import ObjectPaths, is_deleted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_protocol.dataset.nodes import Node
    from fullsend_receiver.files.index import FileIndex

#: What stands for the path of an object that has no name, because it waits for its deletion.
DELETED: Final = b"(on_delete_queue)"


class NotComparable(FullsendError):  # noqa: N818 - reads as what it says
    """Two snapshots are not of one file system."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of `zfs diff`. `kind`: `+` created, `-` removed, `M` changed, `R` renamed; `node`: as it is after the
    change, of what was removed as it was before; `path`: from the root, which is `/`, or DELETED; `new_path`: with `R`;
    `links`: how many names more it has, with `M`, 0: as many, or it is a directory.
    """

    kind: Literal["+", "-", "M", "R"]
    node: Node
    path: bytes
    new_path: bytes | None = None
    links: int = 0


def changes(old: FileIndex, new: FileIndex) -> Iterator[Change]:
    """Yield what has changed, by the numbers of objects. Raises: NoSuchFile for volumes, NotComparable, StreamError,
    IndexDamaged, OSError.
    """
    for index in (old, new):
        if index.volume_size is not None:
            msg = f"{index.name} is a volume, and has no files to compare"
            raise NoSuchFile(msg)
    if _origin(old.root) != _origin(new.root):
        msg = f"{old.name} and {new.name} are not of one file system: their root directories were made separately"
        raise NotComparable(msg)
    for index in (old, new):
        index.check_whole()  # what one of them lacked would be a change
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(contextlib.closing(ObjectPaths(index))) for index in (old, new)]
        found = stack.enter_context(contextlib.closing(sqlite3.connect("", isolation_level=None)))
        found.executescript("CREATE TABLE found(number INTEGER PRIMARY KEY); BEGIN")
        for before, after in _differing(old, new):
            for node, side in zip((before, after), paths, strict=True):
                if node is not None:
                    side.want(node)
            number = (before or after or old.root).number
            found.execute("INSERT INTO found VALUES (?)", (number,))
        for side in paths:
            side.load()
        for (number,) in found.execute("SELECT number FROM found ORDER BY number"):
            yield from _change(old.node(number), new.node(number), *paths)


def _origin(root: Node) -> tuple[int, int, int]:
    """What the root directory has in all snapshots of a file system, and of its clones and copies, and in no other."""
    return root.number, root.generation, root.created.total


def _differing(old: FileIndex, new: FileIndex) -> Iterator[tuple[Node | None, Node | None]]:
    """Yield the objects that differ in what is compared. Both come in order: a merge, like that of two sorted lists."""
    before, after = old.rows(), new.rows()
    here, there = next(before, None), next(after, None)
    while here is not None or there is not None:
        if here == there:
            here, there = next(before, None), next(after, None)
            continue
        number = min(row[0] for row in (here, there) if row is not None)
        was, here = _taken(old, before, here, number)
        is_, there = _taken(new, after, there, number)
        if was is None or is_ is None or _compared(was) != _compared(is_):
            yield was, is_


def _taken(
    index: FileIndex, rows: Iterator[tuple[Any, ...]], row: tuple[Any, ...] | None, number: int
) -> tuple[Node | None, tuple[Any, ...] | None]:
    """Take the row if it has this number. Returns: its node, and the next row."""
    if row is None or row[0] != number:
        return None, row
    return index.node_of(row), next(rows, None)


def _compared(node: Node) -> tuple[object, ...]:
    """What decides whether there is a line."""
    return node.mode, node.generation, node.ctime, node.links, node.parent


def _change(was: Node | None, is_: Node | None, old: ObjectPaths, new: ObjectPaths) -> Iterator[Change]:
    """Yield the lines of one object."""
    old_path = None if was is None else _path(was, old)
    new_path = None if is_ is None else _path(is_, new)
    if is_ is None:
        if was is not None and old_path not in {None, DELETED}:
            yield Change("-", was, old_path or b"")
        return
    links = _more_links(was, is_)
    if was is None or old_path is None:
        if new_path is not None:
            yield Change("M" if links else "+", is_, new_path, links=links)
    elif new_path is None:
        yield Change("M" if links else "-", was, old_path, links=links)
    elif was.generation != is_.generation or stat.S_IFMT(was.mode) != stat.S_IFMT(is_.mode):
        yield Change("-", was, old_path)
        yield Change("+", is_, new_path)
    elif was.ctime == is_.ctime:
        return
    elif links:
        yield Change("M", is_, old_path if links > 0 else new_path, links=links)
    elif old_path == new_path:
        yield Change("M", is_, old_path)
    else:
        yield Change("R", is_, old_path, new_path)


def _path(node: Node, paths: ObjectPaths) -> bytes | None:
    return DELETED if is_deleted(node) else paths.path(node)


def _more_links(was: Node | None, is_: Node) -> int:
    if was is None or was.is_directory or is_.is_directory or not was.links or not is_.links:
        return 0
    return is_.links - was.links
