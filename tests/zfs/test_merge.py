"""Merged streams against real ZFS: they are what `zfs send` gives, and `zfs receive` takes them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import struct
from typing import TYPE_CHECKING, Final

import pytest
from tests.zfs import pools

from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.running_sums import RunningSums

if TYPE_CHECKING:
    import pathlib

    from tests.zfs.pools import Pool

SNAPSHOTS: Final = 6
MUTATIONS: Final = (
    *("write", "append", "cut", "hole", "unlink", "folder", "link", "xattr", "small", "mode", "acl", "clone"),
)
#: The request of ioctl(2) that clones a whole file (linux/fs.h).
FICLONE: Final = 0x40049409
#: What each chain is sent with, and what its dataset is made with.
FLAVOURS: Final = {
    "plain": ((), ()),
    "-p": (("-p",), ("-o", "compression=lz4", "-o", "user:note=kept")),
    "-c": (("-c",), ("-o", "compression=zstd")),
    "-Lec": (("-L", "-e", "-c"), ("-o", "recordsize=1M", "-o", "compression=lz4", "-o", "dnodesize=auto")),
    "-w": (("-w",), ("-o", "compression=lz4", "-o", "encryption=on", "-o", "keyformat=raw")),
}


def mutate(folder: pathlib.Path, r: random.Random) -> None:
    """Change a folder as users do: files that grow, shrink, get holes, go, and come back as something else."""
    names = [folder / f"f{number}" for number in range(24)]
    for path in r.sample(names, 9):
        what = r.choice(MUTATIONS)
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
    """Make a file of the blocks of another one (block cloning, OpenZFS 2.2 and later), else of a copy of them."""
    os.sync()  # what is not on the disk yet is not cloned
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new)


def acl(r: random.Random) -> bytes:
    """Return an ACL with some users more, as Linux has it in an extended attribute (linux/posix_acl_xattr.h)."""
    users = sorted(r.sample(range(1000, 2000), r.randrange(1, 60)))
    nobody = 0xFFFFFFFF
    entries = [(0x01, 6, nobody), *((0x02, r.randrange(8), user) for user in users)]
    entries += [(0x04, 4, nobody), (0x10, 7, nobody), (0x20, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def merged(*inputs: bytes) -> bytes:
    given = [MergeInput(f"input {number}", [raw]) for number, raw in enumerate(inputs)]
    raw = b"".join(bytes(piece) for piece in merge(given))
    sums = RunningSums("merged")
    sums.feed(raw)
    sums.finish()
    return raw


def received(pool: Pool, name: str, *inputs: bytes) -> str:
    """Receive streams, one on another; the new dataset's full name."""
    for raw in inputs:
        pool.receive(raw, "-u", pool.full(name))
    return pool.full(name)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_random_changes(flavour: str, pool: Pool, other_pool: Pool, tmp_path: pathlib.Path) -> None:
    flags, options = FLAVOURS[flavour]
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    if "encryption=on" in options:
        options = (*options, "-o", f"keylocation=file://{key}")
    home = pool.create("home", *options)
    r = random.Random(flavour)
    pools.fill(pool.path("home"))
    for number in range(SNAPSHOTS):
        mutate(pool.path("home"), r)
        if number == SNAPSHOTS // 2 and "-w" not in flags:
            pools.zfs("set", "compression=gzip", home)
        pool.snapshot(f"{home}@{number}")
    full = pool.send(*flags, f"{home}@0")
    steps = [pool.send(*flags, "-i", f"@{number}", f"{home}@{number + 1}") for number in range(SNAPSHOTS - 1)]
    for to in range(1, SNAPSHOTS):
        raw = merged(full, *steps[:to])
        genuine = pool.send(*flags, f"{home}@{to}")
        assert hashlib.sha256(raw).hexdigest() == hashlib.sha256(genuine).hexdigest(), to

    # The genuine next increment is accepted on top, and so is a merged one.
    last = SNAPSHOTS - 1
    one = received(other_pool, "one", merged(full, *steps[: last - 1]), steps[-1])
    two = received(other_pool, "two", full, merged(*steps))
    for name in (one, two):
        if "-w" in flags:
            pools.zfs("set", f"keylocation=file://{key}", name)
            pools.zfs("load-key", name)
        other_pool.mount(name.partition("/")[2])
        assert other_pool.guid(f"{name}@{last}") == pool.guid(f"{home}@{last}")
        assert pools.tree(other_pool.path(name)) == pools.tree(pool.path("home"))
    pools.program("zpool", "scrub", "-w", other_pool.name)
    assert b"No known data errors" in pools.program("zpool", "status", other_pool.name).stdout


@pytest.mark.parametrize("flags", [(), ("-L", "-e", "-c"), ("-w",)], ids=["plain", "-Lec", "-w"])
def test_volumes(flags: tuple[str, ...], pool: Pool, other_pool: Pool, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    encrypted = (
        ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}") if "-w" in flags else ()
    )
    disk = pool.full("disk")
    pools.zfs("create", *encrypted, "-o", "compression=lz4", "-V", "24M", "-o", "volblocksize=16k", disk)
    r = random.Random(7)
    for number in range(SNAPSHOTS):
        with pools.device(disk).open("r+b") as file:
            for _write in range(12):
                file.seek(r.randrange(23 << 20))
                file.write(r.choice([r.randbytes(60_000), bytes(200_000), b"text " * 9000]))
            file.flush()
            os.fsync(file.fileno())
        pool.snapshot(f"{disk}@{number}")
    full = pool.send(*flags, f"{disk}@0")
    steps = [pool.send(*flags, "-i", f"@{number}", f"{disk}@{number + 1}") for number in range(SNAPSHOTS - 1)]
    for to in range(1, SNAPSHOTS):
        assert merged(full, *steps[:to]) == pool.send(*flags, f"{disk}@{to}"), to
    content = hashlib.sha256(pools.device(disk).read_bytes()).hexdigest()
    for name, inputs in (("one", [merged(full, *steps[:-1]), steps[-1]]), ("two", [full, merged(*steps)])):
        back = received(other_pool, name, *inputs)
        if "-w" in flags:
            pools.zfs("set", f"keylocation=file://{key}", back)
            pools.zfs("load-key", back)
        assert hashlib.sha256(pools.device(back).read_bytes()).hexdigest() == content
