"""A stream that is still arriving: its data file and its journal, in STORE/.partial.

    KEY.data      chunk frames, one after another; it becomes the `.zst`
    KEY.journal   what the data file cannot tell; one line for each batch that has become durable
    KEY.sha256, KEY.json   from just before the commit until it is done

Invariant, at every instant: what a journal line says is durable. A batch's line is written after its data have been
synced, and is synced itself before the batch is acknowledged. So after a crash the last whole line is the last
offset that can have been acknowledged; whatever follows in the data file is cut off.

A file without its journal means nothing and is removed at the next start: throwing a partial away is to remove its
journal, for good, and then the rest. So a journal never speaks of files that are gone on purpose.

A line is CRC, space, JSON, newline: the CRC-32 of the JSON in 8 hex digits. The first that is not whole ends the
journal. (Design section 5 has the index beside the journal; here it is in the journal: one file less to sync in a
batch.)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NoReturn

from fullsend_protocol.byhand import HASH_SUFFIX
from fullsend_protocol.manifest import Manifest
from fullsend_protocol.messages import Push
from fullsend_receiver.durable import locked, make_folders, sync_folder, sync_folders, write_all, write_file
from fullsend_receiver.names import MANIFEST_SUFFIX
from fullsend_receiver.seekable import IndexEntry, tables
from fullsend_receiver.store import Store, StoreError

log = logging.getLogger("fullsendd")

_DATA: Final = ".data"
_JOURNAL: Final = ".journal"
_DAMAGED: Final = ".damaged"
_KEY_DIGITS: Final = 32

#: Held from "nobody has this name" to the rename that takes it. One daemon at a time commits into a store, so a lock
#: of its threads will do; it is held for no sync.
_CLAIMING: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks that are written and wait to become durable. `offset`: raw bytes, and `stored`: bytes of the data
    file, through the last of them.
    """

    offset: int
    stored: int
    entries: tuple[IndexEntry, ...]


def partial_key(sender: str, push: Push) -> str:
    """Return what tells partials apart: everything by which the sender announced the stream."""
    what = [sender, push.dataset, push.snapshot, push.guid, push.base_guid, push.flags]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:_KEY_DIGITS]


