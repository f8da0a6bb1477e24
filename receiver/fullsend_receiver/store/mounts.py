"""The mounted file systems, as this process sees them: /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

import contextlib
import os
import select
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_TABLE: Final = Path("/proc/self/mountinfo")


class Mounts:
    """The file systems at, above and below a folder. Only one thread at a time may use it."""

    def __init__(self, root: Path) -> None:
        """`root`: the folder. It need not exist."""
        self._root = root
        self._poll: Final = select.poll()
        with contextlib.suppress(OSError):  # not Linux
            descriptor = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            self._poll.register(descriptor, select.POLLPRI)
        self._known = self._find()

    def changed(self) -> bool:
        """Whether they differ from the last call. Takes one system call if nothing was mounted or unmounted."""
        if not self._poll.poll(0):
            return False
        before, self._known = self._known, self._find()
        return self._known is None or self._known != before

    def _find(self) -> list[tuple[bytes, Path]] | None:
        """Return the identity of the set of mounts; None if the table cannot be read."""
        try:
            root = self._root.resolve()
            return [
                (b" ".join(words[:4]), place)  # of the mount, of the mount above it, its device, its folder there
                for words, place in _read()
                if place.is_relative_to(root) or root.is_relative_to(place)
            ]
        except (OSError, RuntimeError):  # RuntimeError: a cycle of symbolic links
            return None


class _Mount(NamedTuple):
    """A mounted file system. `options`: of this mount alone; `shared`: of the file system, wherever it is mounted."""

    kind: bytes
    device: bytes
    place: Path
    options: frozenset[bytes]
    shared: frozenset[bytes]


def file_system(path: Path) -> str:
    """Return the type of the file system of a path; empty if it is unknown."""
    found = _mount_of(path)
    return "" if found is None else found.kind.decode()


def disk_of(path: Path) -> str:
    """Return the device of the file system of a path, and where it is mounted; if that is unknown, the path."""
    found = _mount_of(path)
    return str(path) if found is None else f"{os.fsdecode(found.device)} on {found.place}"


def is_read_only_here(path: Path) -> bool:
    """Whether a path cannot be written to although its file system is not read-only: the mount is, as in the sandbox of
    a service. False if that is unknown.
    """
    found = _mount_of(path)
    return found is not None and b"ro" in found.options and b"ro" not in found.shared


def _mount_of(path: Path) -> _Mount | None:
    """Return the mounted file system of a path; None if that is unknown."""
    found, best = None, -1
    try:
        wanted = path.resolve(strict=True)
        for words, place in _read():
            # If two are mounted at one place, the later one hides the earlier one.
            if wanted.is_relative_to(place) and len(place.parts) >= best:
                kind, device, shared = words[words.index(b"-") + 1 :][:3]
                options = (frozenset(each.split(b",")) for each in (words[5], shared))
                found, best = _Mount(kind, device, place, *options), len(place.parts)
    except (OSError, RuntimeError):  # RuntimeError: a cycle of symbolic links
        return None
    return found


def _read() -> Iterator[tuple[list[bytes], Path]]:
    """Yield the words of each line, and the folder at which that file system is mounted. Raises: OSError."""
    for line in _TABLE.read_bytes().splitlines():
        words = line.split(b" ")
        place = words[4].decode("unicode_escape").encode("latin-1")
        yield words, Path(os.fsdecode(place))
