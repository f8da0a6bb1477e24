"""The `Upload` of a store in a folder, and how one is begun and reopened.

A batch's data are synced before its journal line is written, and the line is synced before the batch is acknowledged.
The names of the files are durable before the first such line. A batch that is never acknowledged, because the commit
follows, has no line: the commit makes all durable.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.manifest import Manifest, Resumption
from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_protocol.shared import limits
from fullsend_protocol.wire.messages import Record
from fullsend_receiver.store import journal
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.commits import (
    complete,
    may_take,
    prepare_replacement,
    put_in_place,
    undisturbed,
)
from fullsend_receiver.store.durable import (
    replace_file,
    sync_folder,
    write_all,
    write_file,
)
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.folders import make_folder
from fullsend_receiver.store.journal import Batch, Standing
from fullsend_receiver.store.marker import check_mounted
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.opened import Opened
from fullsend_receiver.store.partials import (
    DATA,
    JOURNAL,
    check_size,
    cut_back,
    discard,
    examining,
    journal_entries,
    keep_age,
    partial_path,
)
from fullsend_receiver.store.read_back import ReadBack
from fullsend_receiver.store.removals import choose_superseded
from fullsend_receiver.store.resume_point import read_record
from fullsend_receiver.store.seekable import IndexEntry, tables

if TYPE_CHECKING:
    from fullsend_receiver.store.api import Replaced, Supersedes
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")

#: Bytes of a data file that are read back in one step.
_STEP: Final = 1 << 20

#: Seconds to wait for a journal's lock. `list --partial` holds it during two system calls. The limit is for a process
#: that is stopped between them, on a machine that swaps. Without it a push could wait forever.
_LOCK_SECONDS: Final = 10.0

#: Seconds between two attempts.
_LOCK_STEP: Final = 0.01


class LocalUpload:
    """A partial that is being written: an `Upload`. Made by `begin_partial` and `reopen_partial`."""

    def __init__(self, store: Layout, key: str, data: int, log: int, *, size: int = 0) -> None:
        """`data`, `log`: descriptors of data file and journal, which this object closes; `size`: bytes of the data
        file, all durable.
        """
        self.key = key
        self.size = size
        self._store = store
        self._data = data
        self._journal = log
        self._file_hash = hashlib.sha256()
        self._hashed = 0  # hashed bytes of the data file
        self._read_back: ReadBack | None = None  # of what an earlier process has written
        self._durable = size  # bytes of the data file that the journal covers
        self._named = size > 0  # the names of its files are durable
        self._last: Batch | None = None  # the last one, which sealing makes durable
        self._torn = False  # a write has failed: the end of the file is unknown
        self._failed = False  # a sync, or a write to the journal, has failed
        self._committing = False  # the journal may have the `commit` line
        self._ended = False

    def close(self, *, keep: bool) -> None:
        """End it. See `Upload.close`."""
        if self._ended:
            return
        self._ended = True
        self._release()
        # A proven stream is never discarded: a restart completes its commit.
        if not (keep or self._committing):
            discard(self._store, self.key)

    def _release(self) -> None:
        """Close the files."""
        # Forget the numbers first: once closed, another file may get them.
        descriptors = self._data, self._journal
        self._data = self._journal = -1
        if self._read_back is not None:
            self._read_back.close()
        _close(self.key, *descriptors)

    def append(self, frame: bytes | memoryview) -> None:
        """Append a frame. See `Upload.append`."""
        if self._torn:
            msg = f"partial {self.key}: writing failed before, nothing more is appended"
            raise StoreError(msg)
        try:
            write_all(self._data, frame)
        except BaseException:
            self._torn = True
            raise
        if self._hashed == self.size:
            self._file_hash.update(frame)
            self._hashed += len(frame)
        self.size += len(frame)

    def sync(self, batch: Batch) -> int:
        """Sync the data through this batch, then write the journal's line, then sync that. See `Upload.sync`.

        After a failed fsync nothing counts as durable, because Linux forgets then that the pages were dirty.
        """
        self._last = None
        self._sync()
        if not self._named:
            self._sync_names()
        self._note(journal.durable_line(batch))
        self._durable = batch.stored
        return batch.offset

    def take_last(self, batch: Batch) -> None:
        """Take the last batch: `seal` makes it durable. See `Upload.take_last`."""
        if self._hashed == self.size:
            self._last = batch
        else:  # what is read back for the hash must be durable
            self.sync(batch)

    def note_resumed(self, resumption: Resumption) -> None:
        """Record that the stream resumes. See `Upload.note_resumed`."""
        before = os.fstat(self._journal)
        self._note(journal.resumed_line(resumption))
        keep_age(self._journal, before)

    def catch_up(self, most: int) -> bool:
        """Read back, compare and hash what an earlier process has written. See `Upload.catch_up`.

        The hash of the whole file goes into its `.sha256`. Its state is lost with the process that computed it.
        """
        end = min(self._durable, self._hashed + most)
        while self._hashed < end:
            if self._read_back is None:
                self._read_back = ReadBack(self._entries())
            with examining(self._store, self.key, held=True):
                frame = self._read_back.next(self._pread)
            self._file_hash.update(frame)
            self._hashed += len(frame)
        return self._hashed == self.size

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the data file. See `Upload.read`."""
        with examining(self._store, self.key, held=True):
            return self._pread(start, size)

    def record(self, standing: Standing) -> Record:
        """Read the record that ends at a place. See `Upload.record`."""
        return read_record(self.read, standing)

    def _pread(self, start: int, size: int) -> bytes:
        return os.pread(self._data, size, start)

    def seal(self, chunks: int) -> tuple[int, str]:
        """Write index and seek table behind the frames, and sync. See `Upload.seal`."""
        last = self._last
        if (self._durable if last is None else last.stored) != self.size:
            msg = f"partial {self.key}: {self.size} bytes are written, of which only {self._durable} are durable"
            raise StoreError(msg)
        while last is None and not self.catch_up(_STEP):
            pass
        rest = () if last is None else [written.entry for written in last.chunks]
        for piece in tables(itertools.chain(self._entries(), rest), chunks):
            self.append(piece)
        self._sync()
        return self.size, self._file_hash.hexdigest()

    def sealed(self) -> LocalBlob:
        """Open the sealed file. See `Upload.sealed`."""
        return LocalBlob(partial_path(self._store, self.key, DATA))

    def _entries(self) -> Iterator[IndexEntry]:
        with examining(self._store, self.key, held=True):
            yield from journal_entries(self._store, self.key)

    @property
    def begun(self) -> str | None:
        """When its stream was first offered. See `Upload.begun`."""
        opened = journal.read_opened(partial_path(self._store, self.key, JOURNAL))
        return opened.at if opened else None

    def commit(
        self,
        file: PurePosixPath,
        manifest: Manifest,
        replaces: Replaced | None = None,
        supersedes: Supersedes | None = None,
    ) -> bool:
        """Put the stream in place. See `Upload.commit`. The order of steps is in docs/format.md, "Write order".

        From the journal's `commit` line on, a restart completes the rest.
        """
        store = self._store
        check_mounted(store)  # below an empty mount point all folders would be made anew
        lock = replaces is not None or supersedes is not None
        with undisturbed(store, lock=lock):
            if not may_take(store, file, replaces):
                self.close(keep=False)
                return False
            superseded = None
            if supersedes is not None:
                superseded = choose_superseded(store, supersedes.choose, supersedes.trash)
            make_folder(store, (store.root / file).parent)
            line = hash_line(manifest.file_sha256, file)
            write_file(partial_path(store, self.key, HASH_SUFFIX), line, 0o640)
            write_file(partial_path(store, self.key, MANIFEST_SUFFIX), manifest.to_json(), 0o640)
            replacing = prepare_replacement(store, self.key, file, replaces)
            self._sync_names()
            self._committing = True  # even if writing the line fails: what reached the disk is unknown
            self._note(journal.commit_line(file, replacing, superseded))
            self.close(keep=True)
            return put_in_place(store, self.key, file, replacing, superseded, held=lock)

    def _sync(self) -> None:
        self._refuse_failed()
        try:
            os.fdatasync(self._data)
        except BaseException:
            self._failed = True
            raise

    def _sync_names(self) -> None:
        """Make the names of its files durable, in one sync for all streams that want it at the moment."""
        self._refuse_failed()
        try:
            sync_folder(self._store.partial)
        except BaseException:
            self._failed = True
            raise
        self._named = True

    def _note(self, line: bytes) -> None:
        self._refuse_failed()
        before = os.fstat(self._journal).st_size
        try:
            write_all(self._journal, line)
            os.fdatasync(self._journal)
        except BaseException:
            self._failed = True
            # Otherwise a later resumption would find a line that may never reach the disk, and take it as durable.
            with contextlib.suppress(OSError):
                os.ftruncate(self._journal, before)
            raise

    def _refuse_failed(self) -> None:
        if self._ended:
            msg = f"partial {self.key}: has ended"
            raise StoreError(msg)
        if self._failed:
            msg = f"partial {self.key}: syncing failed before, nothing later counts as durable"
            raise StoreError(msg)


