"""A stream that is still arriving: its data file and its journal, in STORE/.partial.

    KEY.data      chunk frames, one after another; it becomes the `.zst`
    KEY.journal   what the data file cannot tell; one line for each batch that has become durable
    KEY.sha256, KEY.json   from just before the commit until it is done

Invariant, at every instant: what a journal line says is durable. A batch's line is written after its data have been
synced, and is synced itself before the batch is acknowledged. So after a crash the last whole line is the last
offset that can have been acknowledged; whatever follows in the data file is cut off.

Damage stays where it is: of a partial that a disk has lost something of, nothing more is believed, and it is set aside
for a person to look at; all others are as before (`examining`).

A file without its journal means nothing and is removed at the next start: throwing a partial away is to remove its
journal, for good, and then the rest. So a journal never speaks of files that are gone on purpose.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from fullsend_protocol.format.manifest import Manifest, Resumption
from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_protocol.shared import limits
from fullsend_receiver.store import journal
from fullsend_receiver.store.api import PartialDamaged, StoreError
from fullsend_receiver.store.durable import (
    locked,
    make_folders,
    replace_file,
    sync_folder,
    sync_folders,
    write_all,
    write_file,
)
from fullsend_receiver.store.journal import Batch, Journal, Standing
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.opened import Opened
from fullsend_receiver.store.seekable import IndexEntry, tables

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

log = logging.getLogger("fullsendd")

_DATA: Final = ".data"
_JOURNAL: Final = ".journal"
_DAMAGED: Final = ".damaged"
#: What is read of a data file at a time, to hash it.
_BLOCK: Final = 1 << 20

#: Held from "nobody has this name" to the rename that takes it. One daemon at a time commits into a store, so a lock
#: of its threads will do; it is held for no sync.
_CLAIMING: Final = threading.Lock()

#: errno values with which a disk or its file system says that it has lost what it had: a sector that cannot be read, a
#: checksum that is wrong. All others say nothing of what is there, such as no descriptor left, or no permission.
_LOST: Final = frozenset({errno.EIO, errno.EREMOTEIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA})
#: Those that are nobody's fault, and pass: what cannot be looked at for their sake must not be taken for not there.
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EINTR, errno.EAGAIN})

#: Seconds to wait for a journal's lock. `list --partial` has it for two system calls; this is for one that is stopped
#: between them, on a machine that swaps. Beyond, it was not let go of, and a push that waited for it would never end.
_LOCK_SECONDS: Final = 10.0
#: Seconds between two tries.
_LOCK_STEP: Final = 0.01

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LocalUploadInfo:
    """A partial as it lies there: an `UploadInfo`, read from its journal."""

    key: str
    path: Path

    @property
    def opened(self) -> Opened | None:
        """What it is. See `UploadInfo`."""
        return journal.read_opened(self.path)

    @property
    def last(self) -> float:
        """When something arrived last: the journal's time of modification."""
        return self.path.stat().st_mtime

    @property
    def journal(self) -> Journal:
        """What its journal says, in short."""
        return journal.read(self.path)

    @property
    def places(self) -> tuple[Standing | None, Standing | None]:
        """Where it resumes; the journal is read through once."""
        return journal.standings(self.path)

    @property
    def arriving(self) -> bool:
        """Whether somebody has it open."""
        return is_arriving(self.path)


