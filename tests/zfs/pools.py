"""File-backed pools, and data to put into them.

from tests.zfs.pools import Pool, change, fill, tree
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import random
import stat
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.programs import Sender


#: Seconds for which a pool may be in use after a test: the kernel keeps what it has mounted by itself for a while.
_BUSY: Final = 30.0


#: Bytes that are compared at once, and from which size of a file on its holes are skipped.
_BLOCK: Final = 1 << 17
_LARGE: Final = 64 << 20


def retire(sender: Sender, *patterns: str) -> None:
    """Declare datasets as retired."""
    config = sender.folder / "sender.toml"
    config.write_text(f"retired = {json.dumps(patterns)}\n{config.read_text()}")


def zfs(*arguments: str, stdin: bytes | None = None, check: bool = True) -> bytes:
    """`zfs` with these arguments; its stdout. What it says of a failure is part of the error."""
    return program("zfs", *arguments, stdin=stdin, check=check).stdout


def program(*command: str, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Any program, to its end."""
    done = subprocess.run(command, input=stdin or b"", capture_output=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done


@dataclasses.dataclass(frozen=True)
class Pool:
    """A pool in a sparse file, mounted below `root` and nowhere else."""

    name: str
    root: pathlib.Path

    def create(self, dataset: str, *options: str) -> str:
        """A new dataset (`a/b` is POOL/a/b), parents and all; its full name."""
        zfs("create", "-p", *options, self.full(dataset))
        return self.full(dataset)

    def full(self, dataset: str) -> str:
        return f"{self.name}/{dataset}"

    def path(self, dataset: str) -> pathlib.Path:
        """Where a dataset, by its full name or by the part below the pool's, is mounted."""
        return self.root / dataset.removeprefix(f"{self.name}/")

    def mount(self, dataset: str) -> None:
        """Mount a restored dataset below the pool's own root, wherever it was mounted at home."""
        full = self.full(dataset)
        zfs("inherit", "mountpoint", full)  # which mounts it, where canmount is on
        if self.get(full, "mounted") == "no":
            zfs("mount", full)

    def snapshot(self, *names: str, recursive: bool = False) -> None:
        """`ds@snap`, full names, all in one transaction."""
        zfs("snapshot", *(["-r"] if recursive else []), *names)

    def sync(self) -> None:
        """Write all that was changed."""
        program("zpool", "sync", self.name)

    def get(self, name: str, prop: str) -> str:
        """A property's parseable value."""
        return zfs("get", "-Hpo", "value", prop, name).decode().rstrip("\n")

    def guid(self, name: str) -> int:
        return int(self.get(name, "guid"))

    def send(self, *arguments: str) -> bytes:
        return zfs("send", *arguments)

    def receive(self, stream: bytes, *arguments: str) -> None:
        zfs("receive", *arguments, stdin=stream)

    def names(self, kinds: str = "filesystem,volume,snapshot,bookmark") -> set[str]:
        """Every name in the pool, of these kinds."""
        return set(zfs("list", "-Hro", "name", "-t", kinds, self.name).decode().splitlines())


def has_clones() -> bool:
    """Whether this OpenZFS can make a file of the blocks of another one: from 2.2 on, and not before."""
    return pathlib.Path("/sys/module/zfs/features.pool/com.fudosecurity:block_cloning").is_dir()


def make(name: str, folder: pathlib.Path, size: int = 1 << 30) -> Pool:
    """A new pool of this name, its file and its mount points in `folder`."""
    image, root = folder / f"{name}.img", folder / name
    with image.open("wb") as f:
        f.truncate(size)
    # cachefile=none: nothing on this machine imports it at the next boot, should the end never come
    program(
        *("zpool", "create", "-o", "cachefile=none", "-O", f"mountpoint={root}", "-O", "atime=off", "-O", "xattr=sa"),
        *("-O", "acltype=posix", name, str(image)),
    )
    return Pool(name, root)


def destroy(pool: Pool) -> None:
    """Forget all about it. Waits a while for what still has it; says what else runs, if that stays."""
    until = time.monotonic() + _BUSY
    while (done := program("zpool", "destroy", "-f", pool.name, check=False)).returncode:
        busy = b"pool is busy" in done.stderr
        if not busy or time.monotonic() > until:
            running = program("ps", "-eo", "pid,ppid,stat,etimes,args").stdout if busy else b""
            raise AssertionError((done.stderr + running).decode(errors="replace"))
        time.sleep(0.2)


def fill(folder: pathlib.Path, seed: int = 0, size: int = 300_000) -> None:
    """Some of everything a file system holds; the same for the same seed."""
    r = random.Random(seed)
    (folder / "small").mkdir(parents=True, exist_ok=True)
    (folder / "prose").write_bytes(b"".join(b"%d %d\n" % (i, r.randrange(99)) for i in range(size // 8)))
    (folder / "noise").write_bytes(r.randbytes(size // 3))
    for i in range(20):
        (folder / "small" / f"{i:02}").write_bytes(r.randbytes(r.randrange(2000)))
    with (folder / "sparse").open("wb") as f:
        f.seek(5 << 20)
        f.write(b"island")
        f.truncate(16 << 20)
    os.link(folder / "prose", folder / "hardlink")
    os.symlink("prose", folder / "symlink")
    (folder / "n\u00e4me with space").write_bytes(b"unicode\n")
    (folder / "empty").touch()
    os.setxattr(folder / "prose", "user.short", b"in the bonus buffer")
    os.setxattr(folder / "noise", "user.long", r.randbytes(3000))  # in a spill block


def device(volume: str) -> pathlib.Path:
    """The block device of a volume, also where no udev makes links to it."""
    for path in sorted(pathlib.Path("/dev").glob("zd*")):
        if program("/lib/udev/zvol_id", str(path), check=False).stdout.decode().strip() == volume:
            return path
    raise AssertionError(f"{volume} has no device")


def noise(size: int, seed: int = 0) -> Iterator[bytes]:
    """Bytes that do not compress."""
    r = random.Random(seed)
    for _ in range(0, size, 1 << 20):
        yield r.randbytes(1 << 20)


def change(folder: pathlib.Path, seed: int = 1) -> None:
    """The next day of what `fill` made; works again and again, with a seed of its own each time."""
    r = random.Random(seed)
    for path in sorted((folder / "small").iterdir())[::3]:
        path.unlink()
    with (folder / "prose").open("r+b") as f:
        f.seek(r.randrange(100_000))
        f.write(r.randbytes(9000))
        f.seek(0, os.SEEK_END)
        f.write(r.randbytes(20_000))
    with (folder / "sparse").open("r+b") as f:
        f.truncate(r.randrange(1 << 20, 16 << 20))
    (folder / "noise").write_bytes(r.randbytes(50_000))
    (folder / f"new-{seed}").write_bytes(r.randbytes(5000))


def content(path: pathlib.Path) -> str:
    """Return a hash of a file's size, and of its blocks that are not zero: of holes and zeros it says the same.

    A file of any size that has few blocks takes little time.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)  # of a device, too
        digest.update(b"%d" % size)
        at = 0
        while at < size:
            if size > _LARGE:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA) // _BLOCK * _BLOCK
                except OSError as error:
                    if error.errno != errno.ENXIO:  # no more data
                        raise
                    break
            block = os.pread(file.fileno(), _BLOCK, at)
            if block.count(0) < len(block):
                digest.update(b"%d:" % at + block)
            at += _BLOCK
    return digest.hexdigest()


def tree(folder: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """All that matters of everything below `folder`, for comparison: equal trees are equal file systems."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        inside: object = None
        if stat.S_ISLNK(info.st_mode):
            inside = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            inside = content(path)
        # xfs shows root its ACLs once more, under names of its own (fs/xfs/libxfs/xfs_da_format.h).
        names = [n for n in sorted(os.listxattr(path, follow_symlinks=False)) if not n.startswith("trusted.SGI_ACL_")]
        xattrs = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        shape = (info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_mtime_ns)
        # a folder's size is the file system's own business
        found[str(path.relative_to(folder))] = (*shape, info.st_size * stat.S_ISREG(info.st_mode), inside, xattrs)
    return found