def begin_partial(store: Layout, key: str, opened: Opened) -> LocalUpload:
    """Begin a partial. See `Store.begin`."""
    said = None
    with contextlib.suppress(PartialDamaged), examining(store, key):
        said = journal.read(partial_path(store, key, JOURNAL))
    if said is not None and said.committing is not None:
        complete(store, key, said)
    else:
        discard(store, key)
    partial = _open(store, key, os.O_CREAT | os.O_EXCL)
    try:
        partial._note(journal.open_line(opened))  # noqa: SLF001 - of this module
    except BaseException:
        partial.close(keep=True)
        raise
    return partial


def reopen_partial(store: Layout, key: str, *, at_resume_point: bool) -> tuple[LocalUpload, Standing] | None:
    """Open a partial to resume it. See `Store.reopen`."""
    path = partial_path(store, key, JOURNAL)
    try:
        with examining(store, key):
            found = journal.read(path)
            place = journal.standing(path, at_resume_point=at_resume_point) if found.committing is None else None
            if place is not None:
                check_size(store, key, found.stored)
    except (FileNotFoundError, PartialDamaged):
        return None
    if place is None or not place.may_resume:
        return None
    if len(place.segments) > limits.SEGMENTS_MAX - limits.SEGMENTS_RESUMED:
        return None  # resumed too often: the manifest has no room for another segment
    if place.offset != found.offset:
        _cut_journal(store, path, place)
        found = journal.read(path)
    # Removes also the bytes of a write that failed or was not acknowledged.
    cut_back(store, key, place.stored, found.whole)
    return _open(store, key, 0, size=place.stored), place


