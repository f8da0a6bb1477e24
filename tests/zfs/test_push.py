"""`fullsend push DATASET` as cron runs it, against real ZFS."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests import programs
from tests.zfs import pools

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool


def write(pool: Pool, dataset: str, text: str) -> None:
    (pool.path(dataset) / "file").write_text(text)


def own(pool: Pool, kinds: str = "snapshot,bookmark") -> list[str]:
    """Names of ours in the pool, without the dataset's."""
    names = sorted(pool.names(kinds))
    return [name for name in names if "@fullsend-" in name or "#fullsend-" in name]


def holds(pool: Pool) -> list[str]:
    snapshots = sorted(pool.names("snapshot"))
    return pools.zfs("holds", "-H", *snapshots).decode().splitlines() if snapshots else []


def kinds(pushed: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["dataset"], each["kind"]) for each in pushed]


def failure(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """What a run that must fail says."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def received(pool: Pool, raw: bytes, name: str, *options: str) -> None:
    pool.receive(raw, "-u", *options, pool.full(name))


def test_a_dataset_night_after_night(pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home")
    pools.fill(pool.path("home"))
    (first,) = sender.push(home)
    assert (first["kind"], first["base_guid"], first["resume"]) == ("full", None, "none")
    assert set(first["flags"]) >= {"p"}
    # Nothing new: success, no stream, no snapshot, and the receiver knows.
    before = pool.names()
    assert sender.push(home) == []
    assert pool.names() == before
    assert home in (receiver.store / ".state" / "unchanged.zfshost.json").read_text()
    for night in range(4):
        pools.change(pool.path("home"), night)
        (pushed,) = sender.push(home)
        assert pushed["kind"] == "incremental"
    # Two snapshots and two bookmarks stay, nothing is held, and the chain continues from a bookmark alone.
    assert len(own(pool, "snapshot")) == 2
    assert len(own(pool, "bookmark")) == 2
    assert holds(pool) == []
    for snapshot in own(pool, "snapshot"):
        pools.zfs("destroy", snapshot)
    pools.change(pool.path("home"), 9)
    (pushed,) = sender.push(home)
    assert pushed["kind"] == "incremental"
    listed = sender.list()
    assert all(entry["restorable"] for entry in listed)
    assert len(listed) == 6
    manifest = json.loads((receiver.store / (listed[0]["file"] + ".json")).read_text())
    assert manifest["zfs_version"].startswith("zfs-")
    for number, entry in enumerate(listed):
        raw = programs.good(sender.fullsend("cat", entry["file"]))
        received(other_pool, raw, "restored", "-o", "canmount=noauto")
        # Three pushes within a second: the first one's snapshot is gone when the third takes one, by the same name.
        newest = other_pool.full(f"restored@{number}")
        pools.zfs("rename", other_pool.full(f"restored@{entry['snapshot']}"), newest)
    assert other_pool.guid(newest) == int(pushed["guid"])
    pools.zfs("mount", other_pool.full("restored"))
    assert pools.tree(other_pool.path("restored")) == pools.tree(pool.path("home"))


def test_a_tree_with_everything_in_it(pool: Pool, receiver: Receiver, sender: Sender, tmp_path: Any) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    encrypted = ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
    top = pool.create("top", "-o", "user:note=kept")
    pool.create("top/a")
    pool.create("top/a/b")
    pool.create("top/skipped")
    pool.create("top/vault", *encrypted)
    pools.zfs("create", "-V", "8M", "-o", "volblocksize=16k", pool.full("top/disk"))
    for name in ("top", "top/a", "top/a/b", "top/skipped", "top/vault"):
        write(pool, name, name)
    pushed = sender.push("-r", "--exclude", pool.full("top/skip*"), "--jobs", "2", top)
    assert sorted(kinds(pushed)) == [
        (pool.full(name), "full") for name in ("top", "top/a", "top/a/b", "top/disk", "top/vault")
    ]
    snapshots = {each["snapshot"] for each in pushed}
    assert len(snapshots) == 1
    flags = {each["dataset"]: each["flags"] for each in pushed}
    assert "w" in flags[pool.full("top/vault")]
    assert "w" not in flags[top]
    # One that has changed, one that is new, one that is gone, one that has another name.
    write(pool, "top/a", "changed")
    pool.create("top/new")
    pools.zfs("destroy", "-r", pool.full("top/disk"))
    said = failure(sender.fullsend("push", "-n", "-r", "--exclude", pool.full("top/skip*"), top), 1)
    assert f"{pool.full('top/disk')}: it is stored, and is not here: it was destroyed or renamed here" in said
    pools.retire(sender, pool.full("top/disk"))
    pools.zfs("rename", pool.full("top/a/b"), pool.full("top/renamed"))
    write(pool, "top/renamed", "still the same")
    pushed = sender.push("-r", "--exclude", pool.full("top/skip*"), top)
    assert sorted(kinds(pushed)) == [
        (top, "incremental"),  # the folders on which the others are mounted
        (pool.full("top/a"), "incremental"),
        (pool.full("top/new"), "full"),
        (pool.full("top/renamed"), "incremental"),
    ]
    assert holds(pool) == []
    # Encrypted, its key not loaded: sent all the same. Decrypted it is another chain, and wants the key.
    write(pool, "top/vault", "secret")
    pools.zfs("unmount", pool.full("top/vault"))
    pools.zfs("unload-key", pool.full("top/vault"))
    assert kinds(sender.push(pool.full("top/vault"))) == [(pool.full("top/vault"), "incremental")]
    said = failure(sender.fullsend("push", "--decrypt", pool.full("top/vault")), 1)
    assert "its key is not loaded" in said
    pools.zfs("load-key", pool.full("top/vault"))
    done = sender.fullsend("push", "--json", "--decrypt", pool.full("top/vault"))
    (plain,) = programs.rows(programs.good(done))
    assert (plain["kind"], "w" in plain["flags"], "p" in plain["flags"]) == ("full", False, False)
    assert "it is sent plain now" in done.stderr.decode()
    assert all(entry["restorable"] for entry in sender.list())


def test_history_that_changes(pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home")
    write(pool, "home", "one")
    pool.snapshot(f"{home}@mine")
    sender.push(f"{home}@mine")
    # A snapshot that is named twice is stored once.
    assert sender.push(f"{home}@mine") == []
    write(pool, "home", "two")
    sender.push(home)
    # Rolled back to before all that is stored but the first: an increment from there.
    pools.zfs("rollback", "-r", f"{home}@mine")
    write(pool, "home", "another two")
    (pushed,) = sender.push(home)
    assert (pushed["kind"], pushed["base_guid"]) == ("incremental", str(pool.guid(f"{home}@mine")))
    # Destroyed and made again: a new chain, and it says why.
    pools.zfs("destroy", "-r", home)
    pool.create("home")
    write(pool, "home", "new")
    done = sender.fullsend("push", "--json", home)
    (pushed,) = programs.rows(programs.good(done))
    assert pushed["kind"] == "full"
    assert "destroyed and created again" in done.stderr.decode()
    assert kinds(sender.push("--full", home)) == [(home, "full")]
    # A clone begins with a full; promoted, it continues from what it has taken over: snapshots, and bookmarks too, so
    # that what it was made of has no base left.
    pool.snapshot(f"{home}@origin")
    sender.push(f"{home}@origin")
    clone = pool.full("clone")
    pools.zfs("clone", f"{home}@origin", clone)
    write(pool, "clone", "of a clone")
    assert kinds(sender.push(clone)) == [(clone, "full")]
    pools.zfs("promote", clone)
    write(pool, "clone", "promoted")
    write(pool, "home", "no longer the origin")
    assert kinds(sender.push(clone, home)) == [(clone, "incremental"), (home, "full")]
    assert all(entry["restorable"] for entry in sender.list())


def test_a_copy_with_another_key(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender, tmp_path: pathlib.Path
) -> None:
    """Received unencrypted into an encrypted dataset: the GUIDs are the same, and no raw increment of the one can be
    received on the other.
    """
    keys = {"vault": tmp_path / "key", "copy": tmp_path / "other-key"}
    for name, key in keys.items():
        key.write_bytes(name[:1].encode() * 32)
    options = {
        name: ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
        for name, key in keys.items()
    }
    vault, copy = pool.create("vault", *options["vault"]), other_pool.full("copy")
    write(pool, "vault", "first")
    assert kinds(sender.push(vault)) == [(vault, "full")]
    (snapshot,) = own(pool, "snapshot")
    other_pool.receive(pool.send(snapshot), *options["copy"], copy)
    assert other_pool.guid(f"{copy}@{snapshot.partition('@')[2]}") == pool.guid(snapshot)
    write(other_pool, "copy", "copied")
    done = sender.fullsend("push", "--json", copy)
    assert kinds(programs.rows(programs.good(done))) == [(copy, "full")]
    assert f"{copy}: a full instead of an increment: " in done.stderr.decode()
    assert "is encrypted with other keys" in done.stderr.decode()
    for night in range(2):
        write(pool, "vault", f"vault {night}")
        write(other_pool, "copy", f"copy {night}")
        assert kinds(sender.push(vault, copy)) == [(vault, "incremental"), (copy, "incremental")]
    assert all(entry["restorable"] for entry in sender.list())
    for source, name in ((vault, "vault"), (copy, "copy")):
        back = other_pool.full(f"back-{name}")
        programs.good(sender.fullsend("restore", source, "--into", back))
        pools.zfs("load-key", "-L", f"file://{keys[name]}", back)
        other_pool.mount(back.partition("/")[2])
        assert (other_pool.path(back) / "file").read_text() == f"{name} 1"


def test_a_package(pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender) -> None:
    top = pool.create("top")
    pool.create("top/a")
    write(pool, "top/a", "a")
    pools.zfs("create", "-V", "8M", pool.full("top/disk"))
    (first,) = sender.push("-R", top)
    (second,) = sender.push("-R", top)
    assert (first["kind"], second["kind"], second["base_guid"]) == ("package", "package", None)
    assert holds(pool) == []
    (third,) = sender.push("-R", top)
    assert len(pool.names("snapshot")) == 6  # of three datasets, two each
    # It is nobody's base.
    assert kinds(sender.push(top)) == [(top, "full")]
    raw = programs.good(sender.fullsend("cat", next(e["file"] for e in sender.list() if e["guid"] == third["guid"])))
    received(other_pool, raw, "restored")
    assert other_pool.full("restored/disk") in other_pool.names("volume")


def test_what_it_says_without_doing_it(pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home")
    pools.fill(pool.path("home"))
    before = pool.names()
    lines = programs.good(sender.fullsend("push", "-n", home)).decode().splitlines()
    assert pool.names() == before
    assert [line.split()[1] for line in lines] == ["snapshot", "hold", "send", "bookmark", "release"]
    assert "# full, about" in lines[2]
    sender.push(home)
    pools.change(pool.path("home"))
    lines = programs.good(sender.fullsend("push", "-n", home)).decode().splitlines()
    assert " -i " in lines[2]
    assert "# incremental, about" in lines[2]
    assert programs.rows(programs.good(sender.fullsend("list", "--json")))[0]["kind"] == "full"
    assert "named twice" in failure(sender.fullsend("push", f"{home}@nothing", home), 2)
    assert "there is no such snapshot" in failure(sender.fullsend("push", f"{home}@nothing"), 1)
    said = failure(sender.fullsend("push", pool.full("nowhere"), home), 1)
    assert "does not exist" in said
    assert len(sender.list()) == 2


@pytest.mark.parametrize("how", ["killed", "destroyed", "revoked"])
def test_what_is_cut_leaves_nothing_false(how: str, pool: Pool, receiver: Receiver, sender: Sender) -> None:
    home = pool.create("home")
    noise = pool.path("home") / "noise"
    noise.write_bytes(b"".join(pools.noise(48 << 20)))
    running = sender.popen(
        "push", "--bwlimit", "1M", "-v", home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    # The partial is there once bytes flow.
    programs.wait_for(lambda: any((receiver.store / ".partial").glob("*.data")))
    if how == "killed":
        subprocess.run(["pkill", "-9", "-f", f"^zfs send .*{home}@"], check=True)
    elif how == "destroyed":
        # Held by us it can't be; without our hold `zfs send` itself keeps it as long as it runs, and not longer.
        (held,) = (line.split("\t")[:2] for line in holds(pool))
        assert pools.program("zfs", "destroy", held[0], check=False).returncode != 0
        pools.zfs("release", held[1], held[0])
        busy = pools.program("zfs", "destroy", held[0], check=False)
        assert b"dataset is busy" in busy.stderr
        subprocess.run(["pkill", "-9", "-f", f"^zfs send .*{home}@"], check=True)
        programs.wait_for(lambda: pools.program("zfs", "destroy", held[0], check=False).returncode == 0)
    else:
        programs.good(receiver.fullsendd("revoke", sender.name))
    _out, errors = running.communicate(timeout=programs.PATIENCE)
    said = errors.decode()
    assert running.returncode == (3 if how == "revoked" else 1), said
    assert "Traceback" not in said
    assert {"killed": "killed by SIGKILL", "destroyed": "SIGKILL", "revoked": "revoked"}[how] in said
    assert receiver.list() == []
    if how == "revoked":
        sender.fullsend("join", receiver.invite(sender.name, "--replace"))
    assert kinds(sender.push(home)) == [(home, "full")]
    assert holds(pool) == []


def test_two_receivers_and_two_runs_at_once(pool: Pool, receiver: Receiver, sender: Sender, tmp_path: Any) -> None:
    home = pool.create("home")
    write(pool, "home", "one")
    with programs.serving(tmp_path / "second") as second:
        programs.good(sender.fullsend("join", "--as", "second", second.invite("zfshost")))
        config = sender.folder / "sender.toml"
        first = "receiver"
        config.write_text(
            f'receiver = "{first}"\n\n{config.read_text()}\n[[push]]\ndatasets = ["{pool.name}/h*"]\n'
            f'\n[[push]]\ndatasets = ["{pool.name}/h*"]\nreceiver = "second"\n'
        )
        assert kinds(sender.push()) == [(home, "full")] * 2
        write(pool, "home", "two")
        assert kinds(sender.push("--receiver", "second", home)) == [(home, "incremental")]
        assert kinds(sender.push()) == [(home, "incremental")]
        names = own(pool, "snapshot")
        assert len({name.split("-")[1] for name in names}) == 2
        # The same job again while it runs: exit 4, at once. Another one continues.
        (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(16 << 20)))
        running = sender.popen("push", "--bwlimit", "100K", "--receiver", first, home)
        try:
            programs.wait_for(lambda: any((receiver.store / ".partial").glob("*.data")))
            said = failure(sender.fullsend("push", "--receiver", first, home), 4)
            assert "being pushed by another fullsend" in said
            assert kinds(sender.push("--receiver", "second", home)) == [(home, "incremental")]
        finally:
            running.terminate()
            assert running.wait(programs.PATIENCE) == 130
        assert kinds(sender.push("--receiver", first, home)) == [(home, "incremental")]
        assert holds(pool) == []


def test_the_receiver_s_disk_is_full(pool: Pool, sender: Sender, tmp_path: Any) -> None:
    home = pool.create("home")
    (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(32 << 20)))
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "small", str(folder)], check=True)
    filler = folder / "filler"
    try:
        with programs.serving(folder, **{"min-free": "1M"}) as receiver:
            programs.good(sender.fullsend("join", "--as", "small", receiver.invite("zfshost")))
            push = ("push", "--json", "--receiver", "small")
            # It says so before the first byte, by what `zfs send -nP` says.
            filler.write_bytes(bytes(60 << 20))
            assert "free" in failure(sender.fullsend(*push, home), 3)
            filler.unlink()
            # It fills up meanwhile.
            running = sender.popen(*push, "--bwlimit", "1M", home, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            programs.wait_for(lambda: any((receiver.store / ".partial").glob("*.data")))
            subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False, stderr=subprocess.DEVNULL)
            out, errors = running.communicate(timeout=programs.PATIENCE)
            said = errors.decode()
            assert (running.returncode, out) == (3, b""), said
            assert "space" in said or "full" in said
            assert receiver.list() == []
            filler.unlink()
            (pushed,) = programs.rows(programs.good(sender.fullsend(*push, home)))
            assert pushed["kind"] == "full"
            assert holds(pool) == []
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# --- a pool that is suspended -------------------------------------------------------------------------------------

#: Seconds after which a command waits for a pool that will not come back.
STUCK = 120


@dataclasses.dataclass
class External:
    """A pool on a disk that fails: its file lies in a smaller tmpfs. Once that is full, ZFS suspends the pool.

    No `zfs` is run on it meanwhile: that may wait in the kernel, where nothing can end it.
    """

    pool: Pool
    disk: pathlib.Path
    writer: subprocess.Popen[bytes] | None = None

    def health(self) -> str:
        return bounded("zpool", "list", "-H", "-o", "health", self.pool.name)

    def fail(self, dataset: str) -> None:
        """Write until the pool is suspended. From there on the writer waits in the kernel."""
        much = self.pool.path(dataset) / "much"
        self.writer = subprocess.Popen(
            ["dd", "if=/dev/urandom", f"of={much}", "bs=1M", "count=48", "conv=fsync"], stderr=subprocess.DEVNULL
        )
        programs.wait_for(lambda: self.health() == "SUSPENDED")

    def mend(self) -> None:
        """Make room. Afterwards all is written that waited for it."""
        bounded("mount", "-o", "remount,size=576M", str(self.disk))
        bounded("zpool", "clear", self.pool.name)
        if self.writer is not None:
            assert self.writer.wait(STUCK) == 0
            self.writer = None
        assert self.health() == "ONLINE"


def bounded(*command: str) -> str:
    """What a command says that must succeed. One that the kernel never lets go is left behind: to wait for its end, as
    `subprocess.run` does after a time-out, would hang.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        code = process.wait(STUCK)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.stdout is not None
    with process.stdout as output:
        said = output.read()
    assert code == 0, f"{command}: exit {code}: {said}"
    return said.strip()


@pytest.fixture
def external(pool: Pool, tmp_path: pathlib.Path) -> Iterator[External]:
    """Its name begins with that of `pool`, so that one pattern means both, and no other pool of this machine."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with contextlib.ExitStack() as after:
        bounded("mount", "-t", "tmpfs", "-o", "size=32M", "fullsend-test", str(disk))
        after.callback(bounded, "umount", str(disk))
        made = External(pools.make(f"{pool.name}ext", disk, 512 << 20), disk)
        after.callback(bounded, "zpool", "destroy", "-f", made.pool.name)
        after.callback(made.mend)
        yield made


# A time-out of the method "thread" ends the process at once, and nothing would be cleaned up.
@pytest.mark.timeout(600, method="signal")
def test_a_suspended_pool_fails_the_push_and_keeps_no_other_from_it(
    pool: Pool, external: External, sender: Sender
) -> None:
    home, ext = pool.create("home"), external.pool
    photos = ext.create("photos")
    config = sender.folder / "sender.toml"
    config.write_text(f'{config.read_text()}\n[[push]]\ndatasets = ["{pool.name}**"]\n')
    assert sorted(kinds(sender.push())) == [(name, "full") for name in (pool.name, home, ext.name, photos)]
    for command in ("status", "check"):
        programs.good(sender.fullsend(command))
    write(pool, "home", "while the other pool is suspended")
    external.fail("photos")
    suspended = "the pool is SUSPENDED, and cannot be used: see `zpool status -v"
    way_out = f"{suspended} {ext.name}`, then `zpool clear {ext.name}`"
    # `zfs list` leaves the pool out, and exits with 0.
    assert f"{ext.name}: {way_out}" in failure(sender.fullsend("push"), 1)
    assert [each["kind"] for each in sender.list(home)] == ["full", "incremental"]
    assert len(sender.list(photos)) == 1
    judged = sender.fullsend("status")
    first = judged.stdout.decode().splitlines()[0]
    assert judged.returncode == 2
    assert first.startswith("CRITICAL: 2 of 4 datasets: ")
    assert f"{photos}: {way_out}" in first
    states = {ext.name: "CRITICAL", photos: "CRITICAL", home: "OK", pool.name: "OK"}
    told = programs.rows(sender.fullsend("status", "--json").stdout)
    assert {row["dataset"]: row["state"] for row in told if row["dataset"]} == states
    checked = sender.fullsend("check")
    assert checked.returncode == 1
    assert [line for line in checked.stdout.decode().splitlines() if line.startswith("problem")] == [
        f"problem {ext.name}: {way_out}"
    ]
    # Where one that is suspended is named, `zfs list` fails as a whole.
    write(pool, "home", "named beside the other one")
    assert f"{ext.name}: {way_out}" in failure(sender.fullsend("push", photos, home), 1)
    assert [each["kind"] for each in sender.list(home)] == ["full", "incremental", "incremental"]
    assert external.health() == "SUSPENDED"
    external.mend()
    (ext.path("photos") / "much").unlink()
    write(ext, "photos", "mended")
    assert kinds(sender.push()) == [(photos, "incremental")]
    for command in ("status", "check"):
        programs.good(sender.fullsend(command))
