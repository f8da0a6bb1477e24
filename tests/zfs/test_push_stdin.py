"""From a real `zfs send` through both programs into a real `zfs receive`, as shell pipelines that a user would type."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys

import pytest
from tests.programs import PATIENCE, Receiver, Sender, good, stored_files
from tests.zfs import pools
from tests.zfs.pools import Pool

FULLSEND = f"{shlex.quote(sys.executable)} -m fullsend_sender"


def _shell(sender: Sender, line: str) -> None:
    """Run a pipeline; every part of it must succeed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={**os.environ, **sender.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stderr}"


def _push(sender: Sender, *send: str) -> None:
    _shell(sender, f"zfs send {shlex.join(send)} | {FULLSEND} push --stdin")


def _restore(sender: Sender, stream: str, *receive: str) -> None:
    _shell(sender, f"{FULLSEND} cat {shlex.quote(stream)} | zfs receive {shlex.join(receive)}")


def test_a_full_and_its_increments_come_back(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    source, target = pool.create("home"), other_pool.full("home")
    trees = []
    for number, name in enumerate(("one", "two", "three")):
        (pools.change if number else pools.fill)(pool.path(source), number)
        pool.snapshot(f"{source}@{name}")
        trees.append(pools.tree(pool.path(source)))
    zfs_bookmark = f"{source}#two"
    pools.zfs("bookmark", f"{source}@two", zfs_bookmark)
    _push(sender, "-Lec", f"{source}@one")
    _push(sender, "-Lec", "-i", "@one", f"{source}@two")
    _push(sender, "-Lec", "-i", "#two", f"{source}@three")  # from a bookmark
    assert [entry["guid"] for entry in sender.list()] == [
        str(pool.guid(f"{source}@{name}")) for name in ("one", "two", "three")
    ]
    assert all(entry["restorable"] for entry in sender.list())
    for name, tree in zip(("one", "two", "three"), trees, strict=True):
        _restore(sender, f"{source}@{name}", target)
        assert pools.tree(other_pool.path(target)) == tree
        assert other_pool.guid(f"{target}@{name}") == pool.guid(f"{source}@{name}")


def test_an_encrypted_dataset_comes_back_raw_and_opens_with_its_key(
    pool: Pool, other_pool: Pool, sender: Sender, tmp_path: pathlib.Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    encryption = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]
    source, target = pool.create("secret", *encryption), other_pool.full("secret")
    pools.fill(pool.path(source))
    pool.snapshot(f"{source}@one")
    pools.change(pool.path(source))
    pool.snapshot(f"{source}@two")
    _push(sender, "-w", f"{source}@one")
    _push(sender, "-w", "-i", "@one", f"{source}@two")
    for entry in sender.list():
        assert "w" in entry["flags"]
    _restore(sender, f"{source}@one", target)
    _restore(sender, f"{source}@two", target)
    pools.zfs("load-key", "-L", f"file://{key}", target)
    pools.zfs("mount", target)
    assert pools.tree(other_pool.path(target)) == pools.tree(pool.path(source))
    assert other_pool.guid(f"{target}@two") == pool.guid(f"{source}@two")


def test_a_package_of_a_tree_with_a_clone_comes_back(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    top = pool.create("tree")
    child = pool.create("tree/child")
    for number, name in enumerate(("one", "two")):
        for dataset in (top, child):
            (pools.change if number else pools.fill)(pool.path(dataset), number)
        pool.snapshot(f"{top}@{name}", recursive=True)
    clone = pool.full("tree/clone")
    pools.zfs("clone", f"{child}@one", clone)
    (pool.path(clone) / "of its own").write_text("new")
    pool.snapshot(f"{top}@end", recursive=True)
    _push(sender, "-R", f"{top}@end")
    (entry,) = sender.list()
    assert (entry["kind"], entry["restorable"], entry["guid"]) == ("package", True, str(pool.guid(f"{top}@end")))
    target = other_pool.full("tree")
    _restore(sender, f"{top}@end", "-o", f"mountpoint={other_pool.path(target)}", target)
    for name in ("tree", "tree/child", "tree/clone"):
        assert pools.tree(other_pool.path(name)) == pools.tree(pool.path(name))
    snapshots = {name.partition("/")[2]: pool.guid(name) for name in pool.names("snapshot")}
    assert snapshots == {name.partition("/")[2]: other_pool.guid(name) for name in other_pool.names("snapshot")}


@pytest.mark.parametrize("options", [[], ["-L", "-e", "-c"], ["-p"]], ids=["plain", "blocks", "props"])
def test_the_increment_of_a_clone_comes_back_onto_its_origin(
    pool: Pool, other_pool: Pool, sender: Sender, options: list[str]
) -> None:
    """`zfs receive` refuses it where the origin's snapshot is, so `restore` takes the mark of a clone away."""
    home = pool.create("home")
    pools.fill(pool.path(home), 0)
    pool.snapshot(f"{home}@one")
    clone = pool.full("clone")
    pools.zfs("clone", f"{home}@one", clone)
    pools.change(pool.path(clone), 1)
    pool.snapshot(f"{clone}@two")
    pools.change(pool.path(clone), 2)
    pool.snapshot(f"{clone}@three")
    _push(sender, *options, f"{home}@one")
    _push(sender, *options, "-i", f"{home}@one", f"{clone}@two")
    _push(sender, *options, "-i", "@two", f"{clone}@three")
    assert [entry["restorable"] for entry in sender.list()] == [True] * 3
    target = other_pool.full("clone")
    good(sender.fullsend("restore", clone, "--into", target))
    pools.zfs("set", f"mountpoint={other_pool.path(target)}", "canmount=on", target)
    assert pools.tree(other_pool.path(target)) == pools.tree(pool.path(clone))
    assert other_pool.guid(f"{target}@three") == pool.guid(f"{clone}@three")


@pytest.mark.parametrize("letter", ["-i", "-I"])
def test_an_incremental_package_comes_back_onto_its_base(
    pool: Pool, other_pool: Pool, sender: Sender, letter: str
) -> None:
    top = pool.create("tree")
    child = pool.create("tree/child")
    for number, name in enumerate(("one", "two", "three")):
        for dataset in (top, child):
            (pools.change if number else pools.fill)(pool.path(dataset), number)
        pool.snapshot(f"{top}@{name}", recursive=True)
    _push(sender, "-R", f"{top}@one")
    _push(sender, "-R", letter, "@one", f"{top}@three")
    target = other_pool.full("tree")
    mountpoint = f"mountpoint={other_pool.path(target)}"
    _restore(sender, f"{top}@one", "-o", mountpoint, target)
    _restore(sender, f"{top}@three", "-F", target)
    for name in ("tree", "tree/child"):
        assert pools.tree(other_pool.path(name)) == pools.tree(pool.path(name))
        assert other_pool.guid(other_pool.full(f"{name}@three")) == pool.guid(pool.full(f"{name}@three"))


def _volumes() -> set[pathlib.Path]:
    """The block devices of all zvols; without udev they have no names but the kernel's."""
    return set(pathlib.Path("/dev").glob("zd*"))


def test_a_zvol_comes_back(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    source, target = pool.full("disk"), other_pool.full("disk")
    before = _volumes()
    pools.zfs("create", "-V", "32M", "-b", "8k", source)
    (device,) = _volumes() - before
    content = os.urandom(3 << 20)
    with device.open("r+b") as file:
        file.seek(5 << 20)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    pool.snapshot(f"{source}@one")
    _push(sender, f"{source}@one")
    before = _volumes()
    _restore(sender, f"{source}@one", target)
    (restored,) = _volumes() - before
    with restored.open("rb") as file:
        assert file.read() == bytes(5 << 20) + content + bytes(24 << 20)
    assert other_pool.guid(f"{target}@one") == pool.guid(f"{source}@one")


def test_without_us_sha256sum_zstd_and_zfs_receive_are_enough(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    source, target = pool.create("home"), other_pool.full("home")
    pools.fill(pool.path(source))
    pool.snapshot(f"{source}@one")
    _push(sender, f"{source}@one")
    (file,) = stored_files(receiver)
    receiver.stop()
    name = shlex.quote(str(file))
    _shell(sender, f"cd {shlex.quote(str(file.parent))} && sha256sum -c {shlex.quote(file.name + '.sha256')}")
    _shell(sender, f"zstd -dc {name} | zfs receive -u {target} && zfs mount {target}")
    assert pools.tree(other_pool.path(target)) == pools.tree(pool.path(source))


def test_a_send_that_is_killed_is_no_backup(pool: Pool, receiver: Receiver, sender: Sender) -> None:
    source = pool.create("home")
    pools.fill(pool.path(source), size=30_000_000)
    pool.snapshot(f"{source}@one")
    line = f"(zfs send {source}@one | head -c 12000000) | {FULLSEND} push --stdin"
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, **sender.env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "producer died" in done.stderr
    assert sender.list() == []
    assert stored_files(receiver) == []
    _push(sender, f"{source}@one")
    assert [entry["restorable"] for entry in sender.list()] == [True]


def test_a_resumed_stream_is_refused(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    source, target = pool.create("home"), other_pool.full("half")
    pools.fill(pool.path(source), size=3_000_000)
    pool.snapshot(f"{source}@one")
    pools.program("zfs", "receive", "-s", target, stdin=pool.send(f"{source}@one")[:1_500_000], check=False)
    token = other_pool.get(target, "receive_resume_token")
    done = sender.fullsend("push", "--stdin", stdin=pool.send("-t", token))
    assert done.returncode == 1
    assert b"is a resumed stream" in done.stderr
    assert good(sender.fullsend("list")) == b""


def test_a_package_with_datasets_left_out_on_purpose_is_refused(pool: Pool, sender: Sender) -> None:
    top = pool.create("tree")
    pool.create("tree/child")
    pool.snapshot(f"{top}@one", recursive=True)
    done = sender.fullsend("push", "--stdin", stdin=pool.send("-R", "-X", pool.full("tree/child"), f"{top}@one"))
    assert done.returncode == 1
    assert b"did not arrive" in done.stderr
