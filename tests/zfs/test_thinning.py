"""Streams are merged on the storage host, night by night: they are what `zfs send` gives, and what is kept restores."""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.programs import good
from tests.zfs import pools
from tests.zfs.changes import mutate

if TYPE_CHECKING:
    import pathlib

    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool

NIGHTS: Final = 4
#: Only the two newest snapshots are kept, and the full moves each night.
POLICY: Final = 'rebase-after = "0%"\n[retention]\nlast = 0\nminimum-count = 0\nminimum-age = "0s"\n'
#: What a dataset is sent with, and made with.
FLAVOURS: Final = {"usual": ([], ["-o", "compression=lz4", "-o", "recordsize=1M"]), "raw": (["-w"], [])}


def write_policy(receiver: Receiver, sender: Sender) -> None:
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write(POLICY)
    config = sender.folder / "sender.toml"
    config.write_text(f"keep = {4 * NIGHTS}\n{config.read_text()}")


def prune(receiver: Receiver) -> None:
    """Merge what is due. Nobody reads any more."""
    for path in (receiver.store / ".state" / "reading").glob("*"):
        os.utime(path, (0, 0))
    good(receiver.fullsendd("prune", "--yes-more"))


def stored(sender: Sender) -> list[dict[str, Any]]:
    return sorted(sender.list(), key=lambda each: int(each["sequence"]))


def restore(sender: Sender, other_pool: Pool, what: str, into: str, key: pathlib.Path | None = None) -> str:
    """Restore, and mount. Returns: the new dataset's full name."""
    good(sender.fullsend("restore", what, "--into", other_pool.full(into), "--mountable"))
    name = other_pool.full(into)
    if key is not None and other_pool.get(name, "keystatus") != "available":
        pools.zfs("set", f"keylocation=file://{key}", name)
        pools.zfs("load-key", name)
    other_pool.mount(into)
    return name


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_nights_under_a_policy(flavour: str, pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender) -> None:
    flags, options = FLAVOURS[flavour]
    key = pool.root.parent / "key" if flavour == "raw" else None
    if key is not None:
        key.write_bytes(b"k" * 32)
        options = [*options, "-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]
    home = pool.create("home", *options)
    write_policy(receiver, sender)
    pools.fill(pool.path("home"))
    r = random.Random(flavour)
    for night in range(NIGHTS):
        if night:
            mutate(pool, pool.path("home"), r)
        good(sender.fullsend("push", *flags, home))
        prune(receiver)
        chain = stored(sender)
        assert [each["kind"] for each in chain] == ["full", *["incremental"] * min(night, 2)]
        assert all(each["restorable"] for each in chain)
        full = chain[0]
        letters = [f"-{letter}" for letter in full["flags"]]
        genuine = pool.send(*letters, f"{home}@{full['snapshot']}")
        assert full["sha256"] == hashlib.sha256(genuine).hexdigest()
        assert int(full["guid"]) == pool.guid(f"{home}@{full['snapshot']}")
    assert b"damaged" not in good(receiver.fullsendd("verify"))
    back = restore(sender, other_pool, home, "back", key)
    assert pools.tree(other_pool.path("back")) == pools.tree(pool.path("home"))
    # The next genuine increment goes on top of what was restored.
    mutate(pool, pool.path("home"), r)
    good(sender.fullsend("push", *flags, home))
    prune(receiver)
    pools.zfs("unmount", back)
    good(sender.fullsend("restore", "-F", home, "--into", back, "--mountable"))  # it was mounted
    other_pool.mount("back")
    assert pools.tree(other_pool.path("back")) == pools.tree(pool.path("home"))
    pools.program("zpool", "scrub", "-w", other_pool.name)
    assert b"No known data errors" in pools.program("zpool", "status", other_pool.name).stdout


@pytest.mark.timeout(1200)
def test_a_restore_that_had_begun_on_a_merged_increment_resumes(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender, tmp_path: pathlib.Path
) -> None:
    home = pool.create("home")
    write_policy(receiver, sender)
    pools.fill(pool.path("home"))
    for night in range(5):
        if night:
            (pool.path("home") / f"night-{night}").write_bytes(random.Random(night).randbytes(3_000_000))
        good(sender.fullsend("push", home))
    first, second, *_rest = stored(sender)
    back = other_pool.full("back")
    good(sender.fullsend("restore", f"guid:{first['guid']}", "--into", back))
    # The wire is cut amid the second one.
    program = tmp_path / "some-zfs"
    program.write_text('#!/bin/sh\n[ "$1" = receive ] || exec zfs "$@"\nhead -c 1500000 | zfs "$@"\n')
    program.chmod(0o755)
    config = sender.folder / "sender.toml"
    before = config.read_text()
    config.write_text(f'zfs-command = "{program}"\n{before}')
    assert sender.fullsend("restore", f"guid:{second['guid']}", "--into", back).returncode == 1
    config.write_text(before)
    assert other_pool.get(back, "receive_resume_token") != "-"

    good(receiver.fullsendd("pin", first["file"]))
    prune(receiver)
    assert second["guid"] not in {each["guid"] for each in stored(sender)}
    assert first["guid"] in {each["guid"] for each in stored(sender)}

    done = sender.fullsend("restore", home, "--into", back, "--mountable")
    good(done)
    assert b"is discarded: the receiver has merged that stream into @" in done.stderr
    other_pool.mount("back")
    assert pools.tree(other_pool.path("back")) == pools.tree(pool.path("home"))
