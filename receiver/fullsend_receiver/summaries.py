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
    file_sha256: str
    lost_spill_count: int


@dataclass(slots=True)
class Found:
    """What lies in a sender's folders. `orphans`: `.zst` files without manifest, relative to the store; `problems`:
    what could not be read, a line each.
    """

    summaries: list[Summary] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def summary_of(file: PurePosixPath, manifest: Manifest) -> Summary:
    """Return the summary of a stored file's manifest."""
    return Summary(str(file), manifest.sender, *(getattr(manifest, each) for each in _COPIED))


#: The fields of a Summary that are copied, as attributes of a Manifest.
_COPIED: Final = Summary._fields[2:]
#: A copy with other fields, by another version of fullsendd, says nothing.
_VERSION: Final = zlib.crc32(" ".join(_COPIED).encode())
#: Where they begin in a row: after inode number, size, the two times of the manifest, and the stream's file name.
_NAME: Final = 4
_FIELDS: Final = _NAME + 1


@dataclass(slots=True)
class _Folder:
    """What is known of one folder. `stamp`: inode number and times of when its names were read, None where that does
    not count next time; `folders`: the folders in it; `rows`: a list for each stream (see `_FIELDS`).
    """

    path: str
    stamp: list[int] | None
    folders: list[str]
    rows: list[list[Any]]


def find_streams(store: Store, sender: str) -> Found:
    """Return what lies in a sender's folders, from the manifests or from what was copied of them. Blocks."""
    search = _Search(store, sender, _load(store, sender))
    search.run()
    if search.effort >= _WORTH:
        # A convenience: a disk that is full or read-only must not keep anybody from listing.
        with contextlib.suppress(OSError):
            _save(store, sender, search.folders)
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


class _Search:
    """One walk over a sender's folders. `effort`: what it took to read what no copy counted for, in manifests."""

    def __init__(self, store: Store, sender: str, known: dict[str, _Folder]) -> None:
        self.found = Found()
        self.folders: list[_Folder] = []
        self.effort = 0
        self._store = store
        self._sender = sender
        self._known = known
        self._settled = time.time_ns() - _SETTLED_NS

    def run(self) -> None:
        """Walk. Raises: OSError, but only where the disk fails on what is looked at to explain an orphan."""
        orphans: list[str] = []
        todo = [self._sender]
        while todo:
            path = todo.pop()
            try:
                folder = self._look(path, orphans)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.found.problems.append(f"{path}: cannot be read: {_why(error)}")
                continue
            self.folders.append(folder)
            prefix = f"{path}/"
            self.found.summaries += [Summary(prefix + row[_NAME], self._sender, *row[_FIELDS:]) for row in folder.rows]
            todo += [prefix + name for name in folder.folders]
        if orphans:
            self._judge(orphans)

    def _look(self, path: str, orphans: list[str]) -> _Folder:
        """Find what is in one folder, by its copy where that counts."""
        status = os.stat(self._store.root / path)
        stamp = [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(path)
        if known is not None and known.stamp == stamp and self._refresh(known):
            return known
        return self._scan(path, stamp, {} if known is None else {row[_NAME]: row for row in known.rows}, orphans)

    def _refresh(self, folder: _Folder) -> bool:
        """Look at each manifest of a folder whose names are known. Returns: whether all could be read."""
        prefix = f"{self._store.root / folder.path}/"
        rows = folder.rows
        for number, row in enumerate(rows):
            try:
                status = os.stat(prefix + row[_NAME] + MANIFEST_SUFFIX)
            except OSError:
                return False
            if [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns] != row[:_NAME]:
                try:
                    rows[number] = self._read(folder.path, row[_NAME], status)
                except StoreError:
                    return False
        return True

    def _scan(self, path: str, stamp: list[int], known: dict[str, list[Any]], orphans: list[str]) -> _Folder:
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
        rows: list[list[Any]] = []
        for name in sorted(files):
            if name.endswith(STREAM_SUFFIX + MANIFEST_SUFFIX):
                try:
                    row = self._row(path, name.removesuffix(MANIFEST_SUFFIX), known)
                except StoreError as error:
                    self.found.problems.append(str(error))
                    row = None
                if row is None:
                    counts = False
                else:
                    rows.append(row)
            elif name.endswith(STREAM_SUFFIX) and name + MANIFEST_SUFFIX not in files:
                orphans.append(f"{path}/{name}")
                counts = False
        if counts:
            self.effort += len(files) // _NAMES_A_MANIFEST
        return _Folder(path, stamp if counts else None, sorted(folders), rows)

    def _row(self, path: str, name: str, known: dict[str, list[Any]]) -> list[Any] | None:
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
        if row and [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns] == row[:_NAME]:
            return row
        return self._read(path, name, status)

    def _read(self, path: str, name: str, status: os.stat_result) -> list[Any]:
        """Open a manifest. `status`: from before it was opened. Raises: StoreError."""
        manifest = read_manifest(self._store, PurePosixPath(path, name))
        stamp = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if max(stamp[2:]) < self._settled:
            self.effort += 1
        else:
            stamp = [0, 0, 0, 0]  # no file's: it will be read again
        return [*stamp, name, *(getattr(manifest, each) for each in _COPIED)]

    def _judge(self, orphans: list[str]) -> None:
        """Tell what has no manifest from what is just getting it.

        The journal is looked at first: while it is there, the commit may still put the manifest in place; after it
        is gone, the manifest is there.
        """
        under_way = committing(self._store)
        for path in orphans:
            manifest = self._store.root / (path + MANIFEST_SUFFIX)
            if PurePosixPath(path) not in under_way and not os.path.lexists(manifest):
                self.found.orphans.append(path)


def _load(store: Store, sender: str) -> dict[str, _Folder]:
    """Return what was copied, by folder; a line that is not whole is passed over."""
    folders: dict[str, _Folder] = {}
    try:
        with _file(store, sender).open("rb") as file:
            for line in file:
                crc, _, body = line.rstrip(b"\n").partition(b" ")
                if crc != b"%08x" % zlib.crc32(body):
                    continue
                version, path, stamp, names, rows = json.loads(body)
                if version == _VERSION:
                    folders[path] = _Folder(path, stamp, names, rows)
    except (OSError, ValueError):
        return {}
    return folders


def _save(store: Store, sender: str, folders: list[_Folder]) -> None:
    lines = []
    for each in folders:
        body = json.dumps([_VERSION, each.path, each.stamp, each.folders, each.rows], separators=(",", ":")).encode()
        lines.append(b"%08x %b\n" % (zlib.crc32(body), body))
    with locked(store.lock):
        replace_file(_file(store, sender), b"".join(lines), durable=False)


def _file(store: Store, sender: str) -> Path:
    return store.state / f"summaries.{sender}"


def _why(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).splitlines()[0]
