"""Restore drills against real ZFS: what is compared, what is found, and what is left afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import programs, resumed
from tests.zfs import pools
from tests.zfs.test_prove import merge, nights

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool

#: Each test pushes and restores several times, on an emulated processor.
pytestmark = pytest.mark.timeout(1800)

#: Bytes in a file of which the restored copy gets another byte.
MARK: Final = b"the byte that is changed is in this file. " * 40


@pytest.fixture
def place(other_pool: Pool, sender: Sender) -> str:
    """The scratch place, on a pool of its own."""
    place = other_pool.create("drill", "-o", "canmount=off", "-o", "mountpoint=none")
    config = sender.folder / "sender.toml"
    config.write_text(f'drill-into = "{place}"\n{config.read_text()}')
    return place


def drill(sender: Sender, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = sender.fullsend("drill", "--json", *arguments)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    (said,) = programs.rows(done.stdout)
    assert isinstance(said, dict)
    return said


def left(pool: Pool) -> set[str]:
    """What is in the pool of the scratch place beside that."""
    return pool.names() - {pool.name, pool.full("drill")}


@pytest.mark.usefixtures("place")
def test_files_are_compared_and_nothing_is_left(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    home = pool.create("home", "-o", "compression=lz4", "-o", "quota=900M")
    pushed = nights(pool, sender, home)
    assert {each["kind"] for each in pushed} == {"full", "incremental"}
    for each in (pushed[0], pushed[-1]):
        said = drill(sender, f"{home}@{each['snapshot']}")
        assert (said["ok"], said["compared"], said["guid"]) == (True, "files", each["guid"]), said
        assert said["files"] > 10
        assert said["reported"] is True
        assert left(other_pool) == set()
    assert not os.listdir("/run/fullsend") or not [each for each in os.listdir("/run/fullsend") if "drill-" in each]
    # The live dataset is as it was, and still the only one that is mounted.
    assert pool.get(home, "mounted") == "yes"
    assert pool.get(home, "quota") == str(900 << 20)
    # Here the snapshot is gone, or another has its name.
    full = pushed[0]
    name = f"{home}@{full['snapshot']}"
    for line in pools.zfs("holds", "-H", name).decode().splitlines():
        pools.zfs("release", line.split("\t")[1], name)
    pools.zfs("destroy", name)
    said = drill(sender, f"guid:{full['guid']}")
    assert (said["ok"], said["compared"], said["files"]) == (True, "guid", 0)
    assert "nothing was compared, because the snapshot is gone here" in said["text"]
    pools.zfs("snapshot", name)
    said = drill(sender, f"guid:{full['guid']}")
    assert (said["ok"], said["compared"]) == (True, "guid")
    assert f"has another GUID ({pool.guid(name)})" in said["text"]
    assert left(other_pool) == set()


@pytest.mark.usefixtures("place")
def test_a_chain_that_was_merged(pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home", "-o", "compression=lz4")
    pushed = nights(pool, sender, home)
    # Before any drill: what was read for one is not merged within the hour.
    merge(receiver)
    full, *_rest = sorted(sender.list(), key=lambda each: int(each["sequence"]))
    assert full["guid"] == pushed[-3]["guid"]
    said = drill(sender, f"guid:{full['guid']}")
    assert (said["ok"], said["compared"], said["streams"]) == (True, "files", 1), said
    said = drill(sender, "--newest")
    assert (said["ok"], said["compared"], said["guid"]) == (True, "files", pushed[-1]["guid"]), said
    assert left(other_pool) == set()


@pytest.mark.usefixtures("place")
def test_a_volume_and_what_is_encrypted(pool: Pool, other_pool: Pool, sender: Sender, tmp_path: Path) -> None:
    disk = pool.full("disk")
    pools.zfs("create", "-V", "8M", "-o", "volblocksize=16k", disk)
    for number in range(2):
        with pools.device(disk).open("r+b") as file:
            file.seek(number << 20)
            file.write(b"".join(pools.noise(1 << 20, number)))
        programs.good(sender.fullsend("push", disk))
    said = drill(sender, "--newest", disk)
    assert (said["ok"], said["compared"], said["streams"]) == (True, "blocks", 2), said
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    at_rest = ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
    vault = pool.create("vault", *at_rest)
    pools.fill(pool.path("vault"))
    programs.good(sender.fullsend("push", vault))
    pools.change(pool.path("vault"))
    programs.good(sender.fullsend("push", vault))
    # Its key can be loaded, from where it is loaded here.
    said = drill(sender, "--newest", vault)
    assert (said["ok"], said["compared"], said["streams"]) == (True, "files", 2), said
    # `zfs change-key` writes nothing to the dataset, so no push follows, and the backup keeps the old key.
    other = tmp_path / "other-key"
    other.write_bytes(b"o" * 32)
    pools.zfs("change-key", "-o", f"keylocation=file://{other}", vault)
    assert programs.rows(programs.good(sender.fullsend("push", "--json", vault))) == []
    said = drill(sender, "--newest", vault, code=1)
    assert (said["ok"], said["compared"]) == (False, "guid"), said
    assert f"the backup has another key than {vault} has now" in said["text"]
    # An increment brings the new one.
    (pool.path("vault") / "after").write_bytes(b"text")
    programs.good(sender.fullsend("push", vault))
    said = drill(sender, "--newest", vault)
    assert (said["ok"], said["compared"], said["streams"]) == (True, "files", 3), said
    # Only a person has it: the encrypted blocks are compared.
    pools.zfs("set", "keylocation=prompt", vault)
    said = drill(sender, "--newest", vault)
    assert (said["ok"], said["compared"], said["files"]) == (True, "blocks", 0), said
    assert "its encrypted blocks are the same" in said["text"]
    assert "its files were not compared: it came encrypted, and only a person has its key" in said["text"]
    pools.zfs("unmount", vault)
    pools.zfs("unload-key", vault)
    said = drill(sender, "--newest", vault)
    assert (said["ok"], said["compared"]) == (True, "blocks"), said
    assert left(other_pool) == set()


@pytest.mark.usefixtures("place")
def test_one_wrong_byte_is_found(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    """A stream whose checksums are right, and which is not what is here: what no other check finds."""
    home = pool.create("home")
    (pool.path("home") / "text").write_bytes(MARK)
    (pool.path("home") / "other").write_bytes(b"other")
    pool.snapshot(f"{home}@a")
    raw = pool.send(f"{home}@a")
    at = raw.index(MARK) + 100
    (of,) = resumed.sent(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    wrong = resumed.summed(of.begin, [of.bytes_of(each) for each in of.records[1:]])
    assert (len(wrong), wrong[:312]) == (len(raw), raw[:312])
    sender.push("--stdin", stdin=wrong)
    said = drill(sender, home, code=1)
    assert (said["ok"], said["compared"], said["reported"]) == (False, "files", True), said
    assert said["differences"] == ["/text: other bytes, from about byte 0 on"]
    assert left(other_pool) == set()
    done = sender.fullsend("status")
    assert (done.returncode, b"the drill of @a" in done.stdout) == (1, True), done.stdout.decode()


def wait_until(reached: Callable[[subprocess.Popen[bytes]], bool], running: subprocess.Popen[bytes]) -> None:
    programs.wait_for(lambda: running.poll() is not None or reached(running))


def has_mounts(running: subprocess.Popen[bytes]) -> bool:
    """Whether a thread of this program has mounted what was restored."""
    with contextlib.suppress(OSError):  # a thread that has ended
        for mounts in Path(f"/proc/{running.pid}/task").glob("*/mountinfo"):
            if "/restored@" in mounts.read_text(encoding="utf-8"):
                return True
    return False


def test_a_drill_that_is_killed(pool: Pool, other_pool: Pool, place: str, sender: Sender) -> None:
    home = pool.create("home")
    (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(24 << 20)))
    programs.good(sender.fullsend("push", home))
    # What a user has put there stays, whatever it is called.
    mine = f"{place}/fullsend-drill-0123456789abcdef"
    pools.zfs("create", "-u", f"{mine}")
    restores, compares = (lambda _running: any(name.endswith("/restored") for name in other_pool.names())), has_mounts
    kills = itertools.product((signal.SIGKILL, signal.SIGTERM), (restores, compares))
    for number, reached in kills:
        running = sender.popen("drill", home, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(reached, running)
        running.send_signal(number)
        running.communicate(timeout=programs.PATIENCE)
        if number == signal.SIGTERM and running.returncode == 130:
            assert left(other_pool) == {mine}
    # `zfs receive` may need a moment to see that nobody writes to it any more.
    programs.wait_for(lambda: subprocess.run(["pgrep", "-f", f"zfs receive .*{place}"], check=False).returncode == 1)
    done = sender.fullsend("drill", "--json", home)
    assert done.returncode == 1  # of the one that is not a drill's
    (said,) = programs.rows(done.stdout)
    assert said["ok"] is True
    assert f"{mine}, the scratch of a drill, is not destroyed: it does not have fullsend:drill=" in done.stderr.decode()
    assert left(other_pool) == {mine}
    pools.zfs("destroy", mine)
    assert drill(sender, home)["ok"] is True
    assert "/restored@" not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_a_place_without_room(pool: Pool, other_pool: Pool, place: str, sender: Sender) -> None:
    home = pool.create("home")
    (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(8 << 20)))
    programs.good(sender.fullsend("push", home))
    pools.zfs("set", "quota=4M", place)
    done = sender.fullsend("drill", home)
    assert done.returncode == 2
    assert re.search(rf"{home}@\S+ needs up to 8\.\d MiB, and {place} has room for", done.stderr.decode())
    assert left(other_pool) == set()
    # It is a full pool that the drill must not make: the scratch has a quota of its own.
    pools.zfs("set", "quota=none", place)
    assert drill(sender, home)["ok"] is True
