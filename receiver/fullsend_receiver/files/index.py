"""The index of a snapshot: its directories and the attributes of its files, in an SQLite database.

It is made from the first pass over the stream, and only from a pass that was proven to its end. It grows with the
number of files, the memory that it takes does not.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import weakref
import zlib
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fullsend_protocol.dataset import xattrs
from fullsend_protocol.dataset.entry import shown
from fullsend_protocol.dataset.nodes import Node, Time
from fullsend_protocol.dataset.tree import (
    DirectoryEntry,
    NameSalt,
    Root,
    StaleEntries,
    VolumeSize,
    XattrContent,
    read_tree,
)
from fullsend_protocol.shared.errors import DamagedStream, FullsendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from fullsend_protocol.dataset.objects import ObjectReader

#: Another number for another form: an index of an older form is made anew.
FORM: Final = 4
#: Rows that are written at a time.
_BATCH: Final = 4096
#: No object has such a number (DN_MAX_OBJECT is 2^48).
_NUMBER_END: Final = 1 << 48
#: Components of a path: no file system under Linux opens longer paths than 4096 bytes at once.
_DEPTH_MAX: Final = 2048
#: size, uid, gid, links, parent, generation, flags, xattr directory; four times; device, project, which of them are.
_FIXED: Final = struct.Struct("<8Q qQqQqQqQ QQB")
_HAS_DEVICE: Final = 1
_HAS_PROJECT: Final = 2
_SALT_BYTES: Final = 8

_SCHEMA: Final = """
CREATE TABLE fact(name TEXT PRIMARY KEY, value INTEGER, crc INTEGER);
CREATE TABLE node(number INTEGER PRIMARY KEY, mode INTEGER, fixed BLOB, target BLOB, xattrs BLOB, acl BLOB,
                  crc INTEGER);
CREATE TABLE entry(directory INTEGER, name BLOB, child INTEGER, block INTEGER, crc INTEGER,
                   PRIMARY KEY(directory, name, block)) WITHOUT ROWID;
