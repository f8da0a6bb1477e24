"""Compares two folders in all that a restore must bring back. Blocks; bounded in memory.

    type, mode, owner, link count, object number, device, times of writing and of change, size
    extended attributes, POSIX ACLs among them
    the targets of symbolic links, and all bytes of regular files

Bytes are compared with bytes, which says more than a checksum. A hole is the same as zeros. A file with several names
is read once. The time of the last access is not compared.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import reason
from fullsend_protocol.shared.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes that are read at a time, of each side.
_PIECE: Final = 1 << 20
#: Differences that are named.
_NAMED: Final = 20
#: The virtual folder of ZFS, which `snapdir=visible` shows.
_CONTROL: Final = b".zfs"
_NUMBER: Final = "object number"
#: What says that a file system, or a kind of file, has no extended attributes.
_NO_ATTRIBUTES: Final = {errno.ENOTSUP, errno.EPERM, errno.ENODATA}


class ComparisonStopped(Exception):  # noqa: N818 - not an error: the caller wanted it
    """The comparison was stopped."""


@dataclass(slots=True)
class TreeComparison:
    """`files`: number of files and folders that were compared; `raw_bytes`: of their contents; `differences`: the first
    of them, a line each; `different`: their number.
    """

    files: int = 0
    raw_bytes: int = 0
    differences: list[str] = field(default_factory=list)
    different: int = 0

    def note(self, path: bytes, what: str) -> None:
        """Add a difference of a file. `path`: below the folder."""
        self.different += 1
        if len(self.differences) < _NAMED:
            name = printable(os.fsdecode(path).encode(errors="backslashreplace").decode())
            self.differences.append(f"/{name}: {what}")


def zfs_facts(of: os.stat_result) -> dict[str, int]:
    """Return what `zfs receive` restores of what `stat` says, by name. Object numbers are the same, too."""
    facts = {
        "type and mode": of.st_mode,
        "owner": of.st_uid,
        "group": of.st_gid,
        "link count": of.st_nlink,
        _NUMBER: of.st_ino,
        "time of the last write": of.st_mtime_ns,
        "time of the last change": of.st_ctime_ns,
    }
    if stat.S_ISREG(of.st_mode) or stat.S_ISLNK(of.st_mode):
        facts["size"] = of.st_size
    if stat.S_ISBLK(of.st_mode) or stat.S_ISCHR(of.st_mode):
        facts["device"] = of.st_rdev
    return facts


class Comparer:
    """Compares one folder (`here`) with another (`there`, the restored one)."""

    def __init__(
        self,
        here: bytes,
        there: bytes,
        *,
        progress: Callable[[int], None] = lambda _size: None,
        stopped: Callable[[], bool] = lambda: False,
        facts: Callable[[os.stat_result], dict[str, int]] = zfs_facts,
    ) -> None:
        """`progress`: is called with compared bytes; `stopped`: returns whether to stop, asked often; `facts`: returns
        what must be equal in the `stat` of two files, by name.
        """
        self._here = here
        self._there = there
        self._progress = progress
        self._facts = facts
        self._stopped = stopped
        self._seen: set[int] = set()  # object numbers of files with several names, whose bytes were compared
        self._found = TreeComparison()
        self._one = memoryview(bytearray(_PIECE))
        self._other = memoryview(bytearray(_PIECE))

    def compare(self) -> TreeComparison:
        """Compare all. Raises: ComparisonStopped. What cannot be read is a difference."""
        left = [b""]
        while left:
            path = left.pop()
            self._check_stop()
            try:
                below = self._compare_one(path)
            except OSError as error:
                self._found.note(path, f"cannot be read: {reason(error)}")
                continue
            left += [os.path.join(path, name) for name in below]
        return self._found

    def _check_stop(self) -> None:
        if self._stopped():
            raise ComparisonStopped

    def _compare_one(self, path: bytes) -> list[bytes]:
        """Compare a file or folder. Returns: the names in both folders. Raises: OSError."""
        here, there = os.path.join(self._here, path), os.path.join(self._there, path)
        one, other = os.lstat(here), os.lstat(there)
        self._found.files += 1
        before, after = self._facts(one), self._facts(other)
        told = [name for name in before if before[name] != after.get(name)]
        if not path:
            # The root of a mounted snapshot has a number that depends on the dataset.
            told = [name for name in told if name != _NUMBER]
        if told:
            self._found.note(path, f"{', '.join(told)}: not as here")
        if stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
            return []
        self._compare_attributes(path, here, there)
        if stat.S_ISDIR(one.st_mode):
            return self._compare_names(path, here, there)
        if stat.S_ISLNK(one.st_mode):
            if os.readlink(here) != os.readlink(there):
                self._found.note(path, "links to another target")
        elif stat.S_ISREG(one.st_mode) and one.st_size == other.st_size:
            if one.st_nlink > 1 and one.st_ino == other.st_ino:
                if one.st_ino in self._seen:
                    return []
                self._seen.add(one.st_ino)
            self._compare_bytes(path, here, there, one.st_size)
        return []

    def _compare_names(self, path: bytes, here: bytes, there: bytes) -> list[bytes]:
        hidden = {_CONTROL} if not path else set()
        one, other = set(os.listdir(here)) - hidden, set(os.listdir(there)) - hidden
        for name in sorted(one - other):
            self._found.note(os.path.join(path, name), "is missing in what was restored")
        for name in sorted(other - one):
            self._found.note(os.path.join(path, name), "was restored, and is not in the snapshot here")
        return sorted(one & other, reverse=True)

    def _compare_attributes(self, path: bytes, here: bytes, there: bytes) -> None:
        names = _attributes(here)
        if names != _attributes(there):
            self._found.note(path, "other extended attributes")
            return
        for name in names:
            if os.getxattr(here, name, follow_symlinks=False) != os.getxattr(there, name, follow_symlinks=False):
                self._found.note(path, f"another value of the extended attribute {printable(name)}")

    def _compare_bytes(self, path: bytes, here: bytes, there: bytes, size: int) -> None:
        one = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            other = os.open(there, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                at = self._first_difference(one, other, size)
            finally:
                os.close(other)
        finally:
            os.close(one)
        if at is not None:
            self._found.note(path, f"other bytes, from about byte {at} on")

    def _first_difference(self, one: int, other: int, size: int) -> int | None:
        """Return where two files differ, to a piece; None: nowhere. Holes that both have are skipped."""
        at = 0
        while at < size:
            self._check_stop()
            at = min(_next_data(one, at, size), _next_data(other, at, size))
            count = min(_PIECE, size - at)
            if not count:
                break
            if _fill(one, self._one[:count], at) != count or _fill(other, self._other[:count], at) != count:
                return at
            if self._one[:count] != self._other[:count]:
                return at
            at += count
            self._found.raw_bytes += count
            self._progress(count)
        return None


def _attributes(path: bytes) -> list[str]:
    try:
        return sorted(os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return []
        raise


def _next_data(fd: int, at: int, size: int) -> int:
    """Return where the next bytes are that are not in a hole; `size`: there are none."""
    try:
        return min(os.lseek(fd, at, os.SEEK_DATA), size)
    except OSError as error:
        # Otherwise this file system does not tell.
        return size if error.errno == errno.ENXIO else at


def _fill(fd: int, view: memoryview, at: int) -> int:
    """Read to the end of `view`, or of the file. Returns: bytes read."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], at + done)
        if not count:
            break
        done += count
    return done
