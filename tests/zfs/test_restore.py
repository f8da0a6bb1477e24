"""`fullsend restore` on the worst day of the year, against real ZFS."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests import programs
from tests.zfs import pools
from tests.zfs.test_push import failure, write
from tests.zfs.test_resume import die_amid_receive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool


def restore(sender: Sender, *arguments: str) -> list[dict[str, Any]]:
    return programs.rows(programs.good(sender.fullsend("restore", "--json", *arguments)))


def content(pool: Pool, dataset: str) -> object:
    """All that is in a dataset, where it is mounted or, if it is a volume, on its device."""
    full = pool.full(dataset)
    if pool.get(full, "type") == "volume":
        return hashlib.sha256(pools.device(full).read_bytes()).hexdigest()
    return pools.tree(pool.path(dataset))


def newest(pool: Pool, full: str) -> str:
    names = pools.zfs("list", "-Hpd1", "-t", "snapshot", "-o", "name", "-s", "createtxg", full).decode().split()
    return names[-1].partition("@")[2]


@pytest.mark.timeout(1500)
def test_a_year_of_nights(pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender, tmp_path: Path) -> None:
    """Sixty nights in which all that may happen to a tree happens; then its oldest, a middle and its newest state."""
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    encrypted = ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
    top = pool.create("t", "-o", "user:note=kept", "-o", "compression=lz4")
    pool.create("t/home")
    pools.fill(pool.path("t/home"))
    pool.create("t/vault", *encrypted)
    write(pool, "t/vault", "secret 0")
    pools.zfs("create", "-V", "4M", "-o", "volblocksize=16k", pool.full("t/disk"))
    r = random.Random(1)
    states: dict[str, dict[str, object]] = {}

    def night(number: int) -> None:
        """What happened during the day."""
        changed = ["t/home"] if number % 3 else ["t/home", "t/vault"]
        for name in changed:
            write(pool, name, f"night {number} {r.random()}")
        match number:
            case 3:
                pool.create("t/new")
                write(pool, "t/new", "new")
            case 8:
                pools.zfs("rename", pool.full("t/new"), pool.full("t/renamed"))
                write(pool, "t/renamed", "renamed")
            case 12:
                with pools.device(pool.full("t/disk")).open("r+b") as disk:
                    disk.write(r.randbytes(100_000))
            case 16:  # back to what was there two nights ago
                names = pools.zfs(
                    "list", "-Hpd1", "-t", "snapshot", "-o", "name", "-s", "createtxg", pool.full("t/home")
                )
                pools.zfs("rollback", "-r", names.decode().split()[0])
                write(pool, "t/home", "after the rollback")
            case 20:
                pools.zfs("snapshot", f"{pool.full('t/renamed')}@origin")
                pools.zfs("clone", f"{pool.full('t/renamed')}@origin", pool.full("t/clone"))
                write(pool, "t/clone", "a clone")
            case 24:
                pools.zfs("promote", pool.full("t/clone"))
                write(pool, "t/clone", "promoted")
                write(pool, "t/renamed", "demoted")
            case 30:  # all snapshots go, so that bookmarks alone are left
                for name in sorted(pool.names("snapshot")):
                    if name.startswith(pool.full("t/home")):
                        pools.zfs("destroy", name)
            case 35:
                pools.zfs("destroy", "-r", pool.full("t/renamed"))
                pools.retire(sender, pool.full("t/renamed"))
            case 40:
                pools.zfs("unmount", pool.full("t/vault"))
                pools.zfs("unload-key", pool.full("t/vault"))
                pools.zfs("load-key", pool.full("t/vault"))
                pools.zfs("mount", pool.full("t/vault"))
                write(pool, "t/vault", "the key has been away")
            case 45:
                pools.zfs("destroy", "-r", pool.full("t/clone"))
                pool.create("t/clone")
                write(pool, "t/clone", "another by the same name")

    def remember(name: str) -> None:
        subprocess.run(["sync"], check=True)
        states[name] = {
            each: content(pool, each.removeprefix(f"{pool.name}/"))
            for each in sorted(pool.names("filesystem,volume"))
            if each.startswith(top)
        }

    names = []
    for number in range(60):
        night(number)
        pushed = sender.push("-r", *(["--full"] if number == 50 else []), top)
        assert pushed, number
        names.append(pushed[-1]["snapshot"])
        if number in {0, 22, 59}:
            remember(names[-1])
    listed = sender.list()
    assert all(entry["restorable"] for entry in listed)
    assert len({entry["dataset"] for entry in listed}) == 7
    note = {"user:note": "kept", "compression": "lz4"}
    for place, (name, before) in enumerate(states.items()):
        into = other_pool.full(f"back{place}")
        newest_only = place == len(states) - 1
        done = restore(sender, "-r", top if newest_only else f"{top}@{name}", "--into", into)
        said = {each["dataset"]: each for each in done}
        # What had been destroyed at home by then is still stored, and comes back with a tree.
        assert before.keys() <= said.keys()
        for dataset in before:
            here = f"back{place}" + dataset.removeprefix(top)
            full = other_pool.full(here)
            assert other_pool.guid(f"{full}@{said[dataset]['snapshot']}") == int(said[dataset]["guid"])
            assert other_pool.get(full, "mounted") in {"no", "-"}
            if other_pool.get(full, "type") == "filesystem":
                assert other_pool.get(full, "canmount") == "noauto"
                if "vault" in dataset:
                    pools.zfs("load-key", full)
                other_pool.mount(here)
        # Parents are mounted before children, and children are folders in them, as at home.
        for dataset, state in before.items():
            here = f"back{place}" + dataset.removeprefix(top)
            assert content(other_pool, here) == state, (name, dataset)
        assert {key: other_pool.get(into, key) for key in note} == note
        pools.zfs("destroy", "-r", into)


def test_what_may_go_wrong(pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home", "-o", "mountpoint=/nowhere/live", "-o", "canmount=off")
    pools.zfs("set", "canmount=on", f"mountpoint={pool.path('home')}", home)
    pool.path("home").mkdir(exist_ok=True)
    (first,) = sender.push(home)
    (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(16 << 20)))
    (second,) = sender.push(home)
    into = other_pool.full("restored")
    restore(sender, f"{home}@{first['snapshot']}", "--into", into)
    assert other_pool.get(into, "canmount") == "noauto"
    # A pool without room: zfs's own words, and what is there stays.
    pools.zfs("set", "quota=4M", into)
    said = failure(sender.fullsend("restore", home, "--into", into), 1)
    assert "zfs receive" in said
    assert "quota" in said or "out of space" in said
    assert "its snapshots are as they were: run the same command again to resume" in said
    assert f"(in the way may be quota=4.0 MiB of {into})" in said
    assert newest(other_pool, into) == first["snapshot"]
    pools.zfs("set", "quota=none", into)
    # Somebody wrote to it.
    pools.zfs("inherit", "mountpoint", into)
    pools.zfs("mount", into)
    (other_pool.path("restored") / "mine").write_text("mine")
    pools.zfs("unmount", into)
    assert "has been modified" in failure(sender.fullsend("restore", home, "--into", into), 1)
    (said_again,) = restore(sender, "-F", home, "--into", into)
    assert said_again["streams"] == 1
    assert other_pool.guid(f"{into}@{second['snapshot']}") == int(second["guid"])
    # What undoes the caution, as it is printed.
    subprocess.run(said_again["undo"], shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert other_pool.get(into, "canmount") == "on"
    # Nothing that exists is overwritten.
    other_pool.create("mine")
    write(other_pool, "mine", "precious")
    for force in ([], ["-F"]):
        said = failure(sender.fullsend("restore", *force, home, "--into", other_pool.full("mine")), 2)
        assert "nothing that exists is overwritten" in said
    assert (other_pool.path("mine") / "file").read_text() == "precious"
    # Killed in the middle: nothing of that stream is there, and the next run does all of it.
    again = other_pool.full("again")
    running = sender.popen("restore", home, "--into", again, stderr=subprocess.PIPE)
    programs.wait_for(lambda: again in other_pool.names("filesystem") or running.poll() is not None)
    running.terminate()
    _out, errors = running.communicate(timeout=programs.PATIENCE)
    assert (running.returncode, b"Traceback" in errors) in {(130, False), (0, False)}
    restore(sender, home, "--into", again)
    assert newest(other_pool, again) == second["snapshot"]


def test_the_target_pool_is_full(
    pool: Pool, make_pool: Callable[..., Pool], receiver: Receiver, sender: Sender
) -> None:
    home = pool.create("home")
    (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(24 << 20)))
    (pushed,) = sender.push(home)
    small = make_pool(128 << 20)
    small.create("filler")
    filler = small.path("filler") / "noise"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        for piece in pools.noise(120 << 20, 1):
            file.write(piece)
    with contextlib.suppress(OSError):  # as much of it as leaves room for the beginning
        os.truncate(filler, filler.stat().st_size - (12 << 20))
    subprocess.run(["zpool", "sync", small.name], check=True)
    into = small.full("back")
    said = failure(sender.fullsend("restore", home, "--into", into), 1)
    assert "out of space" in said
    assert "nothing is restored yet: run the same command again to resume" in said
    assert not [name for name in small.names() if name.startswith(f"{into}@")]
    filler.unlink()
    subprocess.run(["zpool", "sync", small.name], check=True)
    restore(sender, home, "--into", into)
    assert small.guid(f"{into}@{pushed['snapshot']}") == int(pushed["guid"])


def test_packages_and_a_replaced_host(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender, tmp_path: Path
) -> None:
    top = pool.create("top", "-o", "user:note=kept")
    pool.create("top/a", "-o", "recordsize=16k")
    write(pool, "top/a", "a")
    pools.zfs("create", "-V", "4M", pool.full("top/disk"))
    (package,) = sender.push("-R", top)
    # The ZFS host is gone; another one takes its name, and finds its backups.
    replaced = programs.Sender(tmp_path / "replaced")
    replaced.folder.mkdir()
    programs.good(replaced.fullsend("join", receiver.invite(sender.name, "--replace")))
    assert "revoked" in failure(sender.fullsend("list"), 3)
    (done,) = restore(replaced, top, "--into", other_pool.full("back"))
    assert (done["guid"], done["streams"]) == (package["guid"], 1)
    for name in ("back", "back/a"):
        full = other_pool.full(name)
        assert (name, other_pool.get(full, "canmount"), other_pool.get(full, "mounted")) == (name, "noauto", "no")
    assert other_pool.get(other_pool.full("back/a"), "recordsize") == "16384"
    assert other_pool.full("back/disk") in other_pool.names("volume")
    subprocess.run(done["undo"], shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert other_pool.get(other_pool.full("back/a"), "canmount") == "on"
    # Without us: the lines that the receiver prints for a chain.
    home = pool.create("home")
    write(pool, "home", "one")
    programs.good(replaced.fullsend("push", home))
    write(pool, "home", "two")
    (last,) = replaced.push(home)
    lines = programs.good(
        receiver.fullsendd("show", f"{replaced.name}/{home}@{last['snapshot']}", "--commands")
    ).decode()
    script = tmp_path / "restore.sh"
    script.write_text(lines.replace("TARGET=pool/restored", f"TARGET={other_pool.full('plain')}"))
    subprocess.run(["sh", "-e", str(script)], cwd=receiver.store, check=True)
    assert other_pool.guid(f"{other_pool.full('plain')}@{last['snapshot']}") == int(last["guid"])
    other_pool.mount("plain")
    assert (other_pool.path("plain") / "file").read_text() == "two"
    assert json.loads(programs.good(replaced.fullsend("list", "--json", home)).splitlines()[0])["kind"] == "full"


def test_a_tree_onto_what_is_there_and_with_gaps(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    for name in ("home", "x/y"):
        pool.create(name)
        write(pool, name, name)
    sender.push("-r", pool.name, "--exclude", pool.full("x"))
    sender.push(pool.full("x/y"))
    (said, *_more) = restore(sender, "-r", pool.name, "--into", other_pool.full("back"))
    assert said["target"] == other_pool.full("back")
    assert other_pool.get(other_pool.full("back/x"), "canmount") == "off"
    assert {other_pool.full(name) for name in ("back/home", "back/x/y")} <= other_pool.names("filesystem")
    # A pool's root is always there. It is left as it is, and all else comes back.
    done = sender.fullsend("restore", "-r", "--json", pool.name, "--into", other_pool.name)
    assert [each["target"] for each in programs.rows(done.stdout)] == [other_pool.full("home"), other_pool.full("x/y")]
    assert "has no snapshot" in failure(done, 2)
    other_pool.mount("home")
    assert (other_pool.path("home") / "file").read_text() == "home"


def test_what_came_of_a_package_that_broke_off_does_not_mount(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    """Not even at the next boot, where something else may live there."""
    top = pool.create("top")
    for name in ("top/a", "top/b"):  # which of them comes first, ZFS decides
        pool.create(name)
        (pool.path(name) / "noise").write_bytes(b"".join(pools.noise(6 << 20)))
        pools.zfs("unmount", pool.full(name))
        pools.zfs("set", f"mountpoint=/nowhere/{name}", pool.full(name))
    sender.push("-R", top)
    back = other_pool.full("back")
    die_amid_receive(sender, 9 << 20, top, "--into", back)

    def came() -> list[str]:
        return [name for name in sorted(other_pool.names("filesystem")) if name.startswith(back)]

    programs.wait_for(lambda: len(came()) == 2)  # `zfs receive` takes what is not whole away
    for name in came():
        assert (other_pool.get(name, "mountpoint"), other_pool.get(name, "mounted")) == ("none", "no")
        pools.zfs("mount", name, check=False)
        assert other_pool.get(name, "mounted") == "no"
    pools.zfs("destroy", "-r", back)
    (said,) = restore(sender, top, "--into", back)
    for name in (back, f"{back}/a", f"{back}/b"):
        assert (other_pool.get(name, "canmount"), other_pool.get(name, "mounted")) == ("noauto", "no")
    assert other_pool.get(back, "mountpoint") == str(other_pool.path("back"))
    assert other_pool.get(f"{back}/a", "mountpoint") == "/nowhere/top/a"
    subprocess.run(said["undo"], shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert other_pool.get(f"{back}/b", "canmount") == "on"


# --- encryption ----------------------------------------------------------------------------------------------------


def create_encrypted(pool: Pool, dataset: str, key: Path, keyformat: str = "passphrase") -> str:
    """`key`: its file, which may be there already."""
    if not key.exists():
        key.write_text("a key of 32 bytes, or of letters", encoding="utf-8")
    return pool.create(
        dataset, "-o", "encryption=on", "-o", f"keyformat={keyformat}", "-o", f"keylocation=file://{key}"
    )


def said_while(sender: Sender, *arguments: str) -> str:
    """What a restore that works says on stderr."""
    done = sender.fullsend("restore", *arguments)
    programs.good(done)
    return done.stderr.decode()


def test_what_was_not_encrypted_is_so_in_an_encrypted_place(
    pool: Pool, other_pool: Pool, sender: Sender, tmp_path: Path
) -> None:
    """openzfs issues 8819, 6706, 17039: it lay there in the clear, with exit 0 and without a word."""
    top = pool.create("t")
    for name in ("t/a", "t/a/b"):
        pool.create(name)
    pools.fill(pool.path("t/a"))
    write(pool, "t/a/b", "b")
    pools.zfs("create", "-V", "4M", "-o", "volblocksize=16k", pool.full("t/disk"))
    with pools.device(pool.full("t/disk")).open("r+b") as disk:
        disk.write(b"secret" * 10_000)
    sender.push("-r", top)
    vault = create_encrypted(other_pool, "vault", tmp_path / "key", "raw")
    back = f"{vault}/back"

    def roots() -> dict[str, str]:
        return {
            name: other_pool.get(name, "encryptionroot")
            for name in other_pool.names("filesystem,volume")
            if name.startswith(f"{vault}/")
        }

    assert "clear" not in said_while(sender, "-r", top, "--into", back)
    write(pool, "t/a/b", "c")
    sender.push("-r", top)
    assert "clear" not in said_while(sender, "-r", top, "--into", back)
    assert roots() == dict.fromkeys([back, f"{back}/a", f"{back}/a/b", f"{back}/disk"], vault)
    subprocess.run(["sync"], check=True)
    for name in ("a", "a/b"):
        other_pool.mount(f"vault/back/{name}")
    for name in ("a/b", "a", "disk"):
        assert content(other_pool, f"vault/back/{name}") == content(pool, f"t/{name}")
    pools.zfs("destroy", "-r", back)
    # In the clear, where somebody says so.
    said = said_while(sender, "-r", "--unencrypted", top, "--into", back)
    for name in roots():
        assert f"{name}: it will be unencrypted, below {vault}, which is encrypted" in said
    assert set(roots().values()) == {"-"}
    write(pool, "t/a/b", "d")
    sender.push("-r", top)
    said = said_while(sender, "-r", top, "--into", back)
    assert f"{back}/a/b: it will be unencrypted, below {vault}, which is encrypted" in said
    pools.zfs("destroy", "-r", back)
    # A package, all of it; and what broke off in the middle.
    sender.push("-R", pool.full("t/a"))
    said_while(sender, pool.full("t/a"), "--into", back)
    assert roots() == dict.fromkeys([back, f"{back}/b"], vault)
    pools.zfs("destroy", "-r", back)
    pool.create("noise")
    (pool.path("noise") / "noise").write_bytes(b"".join(pools.noise(12 << 20)))
    sender.push(pool.full("noise"))
    die_amid_receive(sender, 6 << 20, pool.full("noise"), "--into", f"{vault}/noise")
    assert (
        "resumed after"
        in programs.good(sender.fullsend("restore", pool.full("noise"), "--into", f"{vault}/noise")).decode()
    )
    assert roots() == {f"{vault}/noise": vault}
    # Without its key it is refused before the first byte, and so are embedded blocks.
    pools.zfs("unmount", vault, check=False)
    pools.zfs("unload-key", vault)
    said = failure(sender.fullsend("restore", top, "--into", back), 2)
    assert f"the key of that is not loaded: `zfs load-key {vault}` first" in said
    pools.zfs("load-key", vault)
    pool.create("small")
    write(pool, "small", "small")
    sender.push("-e", pool.full("small"))
    said = failure(sender.fullsend("restore", pool.full("small"), "--into", back), 2)
    assert "has embedded blocks" in said
    assert roots() == {f"{vault}/noise": vault}
    said_while(sender, "--unencrypted", pool.full("small"), "--into", back)
    assert roots()[back] == "-"


def test_a_tree_of_one_key_gets_it_back(pool: Pool, other_pool: Pool, sender: Sender, tmp_path: Path) -> None:
    """Received one by one, each child is its own encryption root. What undoes that is said of those that were not."""
    top = create_encrypted(pool, "vault", tmp_path / "key")
    for name in ("vault/a", "vault/a/b"):
        pool.create(name)
        write(pool, name, name)
    create_encrypted(pool, "vault/own", tmp_path / "key")  # of the same passphrase, and yet of another key
    pool.create("vault/plain", "-o", "encryption=off")
    sender.push("-r", top)
    back = other_pool.full("back")
    said = said_while(sender, "-r", top, "--into", back)
    lines = [line.partition("this undoes it: ")[2] for line in said.splitlines() if "change-key" in line]
    assert [line.split()[-1] for line in lines] == [f"{back}/a", f"{back}/a/b"]
    assert f"at home it had the key of {back}, and is an encryption root of its own now" in said
    assert other_pool.get(f"{back}/plain", "encryption") == "off"
    for name in (back, f"{back}/a", f"{back}/a/b"):
        pools.zfs("load-key", "-L", f"file://{tmp_path / 'key'}", name)
    for line in lines:
        subprocess.run(line, shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert {other_pool.get(name, "encryptionroot") for name in (f"{back}/a", f"{back}/a/b")} == {back}
    assert "change-key" not in said_while(sender, "-r", top, "--into", back)
    # As a package they keep it; what is not encrypted in one is said where the place is.
    sender.push("-R", top)
    strange = create_encrypted(other_pool, "strange", tmp_path / "key", "raw")
    said = said_while(sender, top, "--into", f"{strange}/back")
    assert f"what is not encrypted in this package will be unencrypted, below {strange}" in said
    assert f"{strange}/back/plain is unencrypted, as it was at home" in said
    assert "change-key" not in said
    assert other_pool.get(f"{strange}/back/a/b", "encryptionroot") == f"{strange}/back"


# --- quotas and reservations ---------------------------------------------------------------------------------------


def test_quotas_that_came_along_do_not_stop_their_own_restore(
    pool: Pool, make_pool: Callable[..., Pool], sender: Sender
) -> None:
    """openzfs issues 4492 and 17450: the home held 20 MB, its chain 40; and it was "run the same again" for ever."""
    home = pool.create("home", "-o", "quota=30M", "-o", "refquota=30M", "-o", "reservation=1M")
    disk = pool.full("disk")
    pools.zfs("create", "-V", "64M", "-o", "volblocksize=16k", disk)  # thick
    for night in range(2):
        with pools.device(disk).open("r+b") as device:
            for piece in pools.noise(20 << 20, night):
                device.write(piece)
        (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(20 << 20, night)))
        sender.push(home, disk)
        (pool.path("home") / "noise").unlink()
        for name in sorted(pool.names("snapshot")):
            if name.startswith(f"{home}@"):
                pools.zfs("destroy", name)
        subprocess.run(["zpool", "sync", pool.name], check=True)
    other = make_pool(192 << 20)
    into = other.full("home")
    said = said_while(sender, home, "--into", into)
    # What it cannot have is named, with the way to have it later; all else is as it was.
    assert f"{into}: it cannot have the quota of its backup: " in said
    assert f"later: zfs inherit -S quota {into}" in said
    assert [other.get(into, name) for name in ("refquota", "reservation")] == [str(30 << 20), str(1 << 20)]
    pools.zfs("destroy", f"{into}@{oldest(other, into)}")
    subprocess.run(["zpool", "sync", other.name], check=True)
    pools.zfs("inherit", "-S", "quota", into)
    assert other.get(into, "quota") == str(30 << 20)
    # Who sets one has it. What came along holds nothing up, and nothing of ours stays.
    pools.zfs("set", "quota=1G", into)
    assert "quota" not in said_while(sender, home, "--into", into)
    assert other.get(into, "quota") == str(1 << 30)
    pools.zfs("destroy", "-r", into)
    said = said_while(sender, disk, "--into", other.full("disk"))
    assert f"{other.full('disk')}: it cannot have the refreservation of its backup: " in said
    assert "out of space" in said
    pools.zfs("destroy", "-r", other.full("disk"))
    assert "refreservation" not in said_while(sender, "--no-quotas", disk, "--into", other.full("disk"))
    assert other.get(other.full("disk"), "refreservation") in {"0", "none"}
    pools.zfs("destroy", "-r", other.full("disk"))
    # In a package they are obeyed below its top. It says what is in the way, and that works.
    top = pool.create("top")
    below = pool.create("top/below", "-o", "quota=30M")
    for night in range(2):
        (pool.path("top/below") / "noise").write_bytes(b"".join(pools.noise(12 << 20, night)))
        pool.snapshot(f"{top}@{night}", recursive=True)
    assert below in pool.names("filesystem")
    sender.push("-R", top)
    said_while(sender, top, "--into", other.full("top"))
    assert other.get(other.full("top/below"), "quota") == str(30 << 20)


def oldest(pool: Pool, full: str) -> str:
    names = pools.zfs("list", "-Hpd1", "-t", "snapshot", "-o", "name", "-s", "createtxg", full).decode().split()
    return names[0].partition("@")[2]


def test_a_chain_whose_snapshots_have_one_name_comes_back(pool: Pool, other_pool: Pool, sender: Sender) -> None:
    """A script pushes @daily each night. `zfs receive` refuses a snapshot whose name is there."""
    home = pool.create("home", "-o", "quota=100M")
    guids = []
    for night in ("one", "two", "three"):
        write(pool, "home", night)
        pool.snapshot(f"{home}@daily")
        (pushed,) = sender.push(f"{home}@daily")
        guids.append(int(pushed["guid"]))
        pools.zfs("destroy", f"{home}@daily")
    into = other_pool.full("home")
    restore(sender, f"guid:{guids[1]}", "--into", into)
    restore(sender, f"guid:{guids[2]}", "--into", into)
    assert other_pool.guid(f"{into}@daily") == guids[2]
    for guid in guids[:2]:
        assert other_pool.guid(f"{into}@daily.{guid:016x}") == guid
    other_pool.mount("home")
    assert (other_pool.path("home") / "file").read_text() == "three"
    # What a run that was killed has held back is taken back where quotas are not wanted after all.
    pools.zfs("set", "quota=4E", into)
    restore(sender, "--no-quotas", f"guid:{guids[2]}", "--into", into)
    assert other_pool.get(into, "quota") == "0"
