"""Summaries of the manifests without opening them: a copy in STORE/.state, a file for each sender.

The manifests are authoritative. Opening and validating one takes 50 microseconds, reading its summary a few. So `list`
of 100,000 streams takes a second or two instead of six (docs/performance.md). Losing the copy costs just this time
once; it may be removed at any time.

    .state/summaries.SENDER     a line for each folder of streams: CRC, space, JSON, newline

A copied value is used only while it cannot differ from the original. A line: if its CRC is right. The names in a
folder: if the folder has the same inode number and times, which change when a file is added, removed or renamed. A
summary: if its manifest has the same inode number, size and times. Everything else is read from the folders and
manifests. A file system's clock ticks every few milliseconds, so two changes within a tick look like one. Therefore a
change just before the reading is not used the next time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from fullsend_protocol.format.names import is_manifest, is_stream, manifest_of, stream_of
from fullsend_protocol.shared.errors import reason
from fullsend_receiver.catalogue.collector import collector_off
from fullsend_receiver.catalogue.inotify import ITSELF, Changes, Watch
from fullsend_receiver.catalogue.problems import Problem, symbolic_link, unreadable_folder, unreadable_manifest
from fullsend_receiver.catalogue.rows import COPIED, NAME, NO_STAMP, STORED_BYTES, Row, Shelf, Summary, summaries_of
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import locked_now, replace_file
from fullsend_receiver.store.errors import ManifestError

#: If a search has opened so many manifests, the copy is worth rewriting: some 20 ms, compared with one write.
_WORTH: Final = 200
#: Length of the CRC and the space before the JSON of a line.
_CRC: Final = 9
#: Examining so many names in changed folders takes about the time of opening one manifest.
_NAMES_A_MANIFEST: Final = 50
#: Streams in one batch of an examination besides questions; and the number of streams that cost as much as a folder.
_BATCH: Final = 500
_STREAMS_A_FOLDER: Final = 5
#: A change within this time before the reading may be followed by another one without a trace. Ticks are 10 ms at most;
#: some file systems have times in whole seconds, FAT in steps of two.
_SETTLED_NS: Final = 3_000_000_000


#: A copy with other fields, by another version of fullsendd, is not used. Format 2: a folder with a symbolic link to a
#: file has no stamp, because it must be read each time.
_FORMAT: Final = "2"
_VERSION: Final = zlib.crc32(" ".join((_FORMAT, *COPIED)).encode())
#: How the JSON of a line begins: the version and the folder.
_HEAD: Final = re.compile(rb'\[(\d+),("(?:[^"\\]|\\.)*"),')
#: A daemon does not need the copy before its next start: it writes the copy when this fraction of all rows is missing.
_WORTH_PART: Final = 50


@dataclass(slots=True)
class _Folder:
    """What is known of one folder.

    `stamp`: inode number and times when its names were read, None if that must not be used next time; `folders`: the
    folders in it; `rows`: one for each stream; `orphans`: names of `.zst` files without manifest; `problems`: by name
    of a stream, why its manifest cannot be read; `linked`: names of streams whose file or manifest is a symbolic link,
    so that changes behind it are not reported; `watched`: whether all other changes are reported.
    """

    path: str
    stamp: list[int] | None
    folders: list[str]
    rows: list[Row] | Shelf
    orphans: set[str] = field(default_factory=set)
    problems: dict[str, Problem] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)
    watched: bool = False

    @property
    def doubts(self) -> set[str]:
        """The names that must be examined each time."""
        return self.orphans | self.problems.keys() | self.linked


class FolderSearch:
    """A `Search` of a sender's folders. It reads only what has changed since the last run."""

    def __init__(self, store: Store, sender: str, watch: Watch | None = None) -> None:
        """Reads nothing before `run`. `watch`: reports changes. Then the results are kept on shelves, and a run
        examines only changes. None: each run examines everything.
        """
        assert store.folder is not None  # noqa: S101 - for mypy: this store's streams are files
        self._store = store
        self._root = store.folder
        self._sender = sender
        self._watch = watch
        self._folders: dict[str, _Folder] | None = None  # by path; None: nothing was read yet
        self._unreadable: list[Problem] = []  # folders
        self._explained: list[str] = []
        self._changed = False
        self._effort = 0  # the cost of reading what the copy lacks, in manifests
        self._settled = 0
        self.sure = False
        self._place: tuple[int, int] | None = None  # of the sender's folder: device and inode number
        self._suspect: set[str] = set()

    def run(self) -> bool:
        """See `Search.run`. Raises: OSError, but only if the disk fails on what is examined to explain an orphan."""
        known: dict[str, _Folder] | _Copy
        if self._folders is None:
            self._changed = True
            known = _Copy(_file(self._store, self._sender))
        else:
            known = self._folders
        self._settled = time.time_ns() - _SETTLED_NS
        changes = Changes(everything=True) if self._watch is None else self._watch.take()
        # Until the end: if this fails half-way, the reported changes must not count as examined.
        sure, self.sure = self.sure and not changes.everything and self._is_in_place(), False
        with collector_off():
            folders = self._look_at(changes) if sure else None
            if folders is None:
                folders = self._look_everywhere(known)
        self._changed = self._changed or self._folders is None or folders.keys() != self._folders.keys()
        self._folders = folders
        if self._effort >= _WORTH and (self._watch is None or self._effort >= _streams(folders) // _WORTH_PART):
            # The copy is optional: a disk that is full or read-only must not prevent listing.
            with contextlib.suppress(OSError):
                self._save(folders.values())
        # A search comes with each stream that is pushed: what it does for each folder must be next to nothing.
        orphaned = [folder for folder in folders.values() if folder.orphans]
        orphans = [f"{folder.path}/{name}" for folder in orphaned for name in sorted(folder.orphans)]
        self._explained = self._judge(orphans) if orphans else []
        self.sure = not self._unreadable and all(folder.watched for folder in folders.values())
        changed, self._changed = self._changed, False
        return changed

    @property
    def summaries(self) -> list[Summary]:
        """See `Search.summaries`."""
        folders = (self._folders or {}).values()
        return [summary for folder in folders for summary in summaries_of(folder.path, folder.rows)]

    @property
    def problems(self) -> list[Problem]:
        """See `Search.problems`."""
        folders = (self._folders or {}).values()
        troubled = [folder for folder in folders if folder.problems]
        return self._unreadable + [problem for folder in troubled for problem in folder.problems.values()]

    @property
    def orphans(self) -> list[str]:
        """See `Search.orphans`."""
        return self._explained

    @property
    def lacking(self) -> frozenset[str] | None:
        """See `Search.lacking`: the shelves know."""
        return None

    @property
    def shelves(self) -> list[Shelf]:
        """See `Search.shelves`: only with a watch."""
        found = (folder.rows for folder in (self._folders or {}).values())
        return [rows for rows in found if isinstance(rows, Shelf) and len(rows)]

    def batches(self) -> Iterator[list[str]]:
        """See `Search.batches`."""
        batch: list[str] = []
        streams = 0
        for path, folder in (self._folders or {}).items():
            batch.append(path)
            streams += len(folder.rows) + _STREAMS_A_FOLDER
            if streams >= _BATCH:
                yield batch
                batch, streams = [], 0
        if batch:
            yield batch

    def distrust(self, paths: Iterable[str] | None = None) -> None:
        """See `Search.distrust`."""
        if paths is None:
            self.sure = False
        else:
            self._suspect.update(paths)

    def _look_everywhere(self, known: dict[str, _Folder] | _Copy) -> dict[str, _Folder]:
        if self._watch is not None:
            self._watch.begin()
        self._unreadable = []
        self._suspect = set()
        self._place = None
        folders: dict[str, _Folder] = {}
        self._look_below(self._sender, known, folders)
        return folders

    def _look_below(self, path: str, known: dict[str, _Folder] | _Copy, folders: dict[str, _Folder]) -> None:
        """Put into `folders` what is known now of a folder and all folders in it."""
        todo = [path]
        while todo:
            path = todo.pop()
            try:
                folder = folders[path] = self._look(path, known.get(path))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unreadable.append(unreadable_folder(path, reason(error)))
                continue
            todo += [f"{path}/{name}" for name in folder.folders]

    def _look_at(self, changes: Changes) -> dict[str, _Folder] | None:
        """Examine what has changed, and what is in doubt. Returns: the present state, None if that requires examining
        everything.
        """
        folders = dict(self._folders or {})
        for path, folder in folders.items():
            if folder.orphans or folder.problems or folder.linked:
                changes.names.setdefault(path, set()).update(folder.doubts)
        suspect, self._suspect = self._suspect, set()
        for path in suspect & folders.keys():
            changes.add(path, ITSELF)
        for path, names in changes.names.items():
            before = folders.get(path)
            if before is None:
                return None
            try:
                folder = self._look(path, before) if ITSELF in names else self._look_at_names(before, names)
            except OSError:
                return None
            if not set(before.folders) <= set(folder.folders):
                return None
            folders[path] = folder
            for name in set(folder.folders) - set(before.folders):
                self._look_below(f"{path}/{name}", {}, folders)
        return folders

    def _look_at_names(self, known: _Folder, names: set[str]) -> _Folder:
        """Examine some names in a watched folder."""
        path = known.path
        root = self._root / path
        before = list(known.rows)
        rows = {row[NAME]: row for row in before}
        found = _Folder(path, None, [*known.folders], [], watched=known.watched)
        found.orphans, found.problems, found.linked = {*known.orphans}, {**known.problems}, {*known.linked}
        lacking = set(known.rows.lacking or ()) if isinstance(known.rows, Shelf) else set()
        for name in names:
            if not name.startswith("@"):
                found.problems.pop(name, None)
                is_link = (root / name).is_symlink()
                if is_link:
                    found.problems[name] = symbolic_link(f"{path}/{name}")
                is_folder = not is_link and (root / name).is_dir()
                if is_folder != (name in found.folders):
                    found.folders = sorted({*found.folders} ^ {name})
        for name in {stream_of(name) for name in names if name.startswith("@")}:
            if not is_stream(name):
                continue
            row = rows.pop(name, None)
            found.orphans.discard(name)
            found.problems.pop(name, None)
            lacking.discard(name)
            found.linked.discard(name)
            if any((root / each).is_symlink() for each in (name, manifest_of(name))):
                found.linked.add(name)
            try:
                row = self._row(path, name, row)
            except ManifestError as error:
                found.problems[name] = unreadable_manifest(error)
                row = None
            if row is not None:
                rows[name] = row
                with _opened(root) as descriptor:
                    if not _is_whole(descriptor, row):
                        lacking.add(name)
            elif name not in found.problems and os.path.lexists(root / name):
                found.orphans.add(name)
        self._shelve(found, sorted(rows.values(), key=_by_name), known, before, frozenset(lacking))
        return found

    def _look(self, path: str, known: _Folder | None) -> _Folder:
        """Return the contents of one folder, using what is known of it if that is still valid."""
        root = self._root / path
        status = os.stat(root)
        watched = self._watch is not None and self._watch.add(path, status.st_dev)
        if watched:
            status = os.stat(root)  # all later changes are reported
        if path == self._sender:
            self._place = (status.st_dev, status.st_ino)
        stamp = [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        before = [] if known is None else list(known.rows)
        rows = None
        if known is not None and known.stamp == stamp:
            with _opened(root) as descriptor:
                rows = self._refresh(path, descriptor, before)
        if known is not None and rows is not None:
            folder = _Folder(path, stamp, known.folders, [])
        else:
            folder, rows = self._scan(path, stamp, {row[NAME]: row for row in before})
        folder.watched = watched
        lacking = None
        if watched:
            with _opened(root) as descriptor:
                lacking = frozenset(row[NAME] for row in rows if not _is_whole(descriptor, row))
        self._shelve(folder, rows, known, before, lacking)
        return folder

    def _shelve(
        self,
        folder: _Folder,
        rows: list[Row],
        known: _Folder | None,
        before: list[Row],
        lacking: frozenset[str] | None,
    ) -> None:
        """Put the rows into a folder. `known`: its former state, with the rows `before`."""
        was = known.rows.lacking if known is not None and isinstance(known.rows, Shelf) else None
        if was != lacking or (not self._changed and _content(rows) != _content(before)):
            self._changed = True
        if self._watch is None:
            folder.rows = rows
        elif known is not None and isinstance(known.rows, Shelf) and rows == before:
            folder.rows = known.rows if was == lacking else known.rows.with_lacking(lacking)
        else:
            folder.rows = Shelf.of(folder.path, rows, lacking)

    def _refresh(self, path: str, folder: int, known: list[Row]) -> list[Row] | None:
        """Examine each manifest of a folder with known names. Returns: the rows; None if one cannot be read."""
        rows = [*known]
        for number, row in enumerate(known):
            try:
                status = os.stat(manifest_of(row[NAME]), dir_fd=folder)
            except OSError:
                return None
            if _stamp(status) != row[:NAME]:
                try:
                    rows[number] = self._read(path, row[NAME], status)
                except ManifestError:
                    return None
        return rows

    def _scan(self, path: str, stamp: list[int], known: dict[str, Row]) -> tuple[_Folder, list[Row]]:
        """Read a folder's names, and its manifests that are not known yet. Returns: the folder, and the rows for it."""
        folder = _Folder(path, None, [], [])
        files: set[str] = set()
        counts = max(stamp[1:]) < self._settled
        with os.scandir(self._root / path) as entries:
            for entry in entries:
                if entry.name.startswith("@"):
                    files.add(entry.name)
                    if entry.is_symlink():
                        folder.linked.add(stream_of(entry.name))
                        counts = False
                elif entry.is_dir(follow_symlinks=False):
                    folder.folders.append(entry.name)
                elif entry.is_symlink():
                    folder.problems[entry.name] = symbolic_link(f"{path}/{entry.name}")
                    counts = False
        folder.folders.sort()
        rows: list[Row] = []
        for name in sorted(files):
            if is_manifest(name):
                stream = stream_of(name)
                try:
                    row = self._row(path, stream, known.get(stream))
                except ManifestError as error:
                    folder.problems[stream] = unreadable_manifest(error)
                    row = None
                if row is None:
                    counts = False
                else:
                    rows.append(row)
            elif is_stream(name) and manifest_of(name) not in files:
                folder.orphans.add(name)
                counts = False
        if counts:
            self._effort += len(files) // _NAMES_A_MANIFEST
            folder.stamp = stamp
        return folder, rows

    def _row(self, path: str, name: str, known: Row | None) -> Row | None:
        """Return the row of a manifest, None if it is missing by now. Raises: ManifestError."""
        manifest = self._root / path / manifest_of(name)
        try:
            status = manifest.stat()
        except OSError as error:
            if not os.path.lexists(manifest):
                return None
            raise ManifestError(f"{path}/{manifest_of(name)}", f"cannot be read: {reason(error)}") from None
        if known and _stamp(status) == known[:NAME]:
            return known
        return self._read(path, name, status)

    def _read(self, path: str, name: str, status: os.stat_result) -> Row:
        """Open a manifest. `status`: from before it was opened. Raises: ManifestError."""
        manifest = self._store.manifest(PurePosixPath(path, name))
        stamp = NO_STAMP  # it will be read again
        if max(status.st_mtime_ns, status.st_ctime_ns) < self._settled:
            self._effort += 1
            stamp = _stamp(status)
        return [*stamp, name, *(getattr(manifest, each) for each in COPIED)]

    def _is_in_place(self) -> bool:
        """Whether the sender's folder is the examined one: none of the folders above it was replaced."""
        try:
            status = os.stat(self._root / self._sender)
        except FileNotFoundError:
            return self._place is None
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._place

    def _judge(self, orphans: list[str]) -> list[str]:
        """Return the orphans among these, without the `.zst` files that are about to get their manifest, or are being
        removed.

        Commits and removals under way are read first. While a journal exists, the commit may still put the manifest in
        place; after it is removed, the manifest is in place.
        """
        under_way = self._store.under_way()
        return [
            path
            for path in orphans
            if PurePosixPath(path) not in under_way and not os.path.lexists(self._root / manifest_of(path))
        ]

    def _save(self, folders: Iterable[_Folder]) -> None:
        # A prune searches while it holds the lock, so this must not wait for it.
        with locked_now(self._store.lock) as held:
            if held:
                self._effort = 0
                replace_file(_file(self._store, self._sender), map(_line, folders), durable=False)


class _Copy:
    """The copy, read a folder at a time: as a whole it takes much more memory than the result."""

    def __init__(self, path: Path) -> None:
        """Find the line of each folder."""
        self._path = path
        self._lines: dict[str, tuple[int, int]] = {}
        at = 0
        with contextlib.suppress(OSError), path.open("rb") as file:
            for line in file:
                head = _HEAD.match(line, _CRC)
                if head is not None and int(head[1]) == _VERSION:
                    with contextlib.suppress(ValueError):
                        self._lines[json.loads(head[2])] = (at, len(line))
                at += len(line)

    def get(self, path: str) -> _Folder | None:
        """Return the copied state of a folder; None if there is none, or its line is not whole."""
        if path not in self._lines:
            return None
        at, length = self._lines[path]
        try:
            with self._path.open("rb") as file:
                file.seek(at)
                crc, _, body = file.read(length).rstrip(b"\n").partition(b" ")
            if crc != b"%08x" % zlib.crc32(body):
                return None
            version, where, stamp, folders, rows = json.loads(body)
        except (OSError, ValueError, TypeError):
            return None
        return _Folder(path, stamp, folders, rows) if (version, where) == (_VERSION, path) else None


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder: examining 100 names in it takes a quarter less time than by their whole paths."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_whole(folder: int, row: Row) -> bool:
    """Whether a stream's file exists, with the length in its manifest."""
    try:
        size: int = os.stat(row[NAME], dir_fd=folder).st_size
    except OSError:
        return False
    return size == row[STORED_BYTES]  # type: ignore[no-any-return]  # a row's values are checked nowhere


def _line(folder: _Folder) -> bytes:
    """Return a folder's line of the copy."""
    body = json.dumps(
        [_VERSION, folder.path, folder.stamp, folder.folders, list(folder.rows)], separators=(",", ":")
    ).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _content(rows: list[Row]) -> list[Row]:
    """Return the rows without the stamps of their manifests."""
    return [row[NAME:] for row in rows]


def _by_name(row: Row) -> str:
    name: str = row[NAME]
    return name


def _file(store: Store, sender: str) -> Path:
    return store.home / f"summaries.{sender}"


def _streams(folders: dict[str, _Folder]) -> int:
    return sum(len(folder.rows) for folder in folders.values())