class Partial:
    """A partial that is being written. All methods block on the disk; call them off the event loop.

    `write` may run while `make_durable` runs in another thread; nothing else may run beside anything.
    """

    def __init__(self, store: Store, key: str, sender: str, push: Push) -> None:
        """Begin a new partial. One of the same key is thrown away; its commit, had that begun, is completed.

        Raises: OSError, StoreError.
        """
        self.key = key
        self.size = 0
        self._store = store
        self._file_hash = hashlib.sha256()
        self._durable = 0  # bytes of the data file that the journal speaks of
        self._torn = False  # a write has failed: what the file ends with is unknown
        self._failed = False  # a sync, or the journal, has failed
        committing = _read_journal(_path(store, key, _JOURNAL)).committing
        if committing is not None:
            _complete(store, key, committing)
        else:
            discard(store, key)
        self._data = os.open(_path(store, key, _DATA), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._journal = -1
        try:
            self._journal = os.open(
                _path(store, key, _JOURNAL), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            self._note({"open": {"sender": sender, "push": push.model_dump(mode="json")}})
            sync_folder(store.partial)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files; what is durable stays."""
        for descriptor in (self._data, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._journal = -1

    def write(self, frame: bytes | memoryview) -> None:
        """Append a frame. Raises: OSError; nothing can be appended then, but what came before can become durable."""
        if self._torn:
            msg = f"partial {self.key}: writing failed before, nothing more is appended"
            raise StoreError(msg)
        try:
            write_all(self._data, frame)
        except BaseException:
            self._torn = True
            raise
        self._file_hash.update(frame)
        self.size += len(frame)

    def make_durable(self, batch: Batch) -> None:
        """Sync the data through this batch, then say so in the journal, then sync that.

        Raises: OSError; nothing of the batch may be acknowledged then, and nothing later either: Linux forgets
        after a failed fsync that the pages were dirty. So whatever is tried later raises StoreError.
        """
        self._sync()
        chunks = [
            [
                entry.raw_length,
                entry.stored_length,
                entry.ends_at_resume_point,
                entry.first_key,
                entry.starts_segment,
                entry.sha256.hex(),
            ]
            for entry in batch.entries
        ]
        self._note({"durable": {"offset": batch.offset, "stored": batch.stored, "chunks": chunks}})
        self._durable = batch.stored

    def seal(self, chunks: int) -> tuple[int, str]:
        """Write index and seek table behind the frames, and sync. All batches must be durable.

        Returns: size of the file in bytes, and its SHA-256 in hex. Raises: OSError, StoreError.
        """
        if self._durable != self.size:
            msg = f"partial {self.key}: {self.size} bytes are written, of which only {self._durable} are durable"
            raise StoreError(msg)
        for piece in tables(journal_entries(self._store, self.key), chunks):
            self.write(piece)
        self._sync()
        return self.size, self._file_hash.hexdigest()

    def commit(self, file: PurePosixPath, manifest: Manifest) -> bool:
        """Put the stream in place. The order is the promise (docs/format.md, "Write order").

        From the journal's `commit` line on, a restart completes what is left. Returns: whether it is ours that is
        in place; False where another stream of this name was there first, which stays: ours is thrown away then.
        Raises: StoreError, OSError.
        """
        target = self._store.root / file
        if _is_stored(target):
            self.close()
            discard(self._store, self.key)
            return False
        _refuse_orphan(self._store, file)
        _make_folder(self._store, target.parent)
        sha256 = f"{manifest.file_sha256}  {file.name}\n".encode()
        write_file(_path(self._store, self.key, HASH_SUFFIX), sha256, 0o640)
        write_file(_path(self._store, self.key, MANIFEST_SUFFIX), manifest.to_json(), 0o640)
        sync_folder(self._store.partial)
        self._note({"commit": {"file": str(file)}})
        self.close()
        return _put_in_place(self._store, self.key, file)

    def _sync(self) -> None:
        self._refuse_failed()
        try:
            os.fdatasync(self._data)
        except BaseException:
            self._failed = True
            raise

    def _note(self, line: dict[str, Any]) -> None:
        self._refuse_failed()
        body = json.dumps(line, separators=(",", ":")).encode()
        try:
            write_all(self._journal, b"%08x %b\n" % (zlib.crc32(body), body))
            os.fdatasync(self._journal)
        except BaseException:
            self._failed = True
            raise

    def _refuse_failed(self) -> None:
        if self._failed:
            msg = f"partial {self.key}: syncing failed before, nothing later counts as durable"
            raise StoreError(msg)


def recover(store: Store) -> list[str]:
    """After a start: complete commits, cut partials back to what was acknowledged, throw away what holds nothing, set
    aside what has lost what was acknowledged.

    Returns: a line for the log for each thing done. Raises: OSError, StoreError.
    """
    done = []
    for path in sorted(store.partial.glob(f"*{_JOURNAL}")):
        key = path.name.removesuffix(_JOURNAL)
        journal = _read_journal(path)
        if journal.committing is not None:
            if _complete(store, key, journal.committing):
                done.append(f"{journal.committing}: its commit was interrupted and is complete now")
            else:
                done.append(f"{journal.committing}: was stored twice; the first one stays")
        elif journal.durable is None:
            discard(store, key)
        elif (found := _size(_path(store, key, _DATA))) < (stored := journal.durable["stored"]):
            _set_aside(store, key)
            log.error(
                "partial %s: has %d bytes where %d were acknowledged: this disk has lost what it had synced; check it."
                " The partial is set aside as %s, and its stream starts over",
                *(key, found, stored, _path(store, key, _DATA + _DAMAGED)),
            )
        else:
            _cut_back(store, key, stored, journal.whole)
            done.append(f"partial {key}: kept, with {journal.durable['offset']} raw bytes")
    for suffix in (_DATA, HASH_SUFFIX, MANIFEST_SUFFIX):
        for path in store.partial.glob(f"*{suffix}"):
            if not path.with_suffix(_JOURNAL).exists():
                path.unlink()
    return done


def committing(store: Store) -> set[PurePosixPath]:
    """Return the files whose commit has begun and is not complete."""
    journals = (_read_journal(path) for path in store.partial.glob(f"*{_JOURNAL}"))
    return {journal.committing for journal in journals if journal.committing is not None}


def discard(store: Store, key: str) -> None:
    """Throw a partial away. The journal goes first, for good: the rest means nothing without it."""
    journal, *rest = (_path(store, key, suffix) for suffix in (_JOURNAL, HASH_SUFFIX, MANIFEST_SUFFIX, _DATA))
    with contextlib.suppress(FileNotFoundError):
        journal.unlink()
        sync_folder(store.partial)
    for path in rest:
        path.unlink(missing_ok=True)


def journal_entries(store: Store, key: str) -> Iterator[IndexEntry]:
    """Yield the index entries of all durable chunks, in order."""
    for _end, line in _journal_lines(_path(store, key, _JOURNAL)):
        for raw_length, stored_length, resumable, first_key, segment, sha256 in line.get("durable", {}).get(
            "chunks", ()
        ):
            object_key = None if first_key is None else (int(first_key[0]), int(first_key[1]))
            yield IndexEntry(raw_length, stored_length, resumable, object_key, segment, bytes.fromhex(sha256))


@dataclass(frozen=True, slots=True)
class _Journal:
    """What a journal says. `durable`: its last such line; `committing`: the file that is being put in place;
    `whole`: the offset at which its whole lines end.
    """

    durable: dict[str, Any] | None
    committing: PurePosixPath | None
    whole: int


def _read_journal(path: Path) -> _Journal:
    """Read a journal; one that is missing says nothing."""
    durable = file = None
    whole = 0
    with contextlib.suppress(FileNotFoundError):
        for end, line in _journal_lines(path):
            durable = line.get("durable", durable)
            file = line.get("commit", {}).get("file", file)
            whole = end
    return _Journal(durable, None if file is None else PurePosixPath(file), whole)


def _path(store: Store, key: str, suffix: str) -> Path:
    return store.partial / (key + suffix)


def _journal_lines(journal: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the whole lines of a journal, each with the offset in the file at which it ends."""
    end = 0
    with journal.open("rb") as file:
        for line in file:
            crc, _, body = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(body):
                return
            end += len(line)
            yield end, json.loads(body)


def _cut_back(store: Store, key: str, stored: int, whole: int) -> None:
    """Cut the data file to its acknowledged bytes, the journal to its whole lines, and off what a commit prepared."""
    for path, size in ((_path(store, key, _DATA), stored), (_path(store, key, _JOURNAL), whole)):
        if path.stat().st_size == size:
            continue
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for suffix in (HASH_SUFFIX, MANIFEST_SUFFIX):
        _path(store, key, suffix).unlink(missing_ok=True)


def _set_aside(store: Store, key: str) -> None:
    """Put a partial that cannot be gone on with where nobody takes it for one, for a person to look at."""
    # The journal last: until then another start finds the same, and does the rest.
    for suffix in (_DATA, _JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            path = _path(store, key, suffix)
            path.replace(path.with_name(path.name + _DAMAGED))
    sync_folder(store.partial)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_stored(target: Path) -> bool:
    return target.with_name(target.name + MANIFEST_SUFFIX).exists()


def _refuse_orphan(store: Store, file: PurePosixPath) -> None:
    """A `.zst` without manifest is never overwritten: it may be somebody's only copy."""
    if (store.root / file).exists():
        msg = f"{file}: is there without its manifest; run `fullsendd verify` to take it back into the store"
        raise StoreError(msg)


def _make_folder(store: Store, folder: Path) -> None:
    """Make a dataset's folder, durable with all that lead to it, and see that a rename can reach it."""
    make_folders(folder)
    # Also those that were there: another stream, or a run that was killed, may have made them without syncing yet.
    sync_folders(folder, store.root)
    if folder.stat().st_dev != store.partial.stat().st_dev:
        _refuse_other_file_system(folder)


def _complete(store: Store, key: str, file: PurePosixPath) -> bool:
    """Complete a commit that was cut short. Returns: as `_put_in_place`."""
    _make_folder(store, (store.root / file).parent)
    return _put_in_place(store, key, file)


def _put_in_place(store: Store, key: str, file: PurePosixPath) -> bool:
    """Rename the three files in, `.json` last. May be repeated after a crash at any point.

    Returns: False where another stream of this name is stored; nothing of it is touched, ours is thrown away.
    """
    target = store.root / file
    data, sha256, manifest = (_path(store, key, suffix) for suffix in (_DATA, HASH_SUFFIX, MANIFEST_SUFFIX))
    ours = True
    # Without it the last rename has been done, and at most the cleaning up is left.
    if manifest.exists():
        ours = _claim(store, data, file)
        if ours:
            _move(sha256, target.with_name(target.name + HASH_SUFFIX))
            sync_folder(target.parent)
            _move(manifest, target.with_name(target.name + MANIFEST_SUFFIX))
            sync_folder(target.parent)
    discard(store, key)
    return ours


def _claim(store: Store, data: Path, file: PurePosixPath) -> bool:
    """Rename the data in, unless another stream has that name. Returns: whether what is there now is ours."""
    target = store.root / file
    with _CLAIMING:
        if data.exists() and target.exists() and not data.samefile(target):
            if _is_stored(target):
                return False
            _refuse_orphan(store, file)
        _move(data, target)
        return True


def _move(source: Path, destination: Path) -> None:
    try:
        source.rename(destination)
    except FileNotFoundError:
        if not destination.exists():  # else an earlier run has moved it
            msg = f"{destination}: lost amid its commit: it is neither there nor at {source}"
            raise StoreError(msg) from None
    except OSError as error:
        if error.errno == errno.EXDEV:
            _refuse_other_file_system(destination.parent)
        raise


def _refuse_other_file_system(folder: Path) -> NoReturn:
    msg = f"{folder}: on another file system than the store; a store must be one file system"
    raise StoreError(msg)


def remove_temporaries(store: Store) -> None:
    """Remove what `replace_file` left behind in `.state` when it was killed; whoever changes something there now holds
    the lock.
    """
    with locked(store.lock):
        for path in store.state.glob(".*.tmp"):
            path.unlink()
