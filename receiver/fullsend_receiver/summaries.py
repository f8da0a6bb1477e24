"""What the catalogue needs of each manifest, without opening it: a copy in STORE/.state, a file for each sender.

The manifests are the truth. Opening and validating one takes 50 microseconds, a few for its summary: that is what
makes `list` of 100,000 streams take a second or two instead of six (docs/performance.md). Losing the copy costs just
this time once; it may be removed at any moment.

    .state/summaries.SENDER     a line for each folder of streams: CRC, space, JSON, newline

What is copied counts only while it cannot differ from what is there. A line: where its CRC is right. The names in a
folder: where the folder has the inode number and the times of then, since whatever adds, removes or renames a file
changes these. A summary: where its manifest has the inode number, size and times of then. All else is read from the
folders and manifests. A file system's clock ticks every few milliseconds, so two changes within a tick look like one:
what had changed just before it was read does not count the next time.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from fullsend_protocol.facts import StreamClass
from fullsend_protocol.manifest import DatasetType, Kind, Manifest
from fullsend_receiver.durable import locked, replace_file
from fullsend_receiver.names import MANIFEST_SUFFIX, STREAM_SUFFIX
from fullsend_receiver.partial import committing
from fullsend_receiver.store import Store, StoreError

#: Manifests that one reading had to open after which the copy is worth writing anew: some 20 ms against one write.
_WORTH: Final = 200
#: So many names in folders that had changed take about the time of one manifest.
_NAMES_A_MANIFEST: Final = 50
#: What changed within this time before it was read may change again without a trace. Ticks are 10 ms at most; some
#: file systems have times in whole seconds, FAT in pairs of them.
_SETTLED_NS: Final = 3_000_000_000


class Summary(NamedTuple):
    """What the catalogue needs of one manifest; the fields mean what they mean there.

    `path`: of the `.zst`, relative to the store.
    """

    path: str
    sender: str
    dataset: str
    snapshot: str
    guid: str
    base_guid: str | None
    kind: Kind
    dataset_type: DatasetType
    stream_class: StreamClass
    flags: str
    created: str
    received: str
    begun: str | None
    sequence: int | None
    raw_bytes: int
    stored_bytes: int
    sha256: str | None
    lost_spill_count: int


@dataclass(slots=True)
class Found:
    """What lies in a sender's folders. `orphans`: `.zst` files without manifest, relative to the store; `problems`:
    what could not be read, a line each.
    """

    summaries: list[Summary] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


#: The fields of a Summary that are copied, as attributes of a Manifest, come behind so many that are not.
_GIVEN: Final = 2
_COPIED: Final = Summary._fields[_GIVEN:]
#: A copy with other fields, by another version of fullsendd, says nothing.
_VERSION: Final = zlib.crc32(" ".join(_COPIED).encode())
#: Where they begin in a row: after inode number, size, the two times of the manifest, and the stream's file name.
_NAME: Final = 4
_FIELDS: Final = _NAME + 1
#: Inode number, size and times of a manifest, as they are held in memory.
_STAMP: Final = struct.Struct("Qqqq")
#: No file's.
_NO_STAMP: Final = bytes(_STAMP.size)


@dataclass(slots=True)
class _Folder:
    """What is known of one folder. `stamp`: inode number and times of when its names were read, None where that does
    not count next time; `folders`: the folders in it; `rows`: one for each stream.
    """

    path: str
    stamp: list[int] | None
    folders: list[str]
    rows: list[_Row]


class _Row(NamedTuple):
    """A summary, and of which manifest. `stamp`: its inode number, size and times, as `_pack` has them."""

    stamp: bytes
    summary: Summary

    @property
    def name(self) -> str:
        """The stream's file, without its folder."""
        return self.summary.path.rpartition("/")[2]


