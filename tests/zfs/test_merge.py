"""Merged streams against real ZFS: they are what `zfs send` gives, and `zfs receive` takes them."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import struct
from typing import TYPE_CHECKING, Final

import pytest
from tests import streams
from tests.zfs import pools
from tests.zfs.changes import mutate

from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.running_sums import RunningSums
from fullsend_protocol.stream.without_frees import HashWithoutFrees

if TYPE_CHECKING:
    import pathlib

    from tests.zfs.pools import Pool

#: What each chain is sent with, and what its dataset is made with.
FLAVOURS: Final = {
    "plain": ((), ()),
    "-p": (("-p",), ("-o", "compression=lz4", "-o", "user:note=kept")),
    "-c": (("-c",), ("-o", "compression=zstd")),
    "-Lec": (("-L", "-e", "-c"), ("-o", "recordsize=1M", "-o", "compression=lz4", "-o", "dnodesize=auto")),
    "small blocks": ((), ("-o", "recordsize=4k")),
    "-w": (("-w",), ("-o", "compression=lz4", "-o", "encryption=on", "-o", "keyformat=raw")),
}


def merged(*inputs: bytes) -> bytes:
    given = [MergeInput(f"input {number}", [raw]) for number, raw in enumerate(inputs)]
    return b"".join(bytes(piece) for piece in merge(given))


def without_frees(raw: bytes) -> str:
    form = HashWithoutFrees("it")
    form.feed(raw)
    return form.finish()


def difference(raw: bytes, genuine: bytes) -> str | None:
    """Return the first records that differ, and those before; None: there are none."""
    if raw == genuine:
        return None
    found: list[str] = []
    for ours, theirs in itertools.zip_longest(streams.split(raw), streams.split(genuine)):
        both = [
            None if one is None else (one.kind, of[one.start : one.start + 280], of[one.start + 312 : one.end])
            for one, of in ((ours, raw), (theirs, genuine))
        ]
        shown = [
            each if each is None else (each[0], struct.unpack_from("<4Q", each[1], 8), len(each[2])) for each in both
        ]
        found.append(str(shown[0] if both[0] == both[1] else shown))
        if both[0] != both[1]:
            break
    return " ".join(found[-4:])


def check_increments(steps: list[bytes], genuine: list[bytes]) -> None:
    """Compare what increments make, each run up to the last one. They may have FREE records more."""
    for base, theirs in enumerate(genuine):
        ours = merged(*steps[base:])
        if ours != theirs:
            sums = RunningSums("merged")
            sums.feed(ours)
            sums.finish()
            assert without_frees(ours) == without_frees(theirs), f"{base} to the last: {difference(ours, theirs)}"


def received(pool: Pool, name: str, *inputs: bytes) -> str:
    """Receive streams, one on another; the new dataset's full name."""
    for raw in inputs:
        pool.receive(raw, "-u", pool.full(name))
    return pool.full(name)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_random_changes(flavour: str, pool: Pool, other_pool: Pool, tmp_path: pathlib.Path, snapshots: int) -> None:
    flags, options = FLAVOURS[flavour]
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    if "encryption=on" in options:
        options = (*options, "-o", f"keylocation=file://{key}")
    home = pool.create("home", *options)
    r = random.Random(flavour)
    pools.fill(pool.path("home"))
    for number in range(snapshots):
        mutate(pool, pool.path("home"), r)
        if number == snapshots // 2 and "-w" not in flags:
            pools.zfs("set", "compression=gzip", home)
        pool.snapshot(f"{home}@{number}")
    full = pool.send(*flags, f"{home}@0")
    steps = [pool.send(*flags, "-i", f"@{number}", f"{home}@{number + 1}") for number in range(snapshots - 1)]
    for to in range(1, snapshots):
        raw = merged(full, *steps[:to])
        genuine = pool.send(*flags, f"{home}@{to}")
        found = difference(raw, genuine)
        assert found is None, f"0 to {to}: {found}"
    check_increments(
        steps, [pool.send(*flags, "-i", f"@{base}", f"{home}@{snapshots - 1}") for base in range(snapshots - 2)]
    )

    # The genuine next increment is accepted on top, and so is a merged one.
    last = snapshots - 1
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
def test_volumes(flags: tuple[str, ...], pool: Pool, other_pool: Pool, tmp_path: pathlib.Path, snapshots: int) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    encrypted = (
        ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}") if "-w" in flags else ()
    )
    disk = pool.full("disk")
    pools.zfs("create", *encrypted, "-o", "compression=lz4", "-V", "24M", "-o", "volblocksize=16k", disk)
    r = random.Random(7)
    for number in range(snapshots):
        with pools.device(disk).open("r+b") as file:
            for _write in range(12):
                file.seek(r.randrange(23 << 20))
                file.write(r.choice([r.randbytes(60_000), bytes(200_000), b"text " * 9000]))
            file.flush()
            os.fsync(file.fileno())
        pool.snapshot(f"{disk}@{number}")
    full = pool.send(*flags, f"{disk}@0")
    steps = [pool.send(*flags, "-i", f"@{number}", f"{disk}@{number + 1}") for number in range(snapshots - 1)]
    for to in range(1, snapshots):
        found = difference(merged(full, *steps[:to]), pool.send(*flags, f"{disk}@{to}"))
        assert found is None, f"0 to {to}: {found}"
    check_increments(
        steps, [pool.send(*flags, "-i", f"@{base}", f"{disk}@{snapshots - 1}") for base in range(snapshots - 2)]
    )
    content = hashlib.sha256(pools.device(disk).read_bytes()).hexdigest()
    for name, inputs in (("one", [merged(full, *steps[:-1]), steps[-1]]), ("two", [full, merged(*steps)])):
        back = received(other_pool, name, *inputs)
        if "-w" in flags:
            pools.zfs("set", f"keylocation=file://{key}", back)
            pools.zfs("load-key", back)
        assert hashlib.sha256(pools.device(back).read_bytes()).hexdigest() == content