CREATE TABLE folder(number INTEGER PRIMARY KEY, entries INTEGER, crcs INTEGER);
CREATE TABLE salt(directory INTEGER PRIMARY KEY, value BLOB, crc INTEGER);
CREATE TABLE content(number INTEGER PRIMARY KEY, value BLOB, crc INTEGER);
CREATE TEMP TABLE stale(directory INTEGER, block INTEGER, PRIMARY KEY(directory, block)) WITHOUT ROWID;
"""
#: Of these tables the number of rows, and the sum of their checksums, are facts.
_TOTALS: Final = {
    table: f"SELECT count(*), coalesce(sum(crc), 0) FROM {table}"  # noqa: S608 - a constant
    for table in ("node", "entry", "salt", "content")
}
_DIRECTORY: Final = "mode & 61440 = 16384"  # S_ISDIR


class NoSuchFile(FullsendError):  # noqa: N818 - reads as a noun
    """A path names nothing in a snapshot."""


class IndexDamaged(FullsendError):  # noqa: N818 - reads as what it says
    """A kept index is not as it was written. SQLite has no checksums of its own, so each row has one, and each
    directory has the number and the sum of those of its entries: a page that leads to none, or to others, shows.
    `check_whole` compares those of whole tables.
    """


class FileIndex:
    """The index of one snapshot. `name`: of the snapshot, for errors. Its database is closed at the latest when nothing
    refers to the index any more. A kept one that proves to be damaged removes its file.
    """

    def __init__(self, database: sqlite3.Connection, name: str, path: Path | None = None) -> None:
        """Take a finished database. `path`: of its file; None: it is not kept. See `build` and `opened`."""
        self.name = name
        self._database = database
        self._path = path
        weakref.finalize(self, database.close)

    @classmethod
    def build(cls, reader: ObjectReader, path: Path | None) -> FileIndex:
        """Read a whole stream. `path`: of a new database; None: a temporary one, on disk where it is large.

        Raises: StreamError, OSError. Then the database is worthless.
        """
        # Whatever thread finds it unused closes it.
        database = sqlite3.connect("" if path is None else path, isolation_level=None, check_same_thread=False)
        try:
            database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;")
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            _Builder(database, reader).run()
            database.execute("COMMIT")
        except sqlite3.Error as error:
            database.close()
            msg = f"the index of {reader.name} cannot be written: {error}"
            raise OSError(msg) from None
        except BaseException:
            database.close()
            raise
        return cls(database, reader.name)

    @classmethod
    def opened(cls, path: Path, name: str) -> FileIndex | None:
        """Open an index that was kept. Returns: None if there is none, or it cannot be used."""
        if not path.is_file():
            return None
        with contextlib.suppress(sqlite3.Error):
            place = f"{path.absolute().as_uri()}?mode=ro"
            database = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
            found = cls(database, name, path)
            with contextlib.suppress(IndexDamaged):
                if found._fact("form") == FORM:
                    return found
            database.close()
        return None

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def check_whole(self) -> None:
        """Compare all of it, for who must know that nothing is lacking: that each key is where it is looked for, and
        the number and the sum of the rows of each table. A million files take about a second. Raises: IndexDamaged.
        """
        for (said,) in self._rows("PRAGMA quick_check(1)"):
            if said != "ok":
                self._spoilt(str(said))
        totals = {}
        for table, query in _TOTALS.items():
            totals[table] = next(self._rows(query), None)
            if totals[table] != (self._fact(f"rows of {table}"), self._fact(f"crcs of {table}")):
                self._spoilt(f"rows are lost of the table {table}")
        folders = "SELECT coalesce(sum(entries), 0), coalesce(sum(crcs), 0) FROM folder"
        if next(self._rows(folders), None) != totals["entry"]:
            self._spoilt("a directory has lost entries")

    @property
    def volume_size(self) -> int | None:
        """The size of a volume, in bytes; None: it is a file system."""
        return self._fact("volume")

    @property
    def root(self) -> Node:
        """The root directory. Raises: NoSuchFile, of a volume."""
        number = self._fact("root")
        if number is None:
            msg = f"{self.name} is a volume, and has no files: `get --volume FILE` writes its image"
            raise NoSuchFile(msg)
        return self._need(number)

    def node(self, number: int) -> Node | None:
        """Return an object; None: it is not there, or has no attributes."""
        if not 0 < number < _NUMBER_END:
            return None
        row = next(self._rows("SELECT * FROM node WHERE number = ?", number), None)
        return None if row is None else self._node(row)

    def lookup(self, path: bytes) -> Node:
        """Return what a path names; symlinks on the way are not followed. Raises: NoSuchFile."""
        here = self.root
        for name in components(path):
            row = None
            if here.is_directory:
                query = "SELECT child, crc FROM entry WHERE directory = ? AND name = ?"
                row = next(self._rows(query, here.number, name), None)
            if row is None:
                if any(each[0] == name for each in self._entries(here.number)):
                    self._spoilt("a name is not where it should be")
                msg = f"{shown(path)}: no such file in {self.name}"
                raise NoSuchFile(msg)
            self._compare(row[1], here.number, name, row[0])
            here = self._need(row[0])
        return here

    def children(self, directory: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield what a directory has, in the order of the names' bytes."""
        columns, join = "name, child, entry.crc, node.*", "LEFT JOIN node ON child = number"
        for name, _child, _crc, *row in self._entries(directory.number, columns, join):
            yield name, self._node(row)

    def walk(self, path: bytes, top: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield all below `top`, whose path is given, each directory before what it has. Raises: DamagedStream."""
        waiting = [(path, self.children(top))]
        while waiting:
            folder, rows = waiting[-1]
            found = next(rows, None)
            if found is None:
                waiting.pop()
                continue
            inside = joined(folder, found[0])
            yield inside, found[1]
            if found[1].is_directory:
                if len(waiting) >= _DEPTH_MAX:
                    _damaged(self.name, f"has directories nested more than {_DEPTH_MAX} deep")
                waiting.append((inside, self.children(found[1])))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield all objects in the order of their numbers, each as a row that begins with the number. Two that are
        equal are the same in all attributes; `node_of` checks one, and makes a node of it.
        """
        yield from self._rows("SELECT * FROM node ORDER BY number")

    def node_of(self, row: Sequence[Any]) -> Node:
        """Return the node of one of `rows`. Raises: IndexDamaged."""
        return self._node(row)

    def names(self, wanted: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, bytes]]:
        """Yield the names that objects have in certain directories, with the numbers of both: a pass over all names.

        `wanted`: numbers of objects, each once, with that of the directory. Raises: OSError, IndexDamaged.
        """
        try:
            self._database.execute("DROP TABLE IF EXISTS temp.wanted")
            self._database.execute("CREATE TEMP TABLE wanted(object INTEGER PRIMARY KEY, place INTEGER)")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO wanted VALUES (?, ?)", wanted)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            msg = f"a temporary table for {self.name} cannot be written: {error}"
            raise OSError(msg) from None
        # CROSS JOIN: from all names to what is wanted. From there to the names, a large directory is read for each.
        query = (
            "SELECT child, directory, name, entry.crc FROM entry CROSS JOIN wanted ON object = child"
            " AND place = directory"
        )
        for child, directory, name, crc in self._rows(query):
            self._compare(crc, directory, name, child)
            yield child, directory, name

    def salt(self, directory: int) -> int | None:
        """Return the salt of a directory (see NameSalt); None: it is not known. Raises: IndexDamaged."""
        row = next(self._rows("SELECT value, crc FROM salt WHERE directory = ?", directory), None)
        if row is None:
            return None
        self._compare(row[1], directory, row[0])
        return int.from_bytes(row[0], "little")

    def xattrs(self, node: Node) -> dict[bytes, bytes | None]:
        """Return the extended attributes of an object, of both kinds, by their names under Linux. None: the value is
        longer than any that Linux has. Raises: DamagedStream.
        """
        found: dict[bytes, bytes | None] = {}
        columns, join = "name, child, entry.crc, value, content.crc", "LEFT JOIN content ON child = number"
        directory = min(node.xattr_directory, _NUMBER_END)
        rows = self._entries(directory, columns, join) if node.xattr_directory else ()
        for name, child, _crc, value, value_crc in rows:
            if value is not None:
                self._compare(value_crc, child, value)
            found[xattrs.linux_name(name)] = value
        if node.packed_xattrs is not None:
            packed = xattrs.unpacked(node.packed_xattrs, f"object {node.number} of {self.name}")
            found |= {xattrs.linux_name(name): value for name, value in packed.items()}
        return found

    def _entries(
        self, directory: int, columns: str = "name, child, entry.crc", join: str = ""
    ) -> Iterator[tuple[Any, ...]]:
        """Yield columns of the entries of a directory, in the order of the names' bytes: first those that are the
        default. Raises: IndexDamaged, behind the last one if some are missing.
        """
        count = crcs = 0
        query = f"SELECT {columns} FROM entry {join} WHERE directory = ? ORDER BY name"  # noqa: S608 - constants
        for row in self._rows(query, directory):
            self._compare(row[2], directory, row[0], row[1])
            count, crcs = count + 1, crcs + row[2]
            yield row
        said = next(self._rows("SELECT entries, crcs FROM folder WHERE number = ?", directory), (0, 0))
        if said != (count, crcs):
            self._spoilt("a directory has lost entries")

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Raises: IndexDamaged."""
        try:
            yield from self._database.execute(query, values)
        except (sqlite3.Error, UnicodeError) as error:  # a name in the schema may not be UTF-8 any more
            self._spoilt(str(error))

    def _node(self, row: Sequence[Any]) -> Node:
        *values, crc = row
        self._compare(crc, *values)
        return _node(values)

    def _compare(self, crc: int | None, *values: object) -> None:
        """Compare a row with its checksum."""
        if crc != _checksum(*values):
            self._spoilt("a row has a wrong checksum")

    def _spoilt(self, why: str) -> NoReturn:
        advice = "run the same command again, which makes it anew"
        try:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        except OSError:
            advice = f"delete {self._path}, and {advice}"
        msg = f"the index of {self.name} is damaged ({why}): {advice}"
        raise IndexDamaged(msg)

    def _need(self, number: int) -> Node:
        found = self.node(number)
        if found is None:  # `_Builder` has checked that it was there
            self._spoilt("an object is missing")
        return found

    def _fact(self, name: str) -> int | None:
        row = next(self._rows("SELECT value, crc FROM fact WHERE name = ?", name), None)
        if row is None:
            return None
        self._compare(row[1], name, row[0])
        return int(row[0])


class _Builder:
    """Writes an index."""

    def __init__(self, database: sqlite3.Connection, reader: ObjectReader) -> None:
        self._database = database
        self._reader = reader
        self._nodes: list[tuple[object, ...]] = []
        self._entries: list[tuple[int, bytes, int, int, int]] = []

    def run(self) -> None:
        write = self._database.execute
        for each in read_tree(self._reader):
            match each:
                case Node():
                    self._nodes.append(_row(each))
                case DirectoryEntry():
                    crc = _checksum(each.directory, each.name, each.child)
                    self._entries.append((each.directory, each.name, each.child, each.block, crc))
                case XattrContent():
                    crc = _checksum(each.number, each.value)
                    write("INSERT INTO content VALUES (?, ?, ?)", (each.number, each.value, crc))
                case StaleEntries():
                    write("INSERT INTO stale VALUES (?, ?)", (each.directory, each.block))
                case NameSalt():
                    salt = each.salt.to_bytes(_SALT_BYTES, "little")
                    write("INSERT INTO salt VALUES (?, ?, ?)", (each.directory, salt, _checksum(each.directory, salt)))
                case Root():
                    self._fact("root", min(each.number, _NUMBER_END))
                case VolumeSize():
                    self._fact("volume", each.size)
            if len(self._nodes) + len(self._entries) >= _BATCH:
                self._flush()
        self._flush()
        write("DELETE FROM entry WHERE (directory, block) IN (SELECT directory, block FROM stale)")
        write("DROP TABLE stale")
        self._check()
        write("INSERT INTO folder SELECT directory, count(*), sum(crc) FROM entry GROUP BY directory")
        for table, query in _TOTALS.items():
            count, crcs = write(query).fetchone()
            self._fact(f"rows of {table}", count)
            self._fact(f"crcs of {table}", crcs)
        self._fact("form", FORM)

    def _fact(self, name: str, value: int) -> None:
        self._database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", (name, value, _checksum(name, value)))

    def _flush(self) -> None:
        try:
            self._database.executemany("INSERT INTO node VALUES (?, ?, ?, ?, ?, ?, ?)", self._nodes)
            self._database.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", self._entries)
        except sqlite3.IntegrityError:
            self._reader.fail("has the same name twice in a directory")
        self._nodes.clear()
        self._entries.clear()

    def _check(self) -> None:
        """Check that the directories are a tree: no name twice, nothing that is not there, and each directory once."""
        if self._reader.is_volume:
            return
        first = self._database.execute
        twice = first("SELECT directory FROM entry GROUP BY directory, name HAVING count(*) > 1 LIMIT 1").fetchone()
        if twice is not None:
            self._reader.fail(f"has the same name twice in directory {twice[0]}")
        lost = first(
            "SELECT directory, child FROM entry LEFT JOIN node ON child = number WHERE number IS NULL LIMIT 1"
        ).fetchone()
        if lost is not None:
            self._reader.fail(f"has a name in directory {lost[0]} for object {lost[1]}, which is not there")
        found = first(
            f"SELECT child FROM entry JOIN node ON child = number WHERE {_DIRECTORY}"  # noqa: S608 - a constant
            " GROUP BY child HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if found is not None:
            self._reader.fail(f"has directory {found[0]} in two places")
        root = first(
            f"SELECT 1 FROM fact JOIN node ON value = number WHERE name = 'root' AND {_DIRECTORY}"  # noqa: S608
            " AND NOT EXISTS (SELECT 1 FROM entry WHERE child = value)"
        ).fetchone()
        if root is None:
            self._reader.fail("has no root directory, or one inside another directory")


def components(path: bytes) -> list[bytes]:
    """Split a path into names, from the root of the snapshot. Raises: NoSuchFile for one with `..`."""
    names = [each for each in path.split(b"/") if each not in {b"", b"."}]
    if b".." in names:
        msg = f"{shown(path)}: name a path from the root of the dataset, without `..`"
        raise NoSuchFile(msg)
    return names


def joined(folder: bytes, name: bytes) -> bytes:
    """Return the path of a name in a folder; the root's path is empty."""
    return folder + b"/" + name if folder else name


