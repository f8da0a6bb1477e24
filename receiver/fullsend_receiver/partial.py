"""A stream that is still arriving: its data file and its journal, in STORE/.partial.

    KEY.data      chunk frames, one after another; it becomes the `.zst`
    KEY.journal   what the data file cannot tell; one line for each batch that has become durable
    KEY.sha256, KEY.json   from just before the commit until it is done

Invariant, at every instant: what a journal line says is durable. A batch's line is written after its data have been
synced, and is synced itself before the batch is acknowledged. So after a crash the last whole line is the last
offset that can have been acknowledged; whatever follows in the data file is cut off.

A line is CRC, space, JSON, newline: the CRC-32 of the JSON in 8 hex digits. The first that is not whole ends the journal.
(Design section 5 has the index beside the journal; here it is in the journal: one file less to sync in a batch.)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fullsend_protocol.manifest import Manifest
from fullsend_protocol.messages import Push
from fullsend_receiver.durable import make_folders, sync_folder, write_all, write_file
from fullsend_receiver.names import HASH_SUFFIX, MANIFEST_SUFFIX, STREAM_SUFFIX
from fullsend_receiver.seekable import IndexEntry, tables
from fullsend_receiver.store import Store, StoreError

_DATA: Final = ".data"
_JOURNAL: Final = ".journal"
_KEY_DIGITS: Final = 32


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
        """Begin a new partial; one of the same key is thrown away. Raises: OSError."""
        self.key = key
        self.size = 0
        self._store = store
        self._file_hash = hashlib.sha256()
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
        """Append a frame. Raises: OSError; the partial is of no more use then, but for what is durable."""
        write_all(self._data, frame)
        self._file_hash.update(frame)
        self.size += len(frame)

    def make_durable(self, batch: Batch) -> None:
        """Sync the data through this batch, then say so in the journal, then sync that.

        Raises: OSError; nothing of the batch may be acknowledged then, and nothing later either: Linux forgets
        after a failed fsync that the pages were dirty.
        """
        os.fdatasync(self._data)
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

    def seal(self, chunks: int) -> tuple[int, str]:
        """Write index and seek table behind the frames, and sync. All batches must be durable.

        Returns: size of the file in bytes, and its SHA-256 in hex.
        """
        for piece in tables(journal_entries(self._store, self.key), chunks):
            self.write(piece)
        os.fdatasync(self._data)
        return self.size, self._file_hash.hexdigest()

    def commit(self, file: PurePosixPath, manifest: Manifest) -> None:
        """Put the stream in place. The order is the promise (docs/format.md, "Write order").

        From the journal's `commit` line on, a restart completes what is left. Raises: StoreError, OSError.
        """
        _refuse_taken(self._store, file)
        sha256 = f"{manifest.file_sha256}  {file.name}\n".encode()
        write_file(_path(self._store, self.key, HASH_SUFFIX), sha256, 0o640)
        write_file(_path(self._store, self.key, MANIFEST_SUFFIX), manifest.to_json(), 0o640)
        sync_folder(self._store.partial)
        self._note({"commit": {"file": str(file)}})
        self.close()
        _put_in_place(self._store, self.key, file)

    def _note(self, line: dict[str, Any]) -> None:
        body = json.dumps(line, separators=(",", ":")).encode()
        write_all(self._journal, b"%08x %b\n" % (zlib.crc32(body), body))
        os.fdatasync(self._journal)


def recover(store: Store) -> list[str]:
    """After a start: complete commits, cut partials back to what was acknowledged, throw away what holds nothing.

    Returns: a line for the log for each thing done. Raises: OSError, StoreError.
    """
    done = []
    for journal in sorted(store.partial.glob(f"*{_JOURNAL}")):
        key = journal.name.removesuffix(_JOURNAL)
        durable = committing = None
        for _end, line in _journal_lines(journal):
            durable = line.get("durable", durable)
            committing = line.get("commit", committing)
        if committing is not None:
            file = PurePosixPath(committing["file"])
            _put_in_place(store, key, file)
            done.append(f"{file}: its commit was interrupted and is complete now")
        elif durable is None:
            discard(store, key)
        else:
            done.append(_cut_back(store, key, durable["stored"], durable["offset"]))
    for data in store.partial.glob(f"*{_DATA}"):
        if not data.with_suffix(_JOURNAL).exists():
            data.unlink()
    return done


def discard(store: Store, key: str) -> None:
    """Throw a partial away. The journal goes last: while it is there, so is a name for the rest."""
    for suffix in (HASH_SUFFIX, MANIFEST_SUFFIX, _DATA, _JOURNAL):
        _path(store, key, suffix).unlink(missing_ok=True)


def journal_entries(store: Store, key: str) -> Iterator[IndexEntry]:
    """Yield the index entries of all durable chunks, in order."""
    for _end, line in _journal_lines(_path(store, key, _JOURNAL)):
        for raw_length, stored_length, resumable, first_key, segment, sha256 in line.get("durable", {}).get(
            "chunks", ()
        ):
            object_key = None if first_key is None else (int(first_key[0]), int(first_key[1]))
            yield IndexEntry(raw_length, stored_length, resumable, object_key, segment, bytes.fromhex(sha256))


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


def _cut_back(store: Store, key: str, stored: int, offset: int) -> str:
    """Cut the data file to its acknowledged bytes, and the journal to its whole lines."""
    data, journal = _path(store, key, _DATA), _path(store, key, _JOURNAL)
    if data.stat().st_size < stored:
        msg = f"{data}: shorter than the {stored} bytes that were acknowledged: this disk has lost synced data"
        raise StoreError(msg)
    whole = max(end for end, _line in _journal_lines(journal))
    for path, size in ((data, stored), (journal, whole)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return f"partial {key}: kept, with {offset} raw bytes"


def _refuse_taken(store: Store, file: PurePosixPath) -> None:
    """A `.zst` without manifest is never overwritten: it may be somebody's only copy."""
    target = store.root / file
    if target.exists() and not target.with_name(target.name + MANIFEST_SUFFIX).exists():
        msg = f"{file}: is there without its manifest; run `fullsendd verify` to take it back into the store"
        raise StoreError(msg)


def _put_in_place(store: Store, key: str, file: PurePosixPath) -> None:
    """Rename the three files in, `.json` last. May be repeated after a crash at any point."""
    target = store.root / file
    make_folders(target.parent, store.root)
    moves = [
        (_path(store, key, _DATA), target),
        (_path(store, key, HASH_SUFFIX), target.with_name(target.name + HASH_SUFFIX)),
        (_path(store, key, MANIFEST_SUFFIX), target.with_name(target.name + MANIFEST_SUFFIX)),
    ]
    for source, destination in moves[:2]:
        _move(source, destination)
    sync_folder(target.parent)
    _move(*moves[2])
    sync_folder(target.parent)
    discard(store, key)
    sync_folder(store.partial)


def _move(source: Path, destination: Path) -> None:
    try:
        source.rename(destination)
    except FileNotFoundError:
        if not destination.exists():  # else an earlier run has moved it
            raise
    except OSError as error:
        if error.errno == errno.EXDEV:
            msg = f"{destination.parent}: on another file system than the store; a store must be one file system"
            raise StoreError(msg) from None
        raise


def remove_temporaries(folder: Path) -> None:
    """Remove what `replace_file` left behind when it was killed."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def is_stream_file(name: str) -> bool:
    """Whether a file name is that of a stream's data (not of its manifest or hash)."""
    return name.startswith("@") and name.endswith(STREAM_SUFFIX)