class LocalUpload:
    """A partial that is being written: an `Upload`. Made by `begin_partial` and `reopen_partial`."""

    def __init__(self, store: LocalStore, key: str, data: int, log: int, *, size: int = 0) -> None:
        """`data`, `log`: descriptors of data file and journal, which are ours from now on; `size`: bytes of the data
        file, all durable.
        """
        self.key = key
        self.size = size
        self._store = store
        self._data = data
        self._journal = log
        self._file_hash = hashlib.sha256()
        self._hashed = 0  # bytes of the data file that this hash has seen
        self._durable = size  # bytes of the data file that the journal speaks of
        self._torn = False  # a write has failed: what the file ends with is unknown
        self._failed = False  # a sync, or the journal, has failed
        self._committing = False  # the journal may say so
        self._ended = False

    def close(self, *, keep: bool) -> None:
        """End it. See `Upload.close`."""
        if self._ended:
            return
        self._ended = True
        self._release()
        # What is proven is never thrown away: a restart completes its commit.
        if not (keep or self._committing):
            discard(self._store, self.key)

    def _release(self) -> None:
        """Close the files."""
        # First of all, since the numbers may be another file's as soon as they are closed.
        descriptors = self._data, self._journal
        self._data = self._journal = -1
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
        """Sync the data through this batch, then say so in the journal, then sync that. See `Upload.sync`.

        Nothing counts after a failed fsync, since Linux forgets then that the pages were dirty.
        """
        self._sync()
        self._note(journal.durable_line(batch))
        self._durable = batch.stored
        return batch.offset

    def note_resumed(self, resumption: Resumption) -> None:
        """Write down that the stream resumes. See `Upload.note_resumed`."""
        before = os.fstat(self._journal)
        self._note(journal.resumed_line(resumption))
        _keep_age(self._journal, before)

    def catch_up(self, most: int) -> bool:
        """Hash at most so many bytes of what an earlier process has written. See `Upload.catch_up`.

        The hash of the whole file goes into its `.sha256`, and dies with the process that computed it.
        """
        end = min(self.size, self._hashed + most)
        while self._hashed < end:
            with examining(self._store, self.key, held=True):
                block = os.pread(self._data, min(_BLOCK, end - self._hashed), self._hashed)
                if not block:
                    msg = f"its data file ends at {self._hashed}, and {self.size} bytes were written"
                    raise PartialDamaged(msg)
            self._file_hash.update(block)
            self._hashed += len(block)
        return self._hashed == self.size

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the data file. See `Upload.read`."""
        with examining(self._store, self.key, held=True):
            return os.pread(self._data, size, start)

    def seal(self, chunks: int) -> tuple[int, str]:
        """Write index and seek table behind the frames, and sync. See `Upload.seal`."""
        if self._durable != self.size:
            msg = f"partial {self.key}: {self.size} bytes are written, of which only {self._durable} are durable"
            raise StoreError(msg)
        while not self.catch_up(_BLOCK):
            pass
        for piece in tables(self._entries(), chunks):
            self.append(piece)
        self._sync()
        return self.size, self._file_hash.hexdigest()

    def _entries(self) -> Iterator[IndexEntry]:
        with examining(self._store, self.key, held=True):
            yield from journal_entries(self._store, self.key)

    @property
    def begun(self) -> str | None:
        """When its stream was first offered. See `Upload.begun`."""
        opened = journal.read_opened(_path(self._store, self.key, _JOURNAL))
        return opened.at if opened else None

    def commit(self, file: PurePosixPath, manifest: Manifest) -> bool:
        """Put the stream in place. See `Upload.commit`. The order is the promise (docs/format.md, "Write order").

        From the journal's `commit` line on, a restart completes what is left.
        """
        target = self._store.root / file
        if _is_stored(target):
            self.close(keep=False)
            return False
        _refuse_orphan(self._store, file)
        _make_folder(self._store, target.parent)
        line = hash_line(manifest.file_sha256, file)
        write_file(_path(self._store, self.key, HASH_SUFFIX), line, 0o640)
        write_file(_path(self._store, self.key, MANIFEST_SUFFIX), manifest.to_json(), 0o640)
        sync_folder(self._store.partial)
        self._committing = True  # even where that fails: what reached the disk is not known
        self._note(journal.commit_line(file))
        self.close(keep=True)
        return _put_in_place(self._store, self.key, file)

    def _sync(self) -> None:
        self._refuse_failed()
        try:
            os.fdatasync(self._data)
        except BaseException:
            self._failed = True
            raise

    def _note(self, line: bytes) -> None:
        self._refuse_failed()
        before = os.fstat(self._journal).st_size
        try:
            write_all(self._journal, line)
            os.fdatasync(self._journal)
        except BaseException:
            self._failed = True
            # The next one to resume it would find a line that may never reach the disk, and take it for durable.
            with contextlib.suppress(OSError):
                os.ftruncate(self._journal, before)
            raise

    def _refuse_failed(self) -> None:
        if self._failed:
            msg = f"partial {self.key}: syncing failed before, nothing later counts as durable"
            raise StoreError(msg)


def begin_partial(store: LocalStore, key: str, opened: Opened) -> LocalUpload:
    """Begin a new partial. One of the same key is thrown away, or set aside where it is damaged; its commit, had that
    begun, is completed.

    Raises: OSError, StoreError.
    """
    committing = None
    with contextlib.suppress(PartialDamaged), examining(store, key):
        committing = journal.read(_path(store, key, _JOURNAL)).committing
    if committing is not None:
        _complete(store, key, committing)
    else:
        discard(store, key)
    partial = _open(store, key, os.O_CREAT | os.O_EXCL)
    try:
        partial._note(journal.open_line(opened))  # noqa: SLF001 - it is ours
        sync_folder(store.partial)
    except BaseException:
        partial.close(keep=True)
        raise
    return partial


def reopen_partial(store: LocalStore, key: str, *, at_resume_point: bool) -> tuple[LocalUpload, Standing] | None:
    """Open a partial to go on with it: where its durable bytes end, or `at_resume_point` behind the last chunk of them
    that ends with a resumable record. What is behind that place is thrown away.

    Returns: it, and where it stands; None where there is nothing to go on with: nothing is changed then, but that what
    is damaged is set aside. Raises: OSError, StoreError.
    """
    path = _path(store, key, _JOURNAL)
    try:
        with examining(store, key):
            found = journal.read(path)
            place = journal.standing(path, at_resume_point=at_resume_point) if found.committing is None else None
            if place is not None:
                _check_size(store, key, found.stored)
    except (FileNotFoundError, PartialDamaged):
        return None
    if place is None or not place.may_go_on:
        return None
    if len(place.segments) > limits.SEGMENTS_MAX - limits.SEGMENTS_RESUMED:
        return None  # interrupted too often: the manifest has no room for more
    if place.offset != found.offset:
        _cut_journal(store, path, place)
        found = journal.read(path)
    # Also what a write left behind that failed, or was never acknowledged.
    _cut_back(store, key, place.stored, found.whole)
    return _open(store, key, 0, size=place.stored), place


def _open(store: LocalStore, key: str, flags: int, *, size: int = 0) -> LocalUpload:
    opened = []
    try:
        opened.append(data := os.open(_path(store, key, _DATA), os.O_RDWR | os.O_CLOEXEC | flags, 0o640))
        if size:
            os.lseek(data, size, os.SEEK_SET)
        path = _path(store, key, _JOURNAL)
        opened.append(log := os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600))
        _lock(path, log)
    except BaseException:
        _close(key, *opened)
        raise
    return LocalUpload(store, key, data, log, size=size)


def _lock(path: Path, descriptor: int) -> None:
    """Lock a journal, so that another process can tell (`is_arriving`). One daemon at a time has a partial open, and
    only once, so that this waits only for a process that looks just now. Raises: StoreError where that is in vain;
    OSError.
    """
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                msg = (
                    f"{path}: is locked by somebody else for {_LOCK_SECONDS:g} s now; `fuser` says by whom: end that,"
                    " or restart fullsendd where it is fullsendd itself"
                )
                raise StoreError(msg) from None
            time.sleep(_LOCK_STEP)
        else:
            return


def _close(key: str, *descriptors: int) -> None:
    """Close what is open (-1: is not), all of it whatever happens: Linux has closed a file also where it reports an
    error. That is of bytes that were not synced, so that none of them was acknowledged, and only the log says so.
    """
    for descriptor in descriptors:
        try:
            if descriptor >= 0:
                os.close(descriptor)
        except OSError as error:
            log.warning("partial %s: closing it: %s; what was acknowledged is durable all the same", key, error)


def _cut_journal(store: LocalStore, path: Path, place: Standing) -> None:
    """Make the journal end at a place within it: it is replaced, since at no moment it may say less than that."""
    with path.open("rb") as file:
        head = file.read(place.line)
    before = path.stat()
    replace_file(path, head + journal.durable_line(place.part), beside=store.partial)
    _keep_age(path, before)


def _keep_age(path: Path | int, before: os.stat_result) -> None:
    """Let a journal be as old as it was: with what was just done to it nothing has arrived (`partial-keep`)."""
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def recover(store: LocalStore) -> list[str]:
    """After a start: complete commits, cut partials back to what was acknowledged, throw away what holds nothing, set
    aside what has lost what was acknowledged. What cannot be done to one keeps nothing from being done to the others:
    the log says so, and it is left as it is.

    Returns: a line for the log for each thing done. Raises: OSError where not even the folder can be read.
    """
    done = []
    for key, _journal in journals(store):
        try:
            done += _recover(store, key)
        except PartialDamaged:
            continue  # set aside, and the log says so
        except (OSError, StoreError) as error:
            log.error(  # noqa: TRY400 - where it was found says nothing
                "partial %s: is left to the next push of its stream, or to the next start: %s", key, error
            )
    for suffix in (_DATA, HASH_SUFFIX, MANIFEST_SUFFIX):
        for path in store.partial.glob(f"*{suffix}"):
            _remove_stray(path, path.with_suffix(_JOURNAL))
    for path in store.partial.glob(".*.tmp"):  # of a journal that was being replaced
        _remove_stray(path, None)
    return done


def _recover(store: LocalStore, key: str) -> list[str]:
    with examining(store, key):
        said = journal.read(_path(store, key, _JOURNAL))
        if said.committing is None and said.offset is not None:
            _check_size(store, key, said.stored)
    if said.committing is not None:
        if _complete(store, key, said.committing):
            return [f"{said.committing}: its commit was interrupted and is complete now"]
        return [f"{said.committing}: was stored twice; the first one stays"]
    if said.offset is None:
        discard(store, key)
        return []
    _cut_back(store, key, said.stored, said.whole)
    return [f"partial {key}: kept, with {said.offset} raw bytes"]


def _remove_stray(path: Path, owner: Path | None) -> None:
    """Remove a file that means nothing without its `owner`, where that is not there."""
    try:
        if owner is None or not owner.exists():
            path.unlink()
    except OSError as error:
        log.error("%s: is of no use, and cannot be removed: %s", path, error)  # noqa: TRY400


def committing(store: LocalStore) -> set[PurePosixPath]:
    """Return the files whose commit has begun and is not complete."""
    said = survey(store, lambda upload: upload.journal)
    return {each.committing for _key, each in said if each.committing is not None}


@contextlib.contextmanager
def examining(store: LocalStore, key: str, *, held: bool = False, reads_only: bool = False) -> Iterator[None]:
    """Read of a partial. Where it shows that a disk has lost some of it, the partial is set aside, and the log says so:
    its stream starts over, and nobody else need know. `held`: it is we who have it open; `reads_only`: it is left where
    it is, for the daemon.

    Raises: PartialDamaged then; OSError where that says nothing of what is on the disk, as it comes (FileNotFoundError:
    there is nothing, or not any more).
    """
    try:
        yield
    except (PartialDamaged, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _LOST:
            raise
        why = f"cannot be read: {error}" if isinstance(error, OSError) else str(error)
        if reads_only:
            log.error("partial %s: %s; check this disk; the daemon will set it aside", key, why)  # noqa: TRY400
            raise PartialDamaged(f"partial {key}: {why}") from None
        raise PartialDamaged(f"partial {key}: {why}; {_set_aside(store, key, why, held=held)}") from None


def survey(
    store: LocalStore, look: Callable[[LocalUploadInfo], _T], *, sets_aside: bool = False
) -> Iterator[tuple[str, _T]]:
    """Yield what `look` finds about each partial. See `Store.uploads`."""
    for key, path in journals(store):
        try:
            with examining(store, key, reads_only=not sets_aside):
                found = look(LocalUploadInfo(key, path))
        except (FileNotFoundError, PartialDamaged):
            continue
        except OSError as error:
            if error.errno in _SHORT:
                raise
            log.error("partial %s: cannot be looked at: %s", key, error)  # noqa: TRY400 - where says nothing
            continue
        yield key, found


def discard_damaged(store: LocalStore, before: float) -> None:
    """Throw away what was set aside before that moment. See `Store.discard_damaged`."""
    for path in sorted(store.partial.glob(f"*{_DAMAGED}")):
        try:
            # Its time of modification is when it was set aside.
            if path.stat().st_mtime < before:
                path.unlink()
                log.warning("%s: was set aside as damaged, and is thrown away (partial-keep)", path)
        except OSError as error:
            log.error("%s: cannot be thrown away: %s", path, error)  # noqa: TRY400


def journals(store: LocalStore) -> list[tuple[str, Path]]:
    """Return the keys of all partials, each with its journal."""
    return sorted((path.name.removesuffix(_JOURNAL), path) for path in store.partial.glob(f"*{_JOURNAL}"))


def is_arriving(path: Path) -> bool:
    """Whether somebody has the partial of this journal open. Raises: FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def discard(store: LocalStore, key: str) -> None:
    """Throw a partial away. The journal goes first, for good: the rest means nothing without it."""
    first, *rest = (_path(store, key, suffix) for suffix in (_JOURNAL, HASH_SUFFIX, MANIFEST_SUFFIX, _DATA))
    with contextlib.suppress(FileNotFoundError):
        first.unlink()
        sync_folder(store.partial)
    for path in rest:
        path.unlink(missing_ok=True)


