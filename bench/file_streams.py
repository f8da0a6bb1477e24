"""Writes the stream of a file system to stdout: .venv/bin/python bench/file_streams.py many FILES | one BYTES

`many`: so many empty files, a thousand in each folder. `one`: a file of so many bytes, in blocks of 1 MiB. Of each 64
blocks one does not compress, and the others are zeros. Its name is `large`; that of a folder is `d0`, of a file `f0`.
"""

from __future__ import annotations

import random
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tests import streams  # noqa: E402 - the path comes first
from tests.file_trees import Layouts, Tree, an_object, micro_zap, summed  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

A_FOLDER: Final = 1000
_BLOCK: Final = 1 << 20
_ROUND: Final = 64
#: DMU_OT_DIRECTORY_CONTENTS and DMU_OT_PLAIN_FILE_CONTENTS (include/sys/dmu.h).
_DIRECTORY: Final = 20
_FILE: Final = 19
#: The type of a file in a directory's entry (DT_REG), in its highest 4 bits (zfs_znode.h).
_REGULAR: Final = 8 << 60


def many(files: int) -> Iterator[bytes]:
    """Yield the records behind the tables."""
    tree, folders = Tree(), files // A_FOLDER
    directory = _bonus(tree, stat.S_IFDIR | 0o755, 2)
    file = _bonus(tree, stat.S_IFREG | 0o644, 0)
    yield from _tables(tree, {b"d%d" % number: 64 + number for number in range(folders)})
    for number in range(folders):
        first = 64 + folders + number * A_FOLDER
        zap = micro_zap({b"f%d" % each: _REGULAR | first + each for each in range(A_FOLDER)})
        yield an_object(64 + number, _DIRECTORY, len(zap), directory)
        yield streams.write(64 + number, 0, zap)
    for number in range(folders * A_FOLDER):
        yield an_object(64 + folders + number, _FILE, 512, file)


def one(size: int) -> Iterator[bytes]:
    """Yield the records behind the tables."""
    tree = Tree()
    file = _bonus(tree, stat.S_IFREG | 0o644, size)
    yield from _tables(tree, {b"large": _REGULAR | 64})
    yield an_object(64, _FILE, _BLOCK, file)
    noise, zeros = random.Random("fullsend bench, files").randbytes(_BLOCK), bytes(_BLOCK)
    for number, offset in enumerate(range(0, size, _BLOCK)):
        yield streams.write(64, offset, zeros if number % _ROUND else noise)


def _bonus(tree: Tree, mode: int, size: int) -> bytes:
    # All have the same attributes, so their layout has the same number as in the tables.
    return Layouts().buffer(tree.node(mode, size))


def _tables(tree: Tree, root: dict[bytes, int]) -> Iterator[bytes]:
    tree.directories[tree.root] = root
    yield from tree.records()


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    out = sys.stdout.buffer
    out.write(streams.begin(f"tank/{kind}@now", objset_type=2, flags=8, created=1))
    for each in many(count) if kind == "many" else one(count):
        out.write(summed(each))
    out.write(summed(streams.end()))


if __name__ == "__main__":
    main()
