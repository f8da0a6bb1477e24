"""What is to be taken out of a snapshot: paths, kept in a database, so that a million of them take no memory."""

from __future__ import annotations

import fnmatch
import os
import re
import sqlite3
import weakref
from typing import TYPE_CHECKING

from fullsend_receiver.files.index import components

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fullsend_protocol.dataset.nodes import Node
    from fullsend_receiver.files.index import FileIndex

_SCHEMA = """
CREATE TABLE chosen(path BLOB PRIMARY KEY, number INTEGER, kind INTEGER) WITHOUT ROWID;
CREATE INDEX by_number ON chosen(number);
"""
_DIRECTORY, _FILE, _OTHER = range(3)


def matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Return whether the last name of a path fits one of the patterns, such as `*.txt`; without any, all fit."""
    if not patterns:
        return lambda _path: True
    found = re.compile("|".join(fnmatch.translate(each) for each in patterns)).match
    return lambda path: found(os.fsdecode(path.rpartition(b"/")[2])) is not None


class FileChoice:
    """The chosen paths of one index. As a container, it has the numbers of the chosen regular files.

    `is_whole`: whether the root itself was chosen. Its database is closed at the latest when nothing refers to it any
    more.
    """

    def __init__(self, index: FileIndex) -> None:
        self.index = index
        # Whatever thread finds it unused closes it.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._database.executescript(_SCHEMA)
        self._last: tuple[int, bool] = (0, False)
        self.is_whole = False

    def close(self) -> None:
        """Drop the database."""
        self._database.close()

    def add(self, path: bytes, fits: Callable[[bytes], bool]) -> int:
        """Choose a path and all below it, as far as it fits, with the directories above. Returns: how many fit.

        Raises: NoSuchFile, StreamError.
        """
        index, names = self.index, components(path)
        top = index.lookup(path)
        here = b"/".join(names)
        found = 0
        self._database.execute("BEGIN")
        if fits(here):
            found += 1
            self.is_whole = self.is_whole or not here
            self._with_parents(here, top)
        if top.is_directory:
            for inside, node in index.walk(here, top):
                if fits(inside):
                    found += 1
                    self._with_parents(inside, node)
        self._database.execute("COMMIT")
        return found

    def _with_parents(self, path: bytes, node: Node) -> None:
        if not self._put(path, node):
            return
        folder = path
        while folder:
            folder = folder.rpartition(b"/")[0]
            if not self._put(folder, self.index.lookup(folder)):
                return

    def _put(self, path: bytes, node: Node) -> bool:
        """Returns: whether it was not there."""
        kind = _DIRECTORY if node.is_directory else _FILE if node.is_file else _OTHER
        done = self._database.execute("INSERT OR IGNORE INTO chosen VALUES (?, ?, ?)", (path, node.number, kind))
        return done.rowcount > 0

    def directories(self, *, deepest_first: bool = False) -> Iterator[tuple[bytes, Node]]:
        """Yield the directories, each before what it has, or behind that. The root's path is empty."""
        order = "DESC" if deepest_first else "ASC"
        rows = self._database.execute(
            f"SELECT path, number FROM chosen WHERE kind = ? ORDER BY path {order}",  # noqa: S608 - a constant
            (_DIRECTORY,),
        )
        for path, number in rows:
            yield path, self._need(path, number)

    def others(self) -> Iterator[tuple[Node, list[bytes]]]:
        """Yield what is no directory, by object numbers: each with all its chosen paths, which are hard links."""
        rows = self._database.execute(
            "SELECT path, number FROM chosen WHERE kind != ? ORDER BY number, path", (_DIRECTORY,)
        )
        paths: list[bytes] = []
        last = 0
        for path, number in rows:
            if paths and number != last:
                yield self._need(paths[0], last), paths
                paths = []
            last = number
            paths.append(path)
        if paths:
            yield self._need(paths[0], last), paths

    def __contains__(self, number: object) -> bool:
        """Whether this is the number of a chosen regular file."""
        if self._last[0] != number:
            row = self._database.execute(
                "SELECT 1 FROM chosen WHERE number = ? AND kind = ? LIMIT 1", (number, _FILE)
            ).fetchone()
            self._last = int(str(number)), row is not None
        return self._last[1]

    def _need(self, path: bytes, number: int) -> Node:
        return self.index.node(number) or self.index.lookup(path)
