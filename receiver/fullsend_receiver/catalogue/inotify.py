"""Changes in the store's folders, reported by the kernel: inotify(7), through the C library.

The kernel reports a change of a name or a file in a watched folder before the process that made it continues. So a
reader of the reports knows all earlier changes by processes of this host. It does not report changes by another host
that has the same disk, through a network file system or a virtual machine. So folders are watched only on file systems
of this host alone. All others must be examined each time.

inotify does not report file systems that are mounted over a folder or unmounted from it: the table of mounts shows
these (`Mounts`). Two sorts of writes to a file are not reported at all. One is through another name (a hard link
outside the store). The other is through a handle (open_by_handle_at(2), as the kernel's NFS server does). Therefore the
daemon examines everything at intervals (docs/operations.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import struct
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fullsend_receiver.store.mounts import Mounts, file_system

log: Final = logging.getLogger("fullsendd")

# inotify(7)
_MODIFY: Final = 0x2
_ATTRIB: Final = 0x4
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_UNMOUNT: Final = 0x2000
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLY_FOLDERS: Final = 0x1000000
_ISDIR: Final = 0x40000000
_WANTED: Final = (
    _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLY_FOLDERS
)
#: After one of these a folder is no longer in its place.
_GONE: Final = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_EVENT: Final = struct.Struct("iIII")
_READ: Final = 1 << 16
#: Watches that are ended between two readings of the kernel's queue. It reports the end of each, and has 16,384 places.
_FORGOTTEN: Final = 1000
#: File systems that change only through names and files in this kernel. ZFS does not: `zfs rollback` and
#: `zfs receive -F` replace the state of the mounted file system, and the kernel does not report that.
_OWN: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs", "tmpfs"}
)
#: The folder itself, as a name in it.
ITSELF: Final = ""


@dataclass(slots=True)
class Changes:
    """What may have changed. `everything`: anything; `names`: by folder, the names in it."""

    everything: bool = False
    names: dict[str, set[str]] = field(default_factory=dict)

    def add(self, folder: str, name: str) -> None:
        """Add a changed name."""
        self.names.setdefault(folder, set()).add(name)


class Watcher:
    """The changes that the kernel reports. Thread-safe; watches nothing if the kernel cannot report."""

    def __init__(self, root: Path) -> None:
        """`root`: the folder that paths are relative to."""
        self._root = root
        self._guard: Final = threading.Lock()
        # By the kernel's number: where to put the reports, and the folder. (Not the Watch: a cycle of references would
        # keep the descriptor open.)
        self._watched: dict[int, tuple[Changes, str]] = {}
        self._mounts: Final = Mounts(root)
        self._own: dict[int, bool] = {}  # by device: whether its file system is this host's own
        self._complained = False
        self._library, self._descriptor = _open()
        if self._descriptor is not None:
            weakref.finalize(self, os.close, self._descriptor)

    def add(self, changes: Changes, path: str, device: int) -> bool:
        """Watch a folder on this device. Returns: whether its changes are reported from now on."""
        if self._descriptor is None or not self._is_own(path, device):
            return False
        with self._guard:
            number: int = self._library.inotify_add_watch(
                self._descriptor, os.fsencode(self._root / path), ctypes.c_uint32(_WANTED)
            )
            if number < 0:
                self._complain(ctypes.get_errno())
                return False
            # Of a folder that is in two places only one is reported. (A bind mount; nothing else has two.)
            whose, where = self._watched.setdefault(number, (changes, path))
            return whose is changes and where == path

    def forget(self, changes: Changes) -> None:
        """End all watches for this object."""
        with self._guard:
            numbers = [number for number, (whose, _path) in self._watched.items() if whose is changes]
            for count, number in enumerate(numbers, 1):
                self._watched.pop(number, None)
                self._library.inotify_rm_watch(self._descriptor, number)
                if count % _FORGOTTEN == 0:
                    self._read()

    def take(self, changes: Changes) -> Changes:
        """Return the changes until now that were not taken yet."""
        with self._guard:
            if self._mounts.changed():
                self._own.clear()  # another file system may have the number of an unmounted one
                self._doubt_all()
            self._read()
            taken = Changes(changes.everything, changes.names)
            changes.everything, changes.names = False, {}
            return taken

    def _read(self) -> None:
        while self._descriptor is not None:
            try:
                said = os.read(self._descriptor, _READ)
            except BlockingIOError:
                return
            at = 0
            while at < len(said):
                number, mask, _cookie, length = _EVENT.unpack_from(said, at)
                at += _EVENT.size + length
                self._hand_out(number, mask, os.fsdecode(said[at - length : at].rstrip(b"\0")))

    def _hand_out(self, number: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:  # the kernel has dropped reports
            self._doubt_all()
            return
        if number not in self._watched:
            return
        changes, path = self._watched[number]
        if mask & _IGNORED:
            del self._watched[number]
        if mask & _GONE or (mask & _ISDIR and mask & (_DELETE | _MOVED_FROM)):
            changes.everything = True
        elif not (mask & _ISDIR and mask & _ATTRIB and name):  # a folder in it has its own watch
            changes.add(path, name)

    def _doubt_all(self) -> None:
        for changes, _path in self._watched.values():
            changes.everything = True

    def _is_own(self, path: str, device: int) -> bool:
        if device not in self._own:
            self._own[device] = file_system(self._root / path) in _OWN
        return self._own[device]

    def _complain(self, number: int) -> None:
        """Log, once, that there are too many folders."""
        if number == errno.ENOSPC and not self._complained:
            self._complained = True
            log.warning(
                "the kernel watches no more folders for this user: each question examines the disk instead; raise"
                " the sysctl fs.inotify.max_user_watches beyond the number of datasets"
            )


class Watch:
    """The watched folders of one sender."""

    def __init__(self, watcher: Watcher) -> None:
        """Watches nothing yet."""
        self._watcher = watcher
        self._changes = Changes()

    def begin(self) -> None:
        """Stop watching."""
        self._watcher.forget(self._changes)

    def add(self, path: str, device: int) -> bool:
        """Watch a folder (`Watcher.add`)."""
        return self._watcher.add(self._changes, path, device)

    def take(self) -> Changes:
        """Return what has changed since the last call."""
        return self._watcher.take(self._changes)


def _open() -> tuple[ctypes.CDLL, int | None]:
    library = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):  # not Linux
        descriptor: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor >= 0:
            return library, descriptor
        why = os.strerror(ctypes.get_errno())
        log.warning("the kernel does not report changes in the store, so each question examines it: %s", why)
    return library, None
