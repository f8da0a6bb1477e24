"""Streams of real ZFS, and what the pool has: for storage_host/test_files.py, which reads files out of them without a
pool. Here the streams are made, and images of volumes, holes and refusals are compared at once.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import pathlib
import random
import re
import socket
import stat
import struct
from typing import TYPE_CHECKING, Final

import pytest
from tests import programs, streams
from tests.file_trees import proven
from tests.zfs import pools
from tests.zfs.cases import Case, Reading
from tests.zfs.changes import acl, mutate

from fullsend_protocol.stream.records import Feature, RecordType, Walker
from fullsend_receiver.cli.main import main as fullsendd_main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.zfs.pools import Pool

#: What each chain is sent with, and what its dataset is made with.
FLAVOURS: Final = {
    "plain": ((), ()),
    "lz4": (("-c",), ("-o", "compression=lz4")),
    "zstd": (("-c", "-p"), ("-o", "compression=zstd")),
    "gzip": (("-c",), ("-o", "compression=gzip", "-o", "recordsize=16k")),
    "zle": (("-c",), ("-o", "compression=zle", "-o", "xattr=dir")),
    "lzjb": (("-c", "-e"), ("-o", "compression=lzjb")),
    "-Lec": (("-L", "-e", "-c"), ("-o", "recordsize=1M", "-o", "compression=lz4", "-o", "dnodesize=auto")),
    "-e, xattr=dir": (("-e",), ("-o", "compression=lz4", "-o", "xattr=dir")),
}


#: Of a volume, in BEGIN: dmu_objset_type_t (OpenZFS include/sys/dmu.h).
VOLUME: Final = 3
#: What BEGIN says of streams that hold no whole file in clear.
UNREADABLE: Final = {Feature.RAW, Feature.REDACTED, Feature.RESUMING}
#: Of each chain of a file system, at least.
INCREMENTS: Final = 10


def fullsendd(*arguments: str | pathlib.Path) -> bytes:
    """Run it, inside this process: a program's start takes longer than what it does. Returns: its stdout."""
    return programs.good(programs.run_inside(fullsendd_main, *map(str, arguments), env={}))


