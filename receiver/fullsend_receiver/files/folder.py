"""Makes files in a folder of this host: contents, modes, owners, times, links, extended attributes, holes.

Names come from a stream, and are not trusted. All is made inside a new folder of our own, by its descriptor, one
component after another, and no link is followed. When the stream is proven, it is moved to its place; else removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import OutputFailed, reason
from fullsend_receiver.files.delivery import permissions
from fullsend_receiver.maintenance.merge_files import OutputExists

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fullsend_protocol.dataset.nodes import Node
    from fullsend_protocol.dataset.objects import Block
    from fullsend_receiver.files.choice import FileChoice
    from fullsend_receiver.files.delivery import Troubles, Wishes

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Errors after which no other file can be written either.
_FATAL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
#: Nanoseconds since 1970 that `utime` takes: a signed 64-bit integer of seconds is far more than file systems have.
_SECONDS_MAX: Final = 1 << 62
_OWNER_MAX: Final = (1 << 32) - 2  # the number above means "unchanged"


class Folder:
    """A receptacle in a new or empty folder."""

    def __init__(self, into: Path, choice: FileChoice, wishes: Wishes, troubles: Troubles) -> None:
        """Make the folder. Raises: OutputExists, OutputFailed."""
        self._into = into
        self._choice = choice
        self._wishes = wishes
        self._troubles = troubles
        self._lost: set[bytes] = set()  # directories that could not be made
        self._parent: tuple[bytes, int] | None = None  # the last folder that was opened
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

    # --- as a receptacle ---------------------------------------------------------------------------------------

    def directory(self, path: bytes, node: Node) -> None:
        """See Receptacle. Its attributes are set in `publish`."""
        del node
        if path:
            self._lost.add(path)
            with self._trying(path), self._place(path) as (folder, name):
                os.mkdir(name, 0o700, dir_fd=folder)
                self._lost.discard(path)

    def file(self, path: bytes, node: Node, blocks: Iterator[Block]) -> None:
        """See Receptacle."""
        with self._trying(path), self._place(path) as (folder, name):
            descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
            try:
                try:
                    for block in blocks:
                        _write(descriptor, block)
                    os.ftruncate(descriptor, node.size)
                except (OSError, OverflowError):
                    os.unlink(name, dir_fd=folder)  # half a file must not look like a whole one
                    raise
                with self._trying(path, "has not all its attributes"):
                    self._describe(path, node, descriptor)
            finally:
                os.close(descriptor)

    def special(self, path: bytes, node: Node) -> None:
        """See Receptacle."""
        with self._trying(path), self._place(path) as (folder, name):
            if node.target is not None:
                os.symlink(node.target, name, dir_fd=folder)
            else:
                device = os.makedev(*node.device_numbers) if node.device is not None else 0
                os.mknod(name, stat.S_IFMT(node.mode) | 0o600, device, dir_fd=folder)
            here = os.fsencode(f"/proc/self/fd/{folder}/") + name
            self._xattrs(path, node, here)
            if self._wishes.owner:
                os.chown(name, *self._owner(path, node), dir_fd=folder, follow_symlinks=False)
            if node.target is None:
                os.chmod(here, permissions(node, self._wishes, self._troubles))
            os.utime(name, ns=_times(node), dir_fd=folder, follow_symlinks=False)

    def link(self, path: bytes, first: bytes) -> None:
        """See Receptacle."""
        with self._trying(path), self._place(path) as (folder, name):
            source, _, old = first.rpartition(b"/")
            descriptor = self._open(source)
            try:
                os.link(old, name, src_dir_fd=descriptor, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(descriptor)

    # --- the end -----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Give directories their attributes, and everything its place. The stream must be proven.

        Raises: OutputFailed.
        """
        for path, node in self._choice.directories(deepest_first=True):
            if path and path not in self._lost:
                self._describe_folder(path, node)
        self._close_parent()
        try:
            for name in os.listdir(self._root):
                os.rename(name, self._into / name, src_dir_fd=self._root)
            self._staging.rmdir()
            for path, node in self._choice.directories():
                if not path and self._choice.is_whole:
                    self._describe_folder(path, node)
                break
        except OSError as error:
            msg = f"{self._into} cannot be written: {reason(error)}; the files are in {self._staging}"
            raise OutputFailed(msg) from None
        finally:
            os.close(self._root)

    def discard(self) -> None:
        """Remove all that was made."""
        self._close_parent()
        os.close(self._root)
        shutil.rmtree(self._staging, ignore_errors=True)

    # --- inside ------------------------------------------------------------------------------------------------

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
    def _place(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the folder of a path, or have it open still. Yields: its descriptor, and the name in it."""
        parent, _, name = path.rpartition(b"/")
        if self._parent is None or self._parent[0] != parent:
            self._close_parent()
            self._parent = parent, self._open(parent)
        yield self._parent[1], name

    def _open(self, path: bytes) -> int:
        """Open a folder below the staging folder, without following links."""
        here = os.dup(self._root)
        for name in path.split(b"/") if path else ():
            try:
                inside = os.open(name, _FOLDER, dir_fd=here)
            finally:
                os.close(here)
            here = inside
        return here

    def _close_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _describe_folder(self, path: bytes, node: Node) -> None:
        with self._trying(path):
            descriptor = self._open(path) if path else os.open(self._into, _FOLDER)
            try:
                self._describe(path, node, descriptor)
            finally:
                os.close(descriptor)

    def _describe(self, path: bytes, node: Node, descriptor: int) -> None:
        """Give an open file its attributes. The owner comes first: it clears bits of the mode."""
        if self._wishes.owner:
            os.fchown(descriptor, *self._owner(path, node))
        self._xattrs(path, node, descriptor)
        os.fchmod(descriptor, permissions(node, self._wishes, self._troubles))
        os.utime(descriptor, ns=_times(node))

    def _owner(self, path: bytes, node: Node) -> tuple[int, int]:
        if max(node.uid, node.gid) > _OWNER_MAX:
            self._troubles.add(path, f"has the owner {node.uid}:{node.gid}, which is none under Linux")
            return -1, -1
        return node.uid, node.gid

    def _xattrs(self, path: bytes, node: Node, file: int | bytes) -> None:
        for name, value in self._choice.index.xattrs(node).items():
            if value is None:
                self._troubles.add(path, f"has an extended attribute {name!r} of more than 64 KiB")
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


def _write(descriptor: int, block: Block) -> None:
    data, at = memoryview(block.data), block.offset
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def _times(node: Node) -> tuple[int, int]:
    if max(abs(node.atime.seconds), abs(node.mtime.seconds)) >= _SECONDS_MAX:
        msg = "its times are impossible"
        raise ValueError(msg)
    return node.atime.total, node.mtime.total
