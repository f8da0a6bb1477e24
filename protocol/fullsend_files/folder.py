"""Makes files in a folder of this host: contents, modes, owners, times, links, extended attributes, holes.

Names and attributes are not trusted. All is made inside a new folder of our own, by its descriptor, one component after
another, and no link is followed. When all is proven, it is moved to its place; else removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Final

from fullsend_files.troubles import permissions
from fullsend_protocol.dataset.entry import DEVICES
from fullsend_protocol.shared.errors import OutputExists, OutputFailed, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fullsend_files.troubles import Troubles, Wishes
    from fullsend_protocol.dataset.entry import Entry

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Errors after which no other file can be written either.
_FATAL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
#: Nanoseconds since 1970 that `utime` takes: a signed 64-bit integer of seconds is far more than file systems have.
_SECONDS_MAX: Final = 1 << 62
#: Directories that could not be made and are remembered, so that each is named once. A peer chooses how many there are.
_LOST_MAX: Final = 4096
#: Bytes of a path that is remembered: PATH_MAX of Linux.
_PATH_MAX: Final = 4096
#: Capabilities of a program, which are a setuid bit in parts.
_CAPABILITIES: Final = b"security.capability"
_OWNER_MAX: Final = (1 << 32) - 2  # the number above means "unchanged"


class Folder:
    """An EntryMaker in a new or empty folder."""

    def __init__(self, into: Path, wishes: Wishes, troubles: Troubles) -> None:
        """Make the folder. Raises: OutputExists, OutputFailed."""
        self._into = into
        self._wishes = wishes
        self._troubles = troubles
        self._lost: set[bytes] = set()  # directories that could not be made
        self._parent: tuple[bytes, int] | None = None  # the last folder that was opened
        self._file: tuple[bytes, Entry, int] | None = None  # the file that is written, with its descriptor
        self._top: Entry | None = None
        try:
            into.mkdir(exist_ok=True)
            if next(into.iterdir(), None) is not None:
                msg = f"{into} is not empty: name a new folder, or an empty one"
                raise OutputExists(msg)
            self._staging = into / f".fullsend-get-{secrets.token_hex(4)}"
            self._staging.mkdir(mode=0o700)
            self._root = os.open(self._staging, _FOLDER)
        except OSError as error:
            msg = f"{into} cannot be written: {reason(error)}"
            raise OutputFailed(msg) from None

    # --- as an EntryMaker ----------------------------------------------------------------------------------------

    def directory(self, path: bytes) -> None:
        """See EntryMaker."""
        with self._trying(path), self._place(path) as (folder, name):
            os.mkdir(name, 0o700, dir_fd=folder)
            return
        if len(self._lost) < _LOST_MAX and len(path) <= _PATH_MAX:
            self._lost.add(path)

    def file(self, path: bytes, entry: Entry) -> None:
        """See EntryMaker."""
        with self._trying(path), self._place(path) as (folder, name):
            self._file = path, entry, os.open(name, _NEW, 0o600, dir_fd=folder)

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See EntryMaker. Of a file that cannot be made, it does nothing."""
        if self._file is not None:
            with self._filling():
                _write(self._file[2], memoryview(data), offset)

    def end_file(self) -> None:
        """See EntryMaker."""
        if self._file is None:
            return
        path, entry, descriptor = self._file
        with self._filling():
            os.ftruncate(descriptor, entry.size)
            with self._trying(path, "has not all its attributes"):
                self._describe(path, entry, descriptor)
        self._close_file()

    def special(self, path: bytes, entry: Entry) -> None:
        """See EntryMaker. Devices, fifos and sockets only where they are wished."""
        if entry.target is None and not self._wishes.special:
            self._troubles.left_out += 1
            return
        with self._trying(path), self._place(path) as (folder, name):
            if entry.target is not None:
                os.symlink(entry.target, name, dir_fd=folder)
            elif stat.S_IFMT(entry.mode) in DEVICES:
                device = os.makedev(*entry.device) if entry.device is not None else 0
                os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, device, dir_fd=folder)
            else:
                msg = f"is of an unknown kind, {entry.mode:o}"
                raise ValueError(msg)
            here = os.fsencode(f"/proc/self/fd/{folder}/") + name
            self._xattrs(path, entry, here)
            if self._wishes.owner:
                os.chown(name, *self._owner(path, entry), dir_fd=folder, follow_symlinks=False)
            if entry.target is None:
                os.chmod(here, permissions(entry.mode, self._wishes, self._troubles))
            os.utime(name, ns=_times(entry), dir_fd=folder, follow_symlinks=False)

    def link(self, path: bytes, first: bytes) -> None:
        """See EntryMaker."""
        with self._trying(path), self._place(path) as (folder, name):
            source, old = _divided(first)
            descriptor = self._open(source)
            try:
                os.link(old, name, src_dir_fd=descriptor, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(descriptor)

    def describe(self, path: bytes, entry: Entry) -> None:
        """See EntryMaker. The folder itself gets its attributes in `publish`."""
        if not path:
            self._top = entry
        elif path not in self._lost:
            self._describe_folder(path, entry)

    # --- the end -----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Give everything its place. All of it must be proven, and every directory described. Raises: OutputFailed."""
        self._close()
        try:
            names = os.listdir(self._root)
            for name in names:
                self._check_free(name)
            for name in names:
                self._move(name)
            self._staging.rmdir()
            if self._top is not None:
                self._describe_folder(b"", self._top)
        except OSError as error:
            msg = f"{self._into} cannot be written: {reason(error)}; the files are in {self._staging}"
            raise OutputFailed(msg) from None
        finally:
            os.close(self._root)

    def discard(self) -> None:
        """Remove all that was made."""
        self._close()
        os.close(self._root)
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._staging.exists():  # some folders have got a mode by which their owner may not change them
            for folder, folders, _files in os.walk(os.fsencode(self._staging)):
                for each in (os.path.join(folder, name) for name in folders):
                    if not os.path.islink(each):
                        os.chmod(each, 0o700)
            shutil.rmtree(self._staging, ignore_errors=True)

    # --- inside ------------------------------------------------------------------------------------------------

    def _check_free(self, name: str) -> None:
        """Check that nobody has put something there meanwhile: a rename would replace it. Raises: FileExistsError."""
        if os.path.lexists(self._into / name):
            raise FileExistsError(errno.EEXIST, f"{name} was put there meanwhile")

    def _move(self, name: str) -> None:
        """Give something at the top its place. Raises: OSError."""
        self._check_free(name)
        place = self._into / name
        try:
            os.rename(name, place, src_dir_fd=self._root)
        except PermissionError:
            # A folder without write permission: its owner may not move it, since its `..` changes.
            mode = os.lstat(name, dir_fd=self._root).st_mode
            if not stat.S_ISDIR(mode):
                raise
            os.chmod(name, 0o700, dir_fd=self._root)
            os.rename(name, place, src_dir_fd=self._root)
            os.chmod(place, stat.S_IMODE(mode))

    @contextlib.contextmanager
    def _trying(self, path: bytes, what: str = "cannot be made here") -> Iterator[None]:
        """Note what fails of one file. Raises: OutputFailed if others would fail, too."""
        try:
            yield
        except (OSError, OverflowError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _FATAL:
                msg = f"{self._into} cannot be written: {reason(error)}"
                raise OutputFailed(msg) from None
            self._troubles.add(path, f"{what}: {reason(error)}")

    @contextlib.contextmanager
    def _filling(self) -> Iterator[None]:
        """As `_trying`, for the contents of the file: if they fail, it is removed. Half of it must not look whole."""
        assert self._file is not None  # noqa: S101 - for mypy
        path = self._file[0]
        with self._trying(path):
            try:
                yield
            except (OSError, OverflowError):
                self._close_file()
                with self._place(path) as (folder, name):
                    os.unlink(name, dir_fd=folder)
                raise

    @contextlib.contextmanager
    def _place(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the folder of a path, or have it open still. Yields: its descriptor, and the name in it."""
        parent, name = _divided(path)
        if self._parent is None or self._parent[0] != parent:
            self._close_parent()
            self._parent = parent, self._open(parent)
        yield self._parent[1], name

    def _open(self, path: bytes) -> int:
        """Open a folder below the staging folder, without following links."""
        here = os.dup(self._root)
        for name in path.split(b"/") if path else ():
            try:
                inside = os.open(_component(name), _FOLDER, dir_fd=here)
            finally:
                os.close(here)
            here = inside
        return here

    def _close(self) -> None:
        self._close_file()
        self._close_parent()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file[2])
            self._file = None

    def _close_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _describe_folder(self, path: bytes, entry: Entry) -> None:
        with self._trying(path):
            # The folder itself may be named by a link, which is its user's.
            descriptor = self._open(path) if path else os.open(self._into, _FOLDER & ~os.O_NOFOLLOW)
            try:
                self._describe(path, entry, descriptor)
            finally:
                os.close(descriptor)

    def _describe(self, path: bytes, entry: Entry, descriptor: int) -> None:
        """Give an open file its attributes. The owner comes first: it clears bits of the mode."""
        if self._wishes.owner:
            os.fchown(descriptor, *self._owner(path, entry))
        self._xattrs(path, entry, descriptor)
        os.fchmod(descriptor, permissions(entry.mode, self._wishes, self._troubles))
        os.utime(descriptor, ns=_times(entry))

    def _owner(self, path: bytes, entry: Entry) -> tuple[int, int]:
        if max(entry.uid, entry.gid) > _OWNER_MAX:
            self._troubles.add(path, f"has the owner {entry.uid}:{entry.gid}, which is none under Linux")
            return -1, -1
        return entry.uid, entry.gid

    def _xattrs(self, path: bytes, entry: Entry, file: int | bytes) -> None:
        for name, value in entry.xattrs.items():
            if name == _CAPABILITIES and not self._wishes.setuid:
                self._troubles.setuid += 1
                continue
            try:
                if isinstance(file, int):
                    os.setxattr(file, name, value)
                else:
                    os.setxattr(file, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno in _FATAL - {errno.ENOSPC}:
                    raise
                self._troubles.add(path, f"the extended attribute {name!r} is lost: {reason(error)}")


def _component(name: bytes) -> bytes:
    """Return the name of something in a folder. Raises: ValueError for one that leads elsewhere."""
    if name in {b"", b".", b".."} or b"/" in name:
        msg = "it has an impossible path"
        raise ValueError(msg)
    return name


def _divided(path: bytes) -> tuple[bytes, bytes]:
    """Return the path of a folder, empty for the top, and the name in it. Raises: ValueError as `_component`."""
    parent, found, name = path.rpartition(b"/")
    if found:
        _component(parent.rpartition(b"/")[2])
    return parent, _component(name)


def _write(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def _times(entry: Entry) -> tuple[int, int]:
    if max(abs(entry.atime.seconds), abs(entry.mtime.seconds)) >= _SECONDS_MAX:
        msg = "its times are impossible"
        raise ValueError(msg)
    return entry.atime.total, entry.mtime.total