def furnish(folder: pathlib.Path) -> None:
    """What `fill` leaves out: all kinds of files, names, attributes and folders."""
    r = random.Random("files")
    odd = folder / "odd"
    odd.mkdir()
    (odd / ("n" * 255)).write_bytes(b"the longest name")
    os.symlink("t/" * 400, odd / "long target")
    os.mkfifo(odd / "fifo", 0o640)
    os.mknod(odd / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(odd / "block", stat.S_IFBLK | 0o660, os.makedev(240, 70_000))
    with socket.socket(socket.AF_UNIX) as listener:
        # Its path is longer than a socket's may be.
        here = os.open(".", os.O_RDONLY)
        os.chdir(odd)
        listener.bind("socket")
        os.fchdir(here)
        os.close(here)
    tool = odd / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    os.chown(tool, 1234, 54_321)
    tool.chmod(0o4755)
    os.setxattr(tool, "system.posix_acl_access", acl(r))
    kept = odd / "kept"
    kept.mkdir()
    os.setxattr(kept, "system.posix_acl_default", acl(r))
    for number in range(40):
        os.setxattr(odd, f"user.{number}", r.randbytes(200))
    os.setxattr(tool, "user.large", r.randbytes(20_000))
    many = folder / "many"
    many.mkdir()
    for number in range(600):
        (many / f"{number}-{'x' * (number % 90)}").touch()
    # Blocks of 112 bytes and less are embedded in their pointers.
    (odd / "embedded").write_bytes(b"a" * 60_000)
    (odd / "tiny").write_bytes(b"t")
    for second, path in enumerate(sorted(odd.iterdir())):
        os.utime(path, ns=(1_000_000_000, -5_000_000_000 + second * 1_234_567_891), follow_symlinks=False)


def rename(folder: pathlib.Path, r: random.Random) -> None:
    """Names that come, go and move, in a small and in a large folder: hard links, and renames over other names."""
    places = [folder, folder / "odd", folder / "many"]
    for _change in range(8):
        here, there = r.choice(places), r.choice(places)
        names = [path for path in sorted(here.iterdir()) if path.is_file() and not path.is_symlink()]
        if not names:
            continue
        path, new = r.choice(names), there / f"h{r.randrange(8)}"
        what = r.choice(("link", "move", "unlink"))
        if what == "link":
            new.unlink(missing_ok=True)
            if path != new:
                os.link(path, new)
        elif what == "move":
            path.rename(new)
        elif path.stat().st_nlink > 1:
            path.unlink()


def sent(pool: Pool, dataset: str, flags: Sequence[str], folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """Send a full of the first snapshot, and the increments; the files."""
    files = []
    for number in range(count):
        base = ("-i", f"@{number - 1}") if number else ()
        # By their SHA-256: to sum all checksums inside takes an emulated processor longer than all else.
        files.append(proven(folder / f"{number}.zfs", pool.send(*flags, *base, f"{dataset}@{number}")))
    return files


def sources(files: Sequence[pathlib.Path]) -> list[str | pathlib.Path]:
    return [part for file in files for part in ("--file", file)]


@pytest.fixture
def cases() -> pathlib.Path:
    """The folder of what is left for the tests in storage_host."""
    return pathlib.Path(os.environ["FULLSEND_ZFS_CASES"])


@pytest.fixture
def folder_of_case(request: pytest.FixtureRequest, cases: pathlib.Path) -> pathlib.Path:
    """An empty folder for a case."""
    folder = cases / re.sub(r"\W+", "_", request.node.name)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_tree_in_a_full_and_in_a_chain(
    flavour: str, pool: Pool, folder_of_case: pathlib.Path, snapshots: int
) -> None:
    flags, options = FLAVOURS[flavour]
    snapshots = max(snapshots, INCREMENTS + 1)
    home = pool.create("home", *options)
    folder = pool.path("home")
    r = random.Random(flavour)
    pools.fill(folder)
    furnish(folder)
    with (folder / "unlinked").open("w+b") as unlinked:
        unlinked.write(b"open, and without a name")
        unlinked.flush()
        (folder / "unlinked").unlink()
        for number in range(snapshots):
            mutate(pool, folder, r)
            rename(folder, r)
            unlinked.write(b"more")
            unlinked.flush()
            pool.snapshot(f"{home}@{number}")
    files = sent(pool, home, flags, folder_of_case, snapshots)
    readings = []
    for number in (0, snapshots - 1):
        genuine = folder / ".zfs" / "snapshot" / str(number)
        readings.append(Reading.of(genuine, [file.name for file in files[: number + 1]]))
    said = pools.zfs("diff", "-FH", f"{home}@0", f"{home}@{snapshots - 1}")
    assert b"(on_delete_queue)" in said
    Case(readings, str(folder), said).write(folder_of_case)


def test_holes_come_back_as_holes(pool: Pool, other_pool: Pool, tmp_path: pathlib.Path) -> None:
    home = pool.create("home")
    with (pool.path("home") / "disk").open("wb") as file:
        file.seek(50 << 30)
        file.write(b"an island")
        file.truncate(100 << 30)
    pool.snapshot(f"{home}@0")
    files = sent(pool, home, (), tmp_path, 1)
    other_pool.create("out")
    out = other_pool.path("out") / "files"
    fullsendd("get", *sources(files), "--into", out, "disk")
    other_pool.sync()
    with (out / "disk").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 100 << 30
        assert os.fstat(file.fileno()).st_blocks < 1 << 11
        assert (start := os.lseek(file.fileno(), 0, os.SEEK_DATA)) <= 50 << 30
        assert start > 49 << 30
        file.seek(50 << 30)
        assert file.read(12) == b"an island\0\0\0"
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.lseek(file.fileno(), 51 << 30, os.SEEK_DATA)


@pytest.mark.parametrize("flags", [(), ("-L", "-e", "-c")], ids=["plain", "-Lec"])
def test_the_image_of_a_volume(flags: tuple[str, ...], pool: Pool, tmp_path: pathlib.Path, snapshots: int) -> None:
    disk = pool.full("disk")
    pools.zfs("create", "-o", "compression=lz4", "-V", "24M", "-o", "volblocksize=16k", disk)
    r = random.Random(7)
    sums = []
    for number in range(snapshots):
        with pools.device(disk).open("r+b") as file:
            for _write in range(12):
                file.seek(r.randrange(23 << 20))
                file.write(r.choice([r.randbytes(60_000), bytes(200_000), b"text " * 9000]))
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            sums.append(hashlib.sha256(file.read()).hexdigest())
        pool.snapshot(f"{disk}@{number}")
    files = sent(pool, disk, flags, tmp_path, snapshots)
    for number in (0, snapshots - 1):
        image = tmp_path / f"{number}.img"
        fullsendd("get", *sources(files[: number + 1]), "--volume", image)
        assert hashlib.sha256(image.read_bytes()).hexdigest() == sums[number]


@pytest.mark.timeout(1200)
def test_each_snapshot_of_a_package(pool: Pool, folder_of_case: pathlib.Path) -> None:
    raw = next(stream.read() for stream in streams.whole() if stream.name == "tree-R")
    file = proven(folder_of_case / "tree-R.zfs", raw)
    received = pool.full("tree")
    pool.receive(raw, "-u", received)
    walker = Walker()
    while walker.offset < len(raw):
        walker.walk(raw, walker.offset, len(raw), len(raw))
    names = [begin.name for begin in walker.begins if not begin.compound]
    assert len(names) > 8
    readings = []
    for number, name in enumerate(names):
        dataset, _at, snapshot = name.removeprefix("tank/tree").partition("@")
        if not number or dataset != names[number - 1].removeprefix("tank/tree").partition("@")[0]:
            pool.mount(f"tree{dataset}")
        genuine = pool.path(f"tree{dataset}") / ".zfs" / "snapshot" / snapshot
        readings.append(Reading.of(genuine, [file.name], name))
    Case(readings).write(folder_of_case)


@dataclasses.dataclass(frozen=True, eq=False)
class OneSnapshot:
    """A genuine stream of one snapshot, perhaps with properties around it. `base`: a GUID; 0: a full."""

    name: str
    raw: bytes
    guid: int
    base: int
    volume: bool


def one_snapshot(stream: streams.Genuine) -> OneSnapshot | None:
    """Return what the stream is, or None if `fullsendd ls` says in one line that it cannot be read."""
    raw = stream.read()
    begins = [
        raw[each.start : each.end]
        for each in streams.split(raw)
        if each.kind is RecordType.BEGIN and raw[each.start + 16] & 3 == streams.SUBSTREAM
    ]
    if len(begins) != 1:
        return None
    (versioninfo,) = struct.unpack_from("<Q", begins[0], 16)
    if any(versioninfo >> 2 & 1 << feature for feature in UNREADABLE):
        return None
    kind, _flags, guid, base = struct.unpack_from("<IIQQ", begins[0], 32)
    return OneSnapshot(stream.name, raw, guid, base, kind == VOLUME)


def chain_of(stream: OneSnapshot, by_guid: dict[int, OneSnapshot]) -> list[OneSnapshot]:
    """Return the streams from a full to this one; none if one of them is not there."""
    chain = [stream]
    while chain[0].base:
        base = by_guid.get(chain[0].base)
        if base is None:
            return []
        chain.insert(0, base)
    return chain


@pytest.mark.timeout(2400)
def test_each_genuine_stream(pool: Pool, cases: pathlib.Path) -> None:
    """Those of tests/data, and those of a larger corpus where there is one."""
    found: dict[bytes, OneSnapshot] = {}  # by its bytes: some are in two places
    for genuine in streams.whole():
        stream = one_snapshot(genuine)
        if stream is not None:
            found.setdefault(hashlib.sha256(stream.raw).digest(), stream)
    by_guid: dict[int, OneSnapshot] = {}
    for stream in found.values():  # a full is read instead of the chain that leads to the same snapshot
        if not stream.base or stream.guid not in by_guid:
            by_guid[stream.guid] = stream
    compared = 0
    for number, stream in enumerate(found.values()):
        chain = chain_of(stream, by_guid)
        if not chain:
            continue
        compared += 1
        received = pool.full(f"in{number}")
        folder = cases / f"{number}_{stream.name.replace('/', '_')}"
        folder.mkdir()
        for place, each in enumerate(chain):
            pool.receive(each.raw, "-u", received)
            proven(folder / f"{place}.zfs", each.raw)
        names = [f"{place}.zfs" for place in range(len(chain))]
        if stream.volume:
            reading = Reading(names, None, {}, {}, pools.content(pools.device(received)))
        else:
            pool.mount(f"in{number}")
            reading = Reading.of(pool.path(received), names)
        Case([reading]).write(folder)
        pools.zfs("destroy", "-r", received)
    assert compared >= 20


def test_a_raw_stream_is_refused_by_name(pool: Pool, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    home = pool.create("secret", "-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
    pool.snapshot(f"{home}@0")
    raw = tmp_path / "raw.zfs"
    raw.write_bytes(pool.send("-w", f"{home}@0"))
    done = programs.run_inside(fullsendd_main, "ls", "--file", str(raw), env={})
    assert done.returncode != 0
    assert b"encrypted" in done.stderr
    assert len(done.stderr.splitlines()) == 1