def find_streams(store: Store, sender: str) -> Found:
    """Return what lies in a sender's folders, from the manifests or from what was copied of them. Blocks."""
    search = Search(store, sender)
    search.run()
    return search.found


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Keep the collector of circular garbage from walking over 100,000 rows again and again while they come to life:
    that takes longer than all else. Nothing here goes in circles.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_manifest(store: Store, file: PurePosixPath) -> Manifest:
    """Read the manifest of a stored file. Raises: StoreError."""
    path = store.root / file.with_name(file.name + MANIFEST_SUFFIX)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{file}{MANIFEST_SUFFIX}: cannot be read: {_why(error)}"
        raise StoreError(msg) from None
    if manifest.sender != file.parts[0]:
        msg = f"{file}{MANIFEST_SUFFIX}: says that it is sender {manifest.sender}'s: it was moved"
        raise StoreError(msg)
    return manifest


class Search:
    """What lies in a sender's folders. Each `run` looks again, and reads only what has changed since the one before.

    `found`: what the last run has found.
    """

    def __init__(self, store: Store, sender: str) -> None:
        """Nothing is read before `run`."""
        self.found = Found()
        self._store = store
        self._sender = sender
        self._known: dict[str, _Folder] | None = None  # by path; None: nothing was read yet
        self._changed = False
        self._effort = 0  # what it took to read what the copy does not have, in manifests
        self._settled = 0
        self._one: dict[str, str] = {}  # each string once, that many rows have; while a run is running

    def run(self) -> bool:
        """Look. Returns: whether the streams are others than the last time; after an error too, they may be.

        Raises: OSError, but only where the disk fails on what is looked at to explain an orphan.
        """
        known = self._known
        if known is None:
            self._changed = True
            known = self._known = self._load()
        self._settled = time.time_ns() - _SETTLED_NS
        problems: list[str] = []
        orphans: list[str] = []
        folders: dict[str, _Folder] = {}
        todo = [self._sender]
        while todo:
            path = todo.pop()
            try:
                folder = folders[path] = self._look(path, known.get(path), problems, orphans)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(f"{path}: cannot be read: {_why(error)}")
                continue
            todo += [f"{path}/{name}" for name in folder.folders]
        self._one.clear()
        self._changed = self._changed or folders.keys() != known.keys()
        self._known = folders
        if self._effort >= _WORTH:
            self._effort = 0
            # A convenience: a disk that is full or read-only must not keep anybody from listing.
            with contextlib.suppress(OSError):
                self._save(list(folders.values()))
        explained = self._judge(orphans) if orphans else []
        summaries = self.found.summaries
        if self._changed:
            summaries = [row.summary for folder in folders.values() for row in folder.rows]
        self.found = Found(summaries, explained, problems)
        changed, self._changed = self._changed, False
        return changed

    def _look(self, path: str, known: _Folder | None, problems: list[str], orphans: list[str]) -> _Folder:
        """Find what is in one folder, by what is known of it where that counts."""
        status = os.stat(self._store.root / path)
        stamp = [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        if known is not None and known.stamp == stamp and self._refresh(known):
            return known
        rows = {} if known is None else {row.name: row for row in known.rows}
        folder = self._scan(path, stamp, rows, problems, orphans)
        if [row.summary for row in folder.rows] != [row.summary for row in rows.values()]:
            self._changed = True
        return folder

    def _refresh(self, folder: _Folder) -> bool:
        """Look at each manifest of a folder whose names are known. Returns: whether all could be read."""
        root = f"{self._store.root}/"
        rows = folder.rows
        for number, row in enumerate(rows):
            try:
                status = os.stat(root + row.summary.path + MANIFEST_SUFFIX)
            except OSError:
                return False
            if _pack(status) != row.stamp:
                try:
                    rows[number] = self._read(folder.path, row.name, status)
                except StoreError:
                    return False
                self._changed = True
        return True

    def _scan(
        self, path: str, stamp: list[int], known: dict[str, _Row], problems: list[str], orphans: list[str]
    ) -> _Folder:
        """Read a folder's names, and the manifests among them of which nothing is known."""
        folders: list[str] = []
        files: set[str] = set()
        counts = max(stamp[1:]) < self._settled
        with os.scandir(self._store.root / path) as entries:
            for entry in entries:
                if entry.name.startswith("@"):
                    files.add(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_symlink():  # it may lead anywhere, and round in circles
                    problems.append(f"{path}/{entry.name}: is a symbolic link, so nothing in it is listed")
                    counts = False
        rows: list[_Row] = []
        for name in sorted(files):
            if name.endswith(STREAM_SUFFIX + MANIFEST_SUFFIX):
                try:
                    row = self._row(path, name.removesuffix(MANIFEST_SUFFIX), known)
                except StoreError as error:
                    problems.append(str(error))
                    row = None
                if row is None:
                    counts = False
                else:
                    rows.append(row)
            elif name.endswith(STREAM_SUFFIX) and name + MANIFEST_SUFFIX not in files:
                orphans.append(f"{path}/{name}")
                counts = False
        if counts:
            self._effort += len(files) // _NAMES_A_MANIFEST
        return _Folder(path, stamp if counts else None, sorted(folders), rows)

    def _row(self, path: str, name: str, known: dict[str, _Row]) -> _Row | None:
        """Return what a manifest says, None where it is gone by now. Raises: StoreError."""
        manifest = self._store.root / path / (name + MANIFEST_SUFFIX)
        try:
            status = manifest.stat()
        except OSError as error:
            if not os.path.lexists(manifest):
                return None
            msg = f"{path}/{name}{MANIFEST_SUFFIX}: cannot be read: {_why(error)}"
            raise StoreError(msg) from None
        row = known.get(name)
        if row and _pack(status) == row.stamp:
            return row
        return self._read(path, name, status)

    def _read(self, path: str, name: str, status: os.stat_result) -> _Row:
        """Open a manifest. `status`: from before it was opened. Raises: StoreError."""
        manifest = read_manifest(self._store, PurePosixPath(path, name))
        stamp = _pack(status)
        if max(status.st_mtime_ns, status.st_ctime_ns) < self._settled:
            self._effort += 1
        else:
            stamp = _NO_STAMP  # it will be read again
        return _Row(stamp, self._summary(f"{path}/{name}", [getattr(manifest, each) for each in _COPIED]))

    def _summary(self, path: str, fields: list[Any]) -> Summary:
        """Make a summary. Of 100,000 streams most have the dataset, kind and flags of others, and each is a base."""
        one = self._one
        shared: list[Any] = [one.setdefault(each, each) if type(each) is str else each for each in fields]
        return Summary(path, self._sender, *shared)

    def _judge(self, orphans: list[str]) -> list[str]:
        """Return the orphans among these: tell what has no manifest from what is just getting it.

        The journal is looked at first: while it is there, the commit may still put the manifest in place; after it
        is gone, the manifest is there.
        """
        under_way = committing(self._store)
        return [
            path
            for path in orphans
            if PurePosixPath(path) not in under_way and not os.path.lexists(self._store.root / (path + MANIFEST_SUFFIX))
        ]

    def _load(self) -> dict[str, _Folder]:
        """Return what was copied, by folder; a line that is not whole is passed over."""
        folders: dict[str, _Folder] = {}
        try:
            with _file(self._store, self._sender).open("rb") as file:
                for line in file:
                    crc, _, body = line.rstrip(b"\n").partition(b" ")
                    if crc != b"%08x" % zlib.crc32(body):
                        continue
                    version, path, stamp, names, rows = json.loads(body)
                    if version != _VERSION:
                        continue
                    made = [
                        _Row(_STAMP.pack(*row[:_NAME]), self._summary(f"{path}/{row[_NAME]}", row[_FIELDS:]))
                        for row in rows
                    ]
                    folders[path] = _Folder(path, stamp, names, made)
        except (OSError, ValueError, TypeError, struct.error):
            return {}
        return folders

    def _save(self, folders: list[_Folder]) -> None:
        with locked(self._store.lock):
            replace_file(_file(self._store, self._sender), b"".join(map(_line, folders)), durable=False)


def _line(folder: _Folder) -> bytes:
    """Return a folder's line of the copy. A row: inode number, size, the two times, the file's name, the fields."""
    rows = [[*_STAMP.unpack(row.stamp), row.name, *row.summary[_GIVEN:]] for row in folder.rows]
    body = json.dumps([_VERSION, folder.path, folder.stamp, folder.folders, rows], separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _pack(status: os.stat_result) -> bytes:
    return _STAMP.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _file(store: Store, sender: str) -> Path:
    return store.state / f"summaries.{sender}"


def _why(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).splitlines()[0]
