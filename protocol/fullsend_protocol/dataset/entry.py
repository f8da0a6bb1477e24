"""One file, directory or link that is to be made again: its attributes, and the interface of what makes it."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fullsend_protocol.shared.units import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fullsend_protocol.dataset.nodes import Time

#: The types of `special` that are no symlinks.
DEVICES: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK})


@dataclass(frozen=True, slots=True)
class Entry:
    """What is made. `mode`: type and permissions, as in `st_mode`; `size`: bytes of a regular file; `device`: major and
    minor number, None: none; `target`: of a symlink, None: it is none; `xattrs`: values by names, as Linux has them.
    """

    mode: int
    size: int
    uid: int
    gid: int
    atime: Time
    mtime: Time
    device: tuple[int, int] | None
    target: bytes | None
    xattrs: Mapping[bytes, bytes]


class EntryMaker(Protocol):
    """Makes files, one after another. Paths are relative; each directory is made before what it has.

    Nothing counts before the caller knows that all that it was told is proven.
    """

    def directory(self, path: bytes) -> None:
        """Make a directory, still without attributes."""

    def file(self, path: bytes, entry: Entry) -> None:
        """Begin a regular file. Until `end_file`, only `data` follows."""

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write contents of the file that was begun. What is never written is zero."""

    def end_file(self) -> None:
        """End the file."""

    def special(self, path: bytes, entry: Entry) -> None:
        """Make a symlink, device, fifo or socket."""

    def link(self, path: bytes, first: bytes) -> None:
        """Make another name of a file that was made as `first`."""

    def describe(self, path: bytes, entry: Entry) -> None:
        """Give a directory its attributes, behind all that is inside. The path of the whole is empty."""


class VolumeMaker(Protocol):
    """Makes the image of a volume."""

    def volume(self, size: int) -> None:
        """Begin. `size`: bytes."""

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write contents, all of them before the end. What is never written is zero."""


def shown(path: bytes) -> str:
    """Return a path as it may stand in a message."""
    return printable(path.decode(errors="surrogateescape") or "/")