def discard_closed(store: LocalStore, key: str) -> None:
    """Throw away a partial that nobody has open. See `Store.discard`."""
    with contextlib.suppress(FileNotFoundError):
        if is_arriving(_path(store, key, _JOURNAL)):
            msg = f"partial {key}: is arriving, and is not thrown away beneath its sender"
            raise StoreError(msg)
    discard(store, key)


def journal_entries(store: LocalStore, key: str) -> Iterator[IndexEntry]:
    """Yield the index entries of all durable chunks, in order."""
    return journal.entries(_path(store, key, _JOURNAL))


def _path(store: LocalStore, key: str, suffix: str) -> Path:
    return store.partial / (key + suffix)


def _cut_back(store: LocalStore, key: str, stored: int, whole: int) -> None:
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


def _check_size(store: LocalStore, key: str, stored: int) -> None:
    """Raises: PartialDamaged where the data file is shorter than the journal says."""
    found = _size(_path(store, key, _DATA))
    if found < stored:
        msg = f"has {found} bytes where {stored} were acknowledged: this disk has lost what it had synced"
        raise PartialDamaged(msg)


def _set_aside(store: LocalStore, key: str, why: str, *, held: bool) -> str:
    """Put a partial that cannot be gone on with where nobody takes it for one, for a person to look at. What somebody
    has open is left to him: he will find the same.

    Returns: what has become of it.
    """
    arriving = False
    with contextlib.suppress(OSError):  # it cannot be opened: nobody has
        arriving = not held and is_arriving(_path(store, key, _JOURNAL))
    if arriving:
        outcome = "it is arriving now, and left to its end"
    else:
        try:
            _rename_damaged(store, key)
            outcome = f"it is set aside as {_path(store, key, _DATA + _DAMAGED)}, and its stream starts over"
        except OSError as error:
            outcome = f"it cannot be set aside: {error}"
    log.error("partial %s: %s; check this disk; %s", key, why, outcome)
    return outcome


