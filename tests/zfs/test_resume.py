"""A push that died is resumed by `zfs send -t`, against real ZFS: what is stored is what an uninterrupted send
would have made, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests import programs
from tests.zfs import pools
from tests.zfs.test_push import failure, holds, kinds, write

if TYPE_CHECKING:
    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool

MIB = 1 << 20


def push(sender: Sender, *arguments: str) -> list[dict[str, Any]]:
    """A push that must succeed, and what it says on the way, for a person who reads of a failure."""
    done = sender.fullsend("-v", "push", "--json", *arguments)
    print(done.stderr.decode())
    return programs.rows(programs.good(done))


def killed(receiver: Receiver, sender: Sender, *arguments: str, after: int = 9 * MIB) -> None:
    """A push that is killed when so many bytes more have arrived."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    running = sender.popen("push", "--bwlimit", "4M", *arguments, **quiet)

    def there() -> int:
        return sum(path.stat().st_size for path in (receiver.store / ".partial").glob("*.data"))

    before = there()

    def arrived() -> bool:
        assert running.poll() is None, running.stderr.read().decode() if running.stderr else ""
        return there() >= before + after

    programs.wait_for(arrived)
    running.kill()
    running.communicate()


def decoded(receiver: Receiver, pushed: dict[str, Any]) -> str:
    """SHA-256 of what stock zstd makes of a stored file."""
    file = receiver.store / pushed["receipt"]["file"]
    return hashlib.sha256(subprocess.run(["zstd", "-dcq", file], check=True, capture_output=True).stdout).hexdigest()


def sent(*arguments: str) -> str:
    return hashlib.sha256(pools.zfs("send", *arguments)).hexdigest()


def fill(pool: Pool, dataset: str, seed: int, size: int = 24 * MIB) -> None:
    (pool.path(dataset) / f"noise-{seed}").write_bytes(b"".join(pools.noise(size, seed)))