def _open(store: Layout, key: str, flags: int, *, size: int = 0) -> LocalUpload:
    opened = []
    try:
        opened.append(data := os.open(partial_path(store, key, DATA), os.O_RDWR | os.O_CLOEXEC | flags, 0o640))
        if size:
            os.lseek(data, size, os.SEEK_SET)
        path = partial_path(store, key, JOURNAL)
        opened.append(log := os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600))
        _lock(path, log)
    except BaseException:
        _close(key, *opened)
        raise
    return LocalUpload(store, key, data, log, size=size)


def _lock(path: Path, descriptor: int) -> None:
    """Lock a journal, so that another process can see that it is open (`is_locked`). Only one daemon opens a partial,
    and only once, so this waits only for a process that is testing the lock. Raises: StoreError if the wait takes too
    long; OSError.
    """
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                msg = (
                    f"{path}: has been locked by another process for {_LOCK_SECONDS:g} s; `fuser` shows which: end it,"
                    " or restart fullsendd if it is fullsendd itself"
                )
                raise StoreError(msg) from None
            time.sleep(_LOCK_STEP)
        else:
            return


def _close(key: str, *descriptors: int) -> None:
    """Close each descriptor (-1: is not open), also after an error: Linux has closed the file then. Such an error
    concerns bytes that were not synced, so none of them was acknowledged. Logging it is enough.
    """
    for descriptor in descriptors:
        try:
            if descriptor >= 0:
                os.close(descriptor)
        except OSError as error:
            log.warning("partial %s: closing it: %s; what was acknowledged is still durable", key, error)


def _cut_journal(store: Layout, path: Path, place: Standing) -> None:
    """Make the journal end at a place within it. It is replaced: it must never cover less than that."""
    with path.open("rb") as file:
        head = file.read(place.line)
    before = path.stat()
    replace_file(path, head + journal.durable_line(place.part), beside=store.partial)
    keep_age(path, before)
