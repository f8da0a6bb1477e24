"""What a pool said of snapshots, beside the streams of them: written where ZFS is, read where it is not.

    Case([Reading.of(mounted_snapshot, names_of_files)]).write(folder)
    Case.read(folder).readings

The streams lie in the same folder.
"""

from __future__ import annotations

import ast
import dataclasses
import os
from typing import TYPE_CHECKING, Any, Final, Self

from tests.zfs import pools

if TYPE_CHECKING:
    import pathlib

#: The file of a case: a Python literal, which holds any bytes.
_NAME: Final = "case"


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a snapshot holds. `files`: names of its chain's files, the full first; `snapshot`: of a package, else None.
    `tree` and `inodes`, by path: pools.tree, and what lstat says. `volume`: of a volume, pools.content.
    """

    files: list[str]
    snapshot: str | None
    tree: dict[str, tuple[object, ...]]
    inodes: dict[str, tuple[int, ...]]
    volume: str | None = None

    @classmethod
    def of(cls, genuine: pathlib.Path, files: list[str], snapshot: str | None = None) -> Self:
        """Look at a mounted snapshot."""
        return cls(files, snapshot, pools.tree(genuine), {name: inode(genuine / name) for name in _names(genuine)})


@dataclasses.dataclass(frozen=True)
class Case:
    """Streams in a folder, and what their snapshots hold. `diff`: what `zfs diff -FH` says of first and last."""

    readings: list[Reading]
    mounted_on: str = ""
    diff: bytes | None = None

    def write(self, folder: pathlib.Path) -> None:
        (folder / _NAME).write_text(ascii(dataclasses.asdict(self)), encoding="ascii")

    @classmethod
    def read(cls, folder: pathlib.Path) -> Self:
        raw: dict[str, Any] = ast.literal_eval((folder / _NAME).read_text(encoding="ascii"))
        return cls(**raw | {"readings": [Reading(**each) for each in raw["readings"]]})


def inode(path: pathlib.Path) -> tuple[int, ...]:
    """Return what `ls --json` says of it: object, mode, uid, gid, links, three times (ns), size, device."""
    info = path.lstat()
    times = (info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns)
    return (info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_nlink, *times, info.st_size, info.st_rdev)


def _names(folder: pathlib.Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in folder.rglob("*")]


def folders(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders of the cases below one, by name."""
    return sorted(path.parent for path in root.glob(f"*/{_NAME}"))