@pytest.mark.parametrize("flavour", ["compressed", "raw", "volume"])
def test_a_full_is_finished_by_token(
    flavour: str, pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    options = {"compressed": ["-c"]}.get(flavour, [])
    match flavour:
        case "raw":
            key = sender.folder / "key"
            key.write_bytes(b"k" * 32)
            home = pool.create("home", "-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
            fill(pool, "home", 1)
        case "volume":
            home = pool.full("home")
            pools.zfs("create", "-V", "32M", "-o", "volblocksize=16k", home)
            with pools.device(home).open("r+b") as disk:
                disk.write(b"".join(pools.noise(24 * MIB)))
        case _:
            home = pool.create("home", "-o", "compression=lz4")
            pools.fill(pool.path("home"))
            fill(pool, "home", 1)
    killed(receiver, sender, *options, home)
    (held,) = {line.split("\t")[0] for line in holds(pool)}
    (pushed,) = push(sender, *options, home)
    assert (pushed["resume"], pushed["kind"]) == ("token", "full")
    assert 4 * MIB <= pushed["resumed_at"] < pushed["raw_bytes"]
    # Nothing was sent twice, and nothing was read of the pool but the rest.
    assert pushed["wire_bytes"] < pushed["raw_bytes"] - pushed["resumed_at"] + MIB
    letters = ["-w"] if flavour == "raw" else []
    assert decoded(receiver, pushed) == sent("-L", *options, "-p", *letters, held)
    assert holds(pool) == []
    assert all(entry["restorable"] for entry in sender.list())
    programs.good(sender.fullsend("verify"))
    programs.good(sender.fullsend("restore", home, "--into", other_pool.full("back")))
    assert other_pool.guid(f"{other_pool.full('back')}@{pushed['snapshot']}") == int(pushed["guid"])
    if flavour == "compressed":
        pools.zfs("inherit", "mountpoint", other_pool.full("back"))
        pools.zfs("mount", other_pool.full("back"))
        assert pools.tree(other_pool.path("back")) == pools.tree(pool.path("home"))


def test_an_increment_is_finished_before_the_next_night_begins(pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home")
    write(pool, "home", "one")
    (first,) = sender.push(home)
    fill(pool, "home", 1, 64 * MIB)
    killed(receiver, sender, home)
    # Meanwhile the base is a bookmark alone, the receiver has been away, and the dataset has changed.
    receiver.stop()
    receiver.start()
    write(pool, "home", "two")
    killed(receiver, sender, home, after=8 * MIB)
    (held,) = {name for name in (line.split("\t")[0] for line in holds(pool)) if first["snapshot"] not in name}
    finished, new = push(sender, "--keep", "9", home)
    assert (finished["resume"], finished["kind"], finished["base_guid"]) == ("token", "incremental", first["guid"])
    assert (new["resume"], new["kind"], new["base_guid"]) == ("none", "incremental", finished["guid"])
    assert decoded(receiver, finished) == sent("-L", "-p", "-i", f"{home}@{first['snapshot']}", held)
    assert holds(pool) == []
    assert all(entry["restorable"] for entry in sender.list())


def test_where_a_token_cannot_serve(pool: Pool, receiver: Receiver, sender: Sender) -> None:
    """The snapshot is gone: what had arrived is left to its age, and a new stream is sent. A package is replayed."""
    home = pool.create("home")
    fill(pool, "home", 1)
    killed(receiver, sender, home)
    for line in holds(pool):
        name, tag, *_rest = line.split("\t")
        pools.zfs("release", tag, name)
        pools.zfs("destroy", name)
    (pushed,) = push(sender, home)
    assert (pushed["resume"], pushed["kind"]) == ("none", "full")
    (partial,) = programs.rows(programs.good(sender.fullsend("list", "--partial", "--json")))
    assert partial["dataset"] == home
    top = pool.create("top")
    pool.create("top/child")
    fill(pool, "top/child", 2)
    killed(receiver, sender, "-R", top)
    pushed_again = push(sender, "-R", top)
    assert (pushed_again[0]["kind"], pushed_again[0]["resume"]) == ("package", "replay")
    assert kinds(pushed_again)[0] == (top, "package")


# --- restore -------------------------------------------------------------------------------------------------------


def die_amid_receive(sender: Sender, reads: int, *arguments: str) -> None:
    """A restore that dies with its `zfs receive`, which has got so many bytes of the stream: as if all failed."""
    slow = sender.folder / "slow-zfs"
    here = sender.folder / "here"
    here.unlink(missing_ok=True)
    slow.write_text(
        '#!/bin/sh\n[ "$1" = receive ] || exec zfs "$@"\n'
        f'(head -c {reads}; touch "{here}"; exec sleep 600) | zfs "$@"\n'
    )
    slow.chmod(0o755)
    config = sender.folder / "sender.toml"
    text = config.read_text()
    config.write_text(f'zfs-command = "{slow}"\n\n{text}')
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    running = sender.popen("restore", *arguments, start_new_session=True, **quiet)
    programs.wait_for(here.exists)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    # Linux ends its work for `zfs receive` before that process is gone. Until then the next one would be refused.
    programs.wait_for(lambda: not runs(running.pid))
    config.write_text(text)


def runs(group: int) -> bool:
    """Whether any process of a group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def restored(sender: Sender, *arguments: str) -> dict[str, Any]:
    (said,) = programs.rows(programs.good(sender.fullsend("-v", "restore", "--json", *arguments)))
    return said


def test_what_is_on_a_target_beside_a_part_is_not_destroyed(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    """`zfs receive -F` would destroy a younger snapshot at its end; without -F it takes all, and refuses it then."""
    home, back = pool.create("home"), other_pool.full("back")
    fill(pool, "home", 1, MIB)
    (first,) = push(sender, home)
    fill(pool, "home", 2, 12 * MIB)
    (second,) = push(sender, home)
    restored(sender, f"{home}@{first['snapshot']}", "--into", back)
    die_amid_receive(sender, 6 * MIB, home, "--into", back)
    pools.zfs("inherit", "mountpoint", back)
    pools.zfs("mount", back)
    (other_pool.path("back") / "mine").write_text("mine")
    other_pool.snapshot(f"{back}@auto")
    for force in ([], ["-F"]):
        said = failure(sender.fullsend("restore", *force, home, "--into", back), 2)
        assert "@auto, which does not belong before that" in said
        assert f"{back}@auto" in other_pool.names("snapshot")
    pools.zfs("destroy", f"{back}@auto")
    assert "has been modified" in failure(sender.fullsend("restore", home, "--into", back), 1)
    assert (other_pool.path("back") / "mine").read_text() == "mine"
    said_again = restored(sender, "-F", home, "--into", back)
    assert said_again["resumed_at"] >= 4 * MIB
    assert other_pool.guid(f"{back}@{second['snapshot']}") == int(second["guid"])
    assert pools.tree(other_pool.path("back")) == pools.tree(pool.path("home"))


@pytest.mark.parametrize("flavour", ["plain", "compressed", "raw", "volume"])
def test_a_restore_that_died_resumes_inside_the_stream(
    flavour: str, pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    flags = {"compressed": ["-c"]}.get(flavour, [])
    home = pool.full("home")
    key = sender.folder / "key"
    key.write_bytes(b"k" * 32)
    if flavour == "volume":
        pools.zfs("create", "-V", "32M", "-o", "volblocksize=16k", home)
    else:
        encrypted = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]
        pool.create("home", "-o", "compression=lz4", "-o", "user:note=one", *(encrypted if flavour == "raw" else []))
        pools.fill(pool.path("home"))
    pushed = []
    for night in (1, 2):
        if flavour == "volume":
            with pools.device(home).open("r+b") as disk:
                disk.seek((12 * night - 12) * MIB)
                disk.write(b"".join(pools.noise(12 * MIB, night)))
        else:
            fill(pool, "home", night, 12 * MIB)
            pools.zfs("set", f"user:note={night}", home)
        pushed += push(sender, *flags, home)
    full, increment = pushed
    back = other_pool.full("back")
    first = f"{home}@{full['snapshot']}"
    # In the full twice, and in the increment.
    die_amid_receive(sender, 7 * MIB, first, "--into", back)
    assert other_pool.get(back, "receive_resume_token") != "-"
    die_amid_receive(sender, 3 * MIB, first, "--into", back)
    said = restored(sender, first, "--into", back)
    assert (said["streams"], said["resumed_at"] + said["raw_bytes"]) == (1, full["raw_bytes"])
    assert said["resumed_at"] >= 4 * MIB
    die_amid_receive(sender, 8 * MIB, home, "--into", back)
    said = restored(sender, home, "--into", back)
    assert (said["streams"], said["resumed_at"] + said["raw_bytes"]) == (1, increment["raw_bytes"])
    assert said["resumed_at"] >= 4 * MIB
    assert other_pool.get(back, "receive_resume_token") == "-"
    for each in pushed:
        assert other_pool.guid(f"{back}@{each['snapshot']}") == int(each["guid"])
    if flavour == "raw":
        pools.zfs("load-key", "-L", f"file://{key}", back)
    if flavour == "volume":
        assert pools.device(back).read_bytes() == pools.device(home).read_bytes()
    else:
        # Properties come along, although `zfs send -t` would not bring them.
        assert (other_pool.get(back, "user:note"), other_pool.get(back, "canmount")) == ("2", "noauto")
        pools.zfs("inherit", "mountpoint", back)
        pools.zfs("mount", back)
        assert pools.tree(other_pool.path("back")) == pools.tree(pool.path("home"))
    pools.program("zpool", "scrub", "-w", other_pool.name)
    assert "No known data errors" in pools.program("zpool", "status", other_pool.name).stdout.decode()