def _row(node: Node) -> tuple[object, ...]:
    times = (each for time in (node.atime, node.mtime, node.ctime, node.created) for each in (*_pair(time),))
    has = (_HAS_DEVICE if node.device is not None else 0) | (_HAS_PROJECT if node.project is not None else 0)
    fixed = _FIXED.pack(
        *(node.size, node.uid, node.gid, node.links, node.parent, node.generation, node.flags, node.xattr_directory),
        *times,
        *(node.device or 0, node.project or 0, has),
    )
    row = node.number, node.mode, fixed, node.target, node.packed_xattrs, node.acl
    return *row, _checksum(*row)


def _checksum(*values: object) -> int:
    return zlib.crc32(repr(values).encode())


def _pair(time: Time) -> tuple[int, int]:
    return time.seconds, time.nanoseconds


def _node(row: Sequence[Any]) -> Node:
    number, mode, fixed, target, packed, acl = row
    values = _FIXED.unpack(fixed)
    size, uid, gid, links, parent, generation, flags, directory = values[:8]
    device, project, has = values[16:]
    return Node(
        number=number,
        mode=mode,
        size=size,
        uid=uid,
        gid=gid,
        links=links,
        parent=parent,
        generation=generation,
        flags=flags,
        atime=Time(*values[8:10]),
        mtime=Time(*values[10:12]),
        ctime=Time(*values[12:14]),
        created=Time(*values[14:16]),
        device=device if has & _HAS_DEVICE else None,
        project=project if has & _HAS_PROJECT else None,
        xattr_directory=directory,
        target=target,
        packed_xattrs=packed,
        acl=acl,
    )


def _damaged(name: str, why: str) -> NoReturn:
    msg = f"{name} {why}: it is damaged"
    raise DamagedStream(msg)
