"""What a push meets night after night in a pool that is not well; the words are those that tests/fakezfs.py says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.programs import good
from tests.zfs.pools import program

if TYPE_CHECKING:
    from tests.programs import Sender
    from tests.zfs.pools import Pool

_PATTERN = b"THE-BAD-BLOCK-16" * 8192


def _spoil(pool: Pool) -> None:
    """Overwrite each block of _PATTERN, while the pool is exported; then import it."""
    image = pool.root.with_suffix(".img")
    program("zpool", "export", pool.name)
    found = 0
    with image.open("r+b") as file:
        # A sparse file: only what is data is read.
        end, at = image.stat().st_size, 0
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            data = os.pread(file.fileno(), at - start, start)
            place = data.find(_PATTERN[:4096])
            while place >= 0:
                os.pwrite(file.fileno(), b"\xff" * 4096, start + place)
                found += 1
                place = data.find(_PATTERN[:4096], place + len(_PATTERN))
    assert found
    program("zpool", "import", "-d", str(image.parent), "-o", "cachefile=none", pool.name)


def test_a_block_that_cannot_be_read(pool: Pool, sender: Sender) -> None:
    name = pool.create("src", "-o", "compression=off")
    (pool.path(name) / "aa").write_bytes(os.urandom(12 << 20))
    (pool.path(name) / "victim").write_bytes(_PATTERN * 8)
    _spoil(pool)
    for _night in range(2):
        done = sender.fullsend("push", name)
        assert done.returncode == 1
        assert f"`zpool status -v {pool.name}` names the files".encode() in done.stderr, done.stderr
        assert len(sender.list("--partial")) == 1
    (pool.path(name) / "victim").unlink()
    done = sender.fullsend("push", name)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sender.list("--partial") == []


def test_a_pool_that_is_read_only(pool: Pool, sender: Sender) -> None:
    name = pool.create("src")
    pool.snapshot(f"{name}@1")
    program("zpool", "export", pool.name)
    folder = str(pool.root.parent)
    program("zpool", "import", "-d", folder, "-o", "readonly=on", "-o", "cachefile=none", pool.name)
    assert b"the pool is read-only" in sender.fullsend("push", f"{name}@1").stderr
    assert [each["snapshot"] for each in sender.list()] == ["1"]
    good(sender.fullsend("push", f"{name}@1"))  # stored already


def test_a_pool_without_features(pool: Pool, sender: Sender) -> None:
    """Of the same file, made anew with -d."""
    image = str(pool.root.with_suffix(".img"))
    program("zpool", "destroy", pool.name)
    program("zpool", "create", "-f", "-d", "-o", "cachefile=none", "-O", f"mountpoint={pool.root}", pool.name, image)
    name = pool.create("src")
    for number in range(2):
        (pool.path(name) / f"f{number}").write_bytes(os.urandom(1000))
        done = sender.fullsend("push", name)
        assert (done.returncode, done.stderr) == (0, b"")
    assert [each["kind"] for each in sender.list()].count("incremental") == 1