def _rename_damaged(store: LocalStore, key: str) -> None:
    # The journal last: until then another start finds the same, and does the rest.
    for suffix in (_DATA, _JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            path = _path(store, key, suffix)
            os.utime(path)  # from when on it waits for a person
            path.replace(path.with_name(path.name + _DAMAGED))
    sync_folder(store.partial)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_stored(target: Path) -> bool:
    return target.with_name(target.name + MANIFEST_SUFFIX).exists()


def _refuse_orphan(store: LocalStore, file: PurePosixPath) -> None:
    """A `.zst` without manifest is never overwritten: it may be somebody's only copy."""
    if (store.root / file).exists():
        msg = f"{file}: is there without its manifest; run `fullsendd verify` to take it back into the store"
        raise StoreError(msg)


def _make_folder(store: LocalStore, folder: Path) -> None:
    """Make a dataset's folder, durable with all that lead to it, and see that a rename can reach it."""
    make_folders(folder)
    # Also those that were there: another stream, or a run that was killed, may have made them without syncing yet.
    sync_folders(folder, store.root)
    if folder.stat().st_dev != store.partial.stat().st_dev:
        _refuse_other_file_system(folder)


def _complete(store: LocalStore, key: str, file: PurePosixPath) -> bool:
    """Complete a commit that was cut short. Returns: as `_put_in_place`."""
    _make_folder(store, (store.root / file).parent)
    return _put_in_place(store, key, file)


def _put_in_place(store: LocalStore, key: str, file: PurePosixPath) -> bool:
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


def _claim(store: LocalStore, data: Path, file: PurePosixPath) -> bool:
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


def remove_temporaries(store: LocalStore) -> None:
    """Remove what `replace_file` left behind in `.state` when it was killed. A process that changes something
    there now holds the lock.
    """
    with locked(store.lock):
        for path in store.state.glob(".*.tmp"):
            path.unlink()
