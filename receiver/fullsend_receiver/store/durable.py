"""Functions that make files durable.

`fsync` of a new file does not cover its name: the folder needs its own. All functions here block on the disk; call them
off the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fullsend_receiver.store.group_sync import GroupSync

_MODE = 0o600
#: The signature of a missing file.
ABSENT: Final = (0, 0, 0)
#: errno values that mean "full": the disk, the quota, or the largest allowed file.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FOLDERS: Final = GroupSync(_sync_folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Threads that sync the same folder at the same time share a sync."""
    _FOLDERS.sync(folder)


def sync_folders(folder: Path, root: Path) -> None:
    """Make the names of `folder` and of all folders between it and `root` durable, whichever process made them."""
    while folder != root:
        folder = folder.parent
        sync_folder(folder)


def make_folders(folder: Path, mode: int = 0o750) -> None:
    """Make `folder` and the missing folders above it, each durable.

    An existing folder may have been made just now, and not be durable yet: see `sync_folders`.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=mode, exist_ok=True)
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all bytes: one `write` may write fewer, for example of more than 2 GiB, or just before a disk is full."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(
    path: Path, data: bytes | Iterable[bytes], mode: int = _MODE, *, durable: bool = True, exact: bool = False
) -> None:
    """Write a new file and make its bytes durable, its name not yet. An existing file is replaced. `data`: in one
    piece, or piece by piece; `exact`: the file has this mode, whatever the process's umask.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        if exact:
            os.fchmod(descriptor, mode)
        for piece in (data,) if isinstance(data, bytes) else data:
            write_all(descriptor, piece)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(
    path: Path,
    data: bytes | Iterable[bytes],
    mode: int = _MODE,
    *,
    beside: Path | None = None,
    durable: bool = True,
    exact: bool = False,
) -> None:
    """Replace a file as a whole: after a crash at any moment it is the old one or the new one.

    `beside`: the folder, on the same file system, in which the new one is written first; None: the file's own folder. A
    crash may leave it there, for `remove_temporaries`. `durable` False: after a power cut the file may have any
    content, which its reader must notice. `exact`: see `write_file`. Raises: OSError, which names `path`.
    """
    temporary = (beside or path.parent) / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        write_file(temporary, data, mode, durable=durable, exact=exact)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error tells more than this one
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # a failed write names no file
            del error.filename2  # a rename names two; None would be printed
        raise
    if durable:
        sync_folder(path.parent)


def signature(path: Path) -> tuple[int, int, int]:
    """Return the identity of a file, which changes if it is replaced: inode, time of writing (ns), size; or ABSENT."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ABSENT
    return status.st_ino, status.st_mtime_ns, status.st_size


def open_lock(path: Path) -> int:
    """Open the file of a lock; it is made if it is missing. On a file system that is read-only, an existing one is
    opened for reading, which is enough for a lock. Returns: a descriptor. Raises: OSError; EROFS if it is missing
    there.
    """
    try:
        return _open_lock_to_write(path)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise error from None


def _open_lock_to_write(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file. Raises: FileNotFoundError, OSError."""
    with unlocked(path) as free:
        return not free


@contextlib.contextmanager
def unlocked(path: Path) -> Iterator[bool]:
    """Yields: whether no process holds the lock of this file. If so, none takes it inside this context. Any number of
    processes may be inside it. Raises: FileNotFoundError, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lock_now(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def lock_now(descriptor: int, kind: int) -> bool:
    """Lock an open file if no other process prevents it. `kind`: fcntl.LOCK_SH, or LOCK_EX. Returns: whether it is
    locked. Raises: OSError.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0: it is missing. Raises: OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def folders_below(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield `top` and all folders below it, each with the names of its files. Those that are removed meanwhile are
    omitted. Raises: OSError.
    """
    for folder, _folders, files in os.walk(top, onerror=_raise_unless_missing):
        yield Path(folder), files


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def append_lines(path: Path, lines: bytes, *, durable: bool = True) -> tuple[int, bytes]:
    """Append whole lines to a file, which is made if it is missing. The caller holds a lock.

    Returns: the size of the file before, and what was appended: a newline first, if a process was killed while it wrote
    the last line. Raises: OSError; a part may have been appended then.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
    try:
        size = os.fstat(descriptor).st_size
        if size > 0 and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        write_all(descriptor, lines)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return size, lines


@contextlib.contextmanager
def locked_now(path: Path, *, read_only: bool = False) -> Iterator[bool]:
    """Hold the same lock as `locked` if no process holds it, else nothing. `read_only`: also on a file system that is
    mounted read-only, as `open_lock` does. Yields: whether it is held. Raises: OSError.
    """
    descriptor = open_lock(path) if read_only else _open_lock_to_write(path)
    try:
        yield lock_now(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing); waits until no other process holds it."""
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
