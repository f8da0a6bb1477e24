"""Random changes of a file system, as users make them."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
from typing import TYPE_CHECKING, Final

from tests.zfs import pools

if TYPE_CHECKING:
    import pathlib

    from tests.zfs.pools import Pool

MUTATIONS: Final = ("write", "append", "cut", "hole", "unlink", "folder", "link", "xattr", "small", "mode", "acl")
#: The request of ioctl(2) that clones a whole file (linux/fs.h).
FICLONE: Final = 0x40049409


def mutate(pool: Pool, folder: pathlib.Path, r: random.Random) -> None:
    """Change a folder as users do: files that grow, shrink, get holes, go, and come back as something else; and as a
    clone of another one, where this version of OpenZFS has clones.
    """
    mutations = (*MUTATIONS, "clone") if pools.has_clones() else MUTATIONS
    names = [folder / f"f{number}" for number in range(24)]
    for path in r.sample(names, 9):
        what = r.choice(mutations)
        if path.is_dir() and not path.is_symlink():
            for inner in path.iterdir():
                inner.unlink()
            path.rmdir()
        if what in {"unlink", "folder", "link"} and os.path.lexists(path):
            path.unlink()
        if what == "folder":
            path.mkdir()
            for number in range(r.randrange(1, 60)):
                (path / f"{number}-{'n' * r.randrange(40)}").touch()
        elif what == "link":
            path.symlink_to("t/" * r.randrange(1, 150))  # a long target is in a spill block
        elif what == "unlink":
            continue
        elif os.path.islink(path):
            path.unlink()
        elif what == "small":
            path.write_bytes(r.randbytes(r.randrange(100)))
        elif what == "clone" and (others := [each for each in names if each.is_file() and each != path]):
            pool.sync()  # what is not on the disk yet is not cloned
            clone(r.choice(others), path)
        elif what == "write" or not path.exists():
            path.write_bytes(r.randbytes(r.randrange(400_000)))
        else:
            size = path.stat().st_size
            with path.open("r+b") as file:
                if what == "append":
                    file.seek(size + r.choice([0, 300_000]))
                    file.write(r.randbytes(r.randrange(1, 200_000)))
                elif what == "cut":
                    file.truncate(r.randrange(size + 1))
                elif what == "hole" and size:
                    file.seek(r.randrange(size))
                    file.write(bytes(min(size, 150_000)))
            if what == "xattr":
                os.setxattr(path, f"user.{r.randrange(3)}", r.randbytes(r.choice([10, 300, 3000])))
            elif what == "mode":
                path.chmod(r.randrange(0o777))
            elif what == "acl":
                os.setxattr(path, "system.posix_acl_access", acl(r))


def clone(source: pathlib.Path, target: pathlib.Path) -> None:
    """Make a file of the blocks of another one. It stays empty where OpenZFS does not clone between these two: EINVAL,
    as for some sizes of blocks (zfs_clone_range in module/zfs/zfs_vnops.c).
    """
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def acl(r: random.Random) -> bytes:
    """Return an ACL with some users more, as Linux has it in an extended attribute (linux/posix_acl_xattr.h)."""
    users = sorted(r.sample(range(1000, 2000), r.randrange(1, 60)))
    nobody = 0xFFFFFFFF
    entries = [(0x01, 6, nobody), *((0x02, r.randrange(8), user) for user in users)]
    entries += [(0x04, 4, nobody), (0x10, 7, nobody), (0x20, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
