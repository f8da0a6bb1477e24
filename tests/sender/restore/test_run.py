"""A whole restore: a real receiver, and a `zfs` that is made up."""

from __future__ import annotations

import functools
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import programs, resumed, streams
from tests.fakezfs import FakeZfs

from fullsend_protocol.shared.errors import Unreachable
from fullsend_protocol.shared.units import format_time
from fullsend_sender.restore import run as restoring
from fullsend_sender.zfs.pools import while_usable

#: What holds quotas and reservations back until all is restored.
HELD = "-o quota=4E -o refquota=4E -o reservation=1 -o refreservation=1"


#: DRR_FLAG_CLONE of OpenZFS (include/sys/zfs_ioctl.h).
CLONE = 1


@dataclass
class Hosts:
    """A ZFS host whose datasets are stored, and another one, without any, that may read what is stored."""

    sender: programs.Sender
    receiver: programs.Receiver
    here: FakeZfs
    there: FakeZfs

    def use(self, fake: FakeZfs) -> None:
        config = self.sender.folder / "sender.toml"
        text = config.read_text().partition("[receivers")
        config.write_text(f"zfs-command = {json.dumps(fake.program)}\n\n{''.join(text[1:])}")

    def push(self, *arguments: str) -> list[dict[str, Any]]:
        self.use(self.here)
        return self.sender.push(*arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        self.use(self.there)
        self.there.forget_commands()
        return self.sender.fullsend("restore", *arguments)

    def restore(self, *arguments: str) -> list[dict[str, Any]]:
        return programs.rows(programs.good(self.run("--json", *arguments)))

    def refused(self, code: int, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stderr.decode()

    def received(self) -> list[str]:
        """What each `zfs receive` was called with."""
        return [line.removeprefix("receive ") for line in self.there.commands if line.startswith("receive")]

    def content(self, dataset: str) -> list[str]:
        """A hash for each stream that was received into a dataset."""
        content: list[str] = self.there.edit(lambda state: state["datasets"][dataset]["content"])
        return content

    def guids(self, dataset: str) -> list[str]:
        snapshots = self.there.edit(lambda state: state["datasets"][dataset]["snapshots"])
        return [each["guid"] for each in snapshots]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with programs.serving(programs.Receiver(tmp_path / "receiver", inside=True)) as receiver:
        sender = programs.Sender(tmp_path / "sender", inside=True)  # the only tests that go through all of it
        sender.join(receiver)
        hosts = Hosts(sender, receiver, FakeZfs.make(tmp_path / "here"), FakeZfs.make(tmp_path / "there"))
        hosts.there.create("pool")
        yield hosts


def nights(hosts: Hosts, name: str, count: int) -> list[dict[str, Any]]:
    pushed = []
    for _night in range(count):
        hosts.here.change(name)
        pushed += hosts.push(name)
    return pushed


@pytest.mark.slow
def test_a_chain_and_what_came_later(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    first, second, third = nights(hosts, "tank/home", 3)
    (said,) = hosts.restore(f"tank/home@{second['snapshot']}", "--into", "pool/home")
    assert (said["streams"], said["guid"], said["target"]) == (2, second["guid"], "pool/home")
    assert said["undo"].endswith("inherit -S canmount pool/home")
    assert hosts.guids("pool/home") == [first["guid"], second["guid"]]
    assert hosts.received() == [f"-u -s -o canmount=noauto {HELD} pool/home"] * 2
    # Of what is there already nothing comes again.
    (said,) = hosts.restore("tank/home", "--into", "pool/home")
    assert (said["streams"], said["raw_bytes"]) == (1, third["raw_bytes"])
    assert hosts.guids("pool/home")[-1] == third["guid"]
    (said,) = hosts.restore("tank/home", "--into", "pool/home")
    assert (said["streams"], hosts.received()) == (0, [])
    text = programs.good(hosts.run("tank/home", "--into", "pool/home")).decode()
    assert text.startswith(f"tank/home@{third['snapshot']} is in pool/home already\n")
    # Volumes have no mountpoint, and --mountable keeps a filesystem's.
    hosts.here.create("tank/disk", kind="volume")
    hosts.push("tank/disk")
    hosts.there.create("tank")
    hosts.restore("--mountable", "tank/home")
    assert hosts.received() == [f"-u -s {HELD} tank/home"] * 3


@pytest.mark.slow
def test_what_the_receiver_cannot_list_is_not_passed_over(hosts: Hosts) -> None:
    """With an unreadable manifest of the last night the night before passed for the newest, with exit 0."""
    for name in ("tank/a", "tank/home", "tank/lone"):
        hosts.here.create(name)
    first, last = nights(hosts, "tank/home", 2)
    (lone,) = nights(hosts, "tank/lone", 1)
    nights(hosts, "tank/a", 1)
    files = {each["guid"]: each["file"] for each in hosts.sender.list()}
    for each in (last, lone):
        (hosts.receiver.store / f"{files[each['guid']]}.json").write_text("{")
    for flags in ([], ["-n"]):
        said = hosts.refused(2, *flags, "tank/home", "--into", "pool/home")
        assert "tank/home: it is not certain which state is the newest, because 1 manifest or folder is" in said
        assert said.endswith(f", or name a state, such as tank/home@{first['snapshot']}\n")
    assert "tank/lone: it is not certain" in hosts.refused(2, "tank/lone", "--into", "pool/home")
    assert hosts.received() == []
    said = hosts.refused(2, "-r", "tank", "--into", "pool/tank")
    assert "fullsend: pool/tank/home: tank/home: it is not certain" in said
    assert "fullsend: pool/tank/lone: tank/lone: it is not certain" in said
    assert len(hosts.guids("pool/tank/a")) == 1
    hosts.restore(f"tank/home@{first['snapshot']}", "--into", "pool/home")
    assert hosts.guids("pool/home") == [first["guid"]]
    # The way out that the message names: what has no manifest gets one.
    for each in (last, lone):
        (hosts.receiver.store / f"{files[each['guid']]}.json").unlink()
    assert "it is not certain" in hosts.refused(2, "tank/home", "--into", "pool/home")
    programs.good(hosts.receiver.fullsendd("verify"))
    hosts.restore("tank/home", "--into", "pool/home")
    assert hosts.guids("pool/home") == [first["guid"], last["guid"]]


@pytest.mark.slow
def test_without_doing_it(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    nights(hosts, "tank/home", 2)
    before = hosts.there.edit(json.dumps)
    lines = programs.good(hosts.run("-n", "tank/home", "--into", "pool/home")).decode().splitlines()
    assert hosts.there.edit(json.dumps) == before
    files = [each["file"] for each in hosts.sender.list()]
    for line, file, kind in zip(lines[:2], files, ["full", "incremental"], strict=True):
        assert line.startswith(
            f"fullsend cat {file} | {hosts.there.program} receive -u -s -o canmount=noauto {HELD} pool/home  #"
        )
        assert kind in line
    assert lines[2:] == [
        f"{hosts.there.program} inherit -S {name} pool/home"
        for name in ("quota", "refquota", "reservation", "refreservation")
    ]
    said = programs.rows(programs.good(hosts.run("-n", "--json", "tank/home", "--into", "pool/home")))
    assert ["  # ".join(filter(None, [each["command"], each["about"]])) for each in said] == lines
    hosts.use(hosts.here)
    hosts.here.change("tank/home")
    said = programs.rows(programs.good(hosts.sender.fullsend("push", "-n", "--json", "tank/home")))
    verbs = " ".join(each["command"].split()[1] for each in said)
    assert verbs == "snapshot hold send bookmark release destroy destroy"
    assert [each["about"] for each in said if each["about"]] == ["incremental, about 4.0 KiB"]


@pytest.mark.slow
def test_what_exists_is_never_overwritten(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    _first, second, _third = nights(hosts, "tank/home", 3)
    hosts.there.create("pool/empty")
    hosts.there.create("pool/other")
    hosts.there.snapshot("pool/other@mine")
    for flags in ([], ["-F"]):
        assert "pool/empty exists, and has no snapshot" in hosts.refused(2, *flags, "tank/home", "--into", "pool/empty")
        said = hosts.refused(2, *flags, "tank/home", "--into", "pool/other")
        assert "its newest snapshot, @mine, cannot be continued from" in said
        assert "there is no pool/no" in hosts.refused(2, *flags, "tank/home", "--into", "pool/no/where")
        assert hosts.received() == []
    assert "is not the name of a dataset" in hosts.refused(2, "tank/home", "--into", "pool/home@now")
    # What somebody wrote to it since goes only by -F.
    hosts.restore(f"tank/home@{second['snapshot']}", "--into", "pool/home")
    hosts.there.change("pool/home")
    said = hosts.refused(1, "tank/home", "--into", "pool/home")
    assert "has been modified since most recent snapshot" in said
    assert "its snapshots are as they were: run the same command again to resume, or with -F" in said
    (done,) = hosts.restore("-F", "tank/home", "--into", "pool/home")
    assert (done["rolled_back"], done["written"]) == (True, False)
    assert f"rollback pool/home@{second['snapshot']}" in hosts.there.commands
    assert hosts.received() == [f"-u -s -o canmount=noauto {HELD} pool/home"]
    # Snapshots that others have taken meanwhile stay, even with -F.
    hosts.restore(f"tank/home@{second['snapshot']}", "--into", "pool/again")
    hosts.there.snapshot("pool/again@hourly-1")
    hosts.there.snapshot("pool/again@hourly-2")
    said = hosts.refused(2, "-F", "tank/home", "--into", "pool/again")
    assert (
        f"has other snapshots, up to @hourly-2, after @{second['snapshot']}: destroy those if they are not needed"
        in said
    )


@pytest.mark.slow
def test_a_target_that_was_written_to_since_the_wanted_snapshot(hosts: Hosts) -> None:
    """`-F` did nothing, and said that all is there already, with exit 0."""
    hosts.here.create("tank/home")
    first, last = nights(hosts, "tank/home", 2)
    target = ("tank/home", "--into", "pool/home")
    back = f"rollback pool/home@{last['snapshot']}"
    (done,) = hosts.restore(*target)
    assert (done["rolled_back"], done["written"]) == (False, False)
    (done,) = hosts.restore("-F", *target)
    assert (done["rolled_back"], back in hosts.there.commands) == (False, False)  # there is nothing to discard
    hosts.there.change("pool/home")
    (done,) = hosts.restore(*target)
    assert (done["streams"], done["rolled_back"], done["written"]) == (0, False, True)
    said = programs.good(hosts.run(*target)).decode()
    assert f"tank/home@{last['snapshot']} is in pool/home already, and pool/home was written to since (-F disc" in said
    assert back not in hosts.there.commands
    # An older snapshot that it has as well is there, and no reason to discard anything: that is for a person.
    older = (f"tank/home@{first['snapshot']}", "--into", "pool/home")
    way = f"`zfs rollback -r pool/home@{first['snapshot']}` goes back, and destroys what is newer"
    (done,) = hosts.restore(*older)
    assert (done["streams"], done["rolled_back"], done["later_snapshot"]) == (0, False, last["snapshot"])
    said = programs.good(hosts.run(*older)).decode()
    assert f"{older[0]} is in pool/home already, below @{last['snapshot']}: {way}\n" in said
    said = hosts.refused(2, "-F", *older)
    below = f"@{first['snapshot']} already, below @{last['snapshot']}"
    assert f"pool/home has {below}, and -F destroys no snapshot: {way}" in said
    assert not any(line.startswith("rollback") for line in hosts.there.commands)
    hosts.there.edit(lambda state: state["datasets"]["pool/home"]["snapshots"][-1].update(holds=["mine"]))
    said = programs.good(hosts.run(*older)).decode()
    assert f"{way}, once @{last['snapshot']} has no hold (`zfs holds`)\n" in said
    lines = programs.good(hosts.run("-n", "-F", *target)).decode().splitlines()
    assert lines[0] == f"{hosts.there.program} {back}  # -F"
    hosts.there.fail("rollback", "cannot rollback: dataset is busy")
    said = hosts.refused(1, "-F", *target)
    assert f"pool/home: it has @{last['snapshot']}, but cannot be rolled back to it: cannot rollback: " in said
    hosts.there.mend()
    said = programs.good(hosts.run("-F", *target)).decode()
    assert f"tank/home@{last['snapshot']} is in pool/home already; what was written there since is discarded" in said
    assert back in hosts.there.commands
    (done,) = hosts.restore("-F", *target)
    assert (done["rolled_back"], hosts.received()) == (False, [])
    # What was written a moment ago counts, too: `zfs list` does not tell it before the pool has written it out.
    hosts.there.change("pool/home", synced=False)
    (done,) = hosts.restore(*target)
    assert done["written"]
    hosts.there.rollback(f"pool/home@{last['snapshot']}")
    hosts.there.change("pool/home", synced=False)
    (done,) = hosts.restore("-F", *target)
    assert (done["rolled_back"], back in hosts.there.commands) == (True, True)


@pytest.mark.slow
def test_a_failure_in_the_middle_says_how_far_it_came(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    first, second, third = nights(hosts, "tank/home", 3)
    entry = next(each for each in hosts.sender.list() if each["guid"] == second["guid"])
    file = hosts.receiver.store / entry["file"]
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    said = hosts.refused(1, "tank/home", "--into", "pool/home")
    assert f"fullsend: pool/home: tank/home@{second['snapshot']} failed: " in said
    assert f"it has all up to @{first['snapshot']} (1 of 3 streams): run the same command again to resume" in said
    assert hosts.guids("pool/home") == [first["guid"]]
    # Known to be damaged it is named before anything is done.
    assert hosts.sender.fullsend("verify").returncode == 1
    said = hosts.refused(1, "tank/home", "--into", "pool/again")
    assert "cannot be restored" in said
    assert entry["file"] in said
    assert hosts.received() == []
    file.write_bytes(whole)
    programs.good(hosts.sender.fullsend("verify"))
    (done,) = hosts.restore("tank/home", "--into", "pool/home")
    assert done["streams"] == 2
    assert hosts.guids("pool/home") == [first["guid"], second["guid"], third["guid"]]


@pytest.mark.slow
def test_zfs_says_why_it_takes_no_more(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    nights(hosts, "tank/home", 1)
    hosts.there.fail("receive", "cannot receive new filesystem stream: out of space")
    said = hosts.refused(1, "tank/home", "--into", "pool/home")
    assert "out of space [zfs receive, exit 1]; nothing is restored yet" in said
    hosts.there.mend()
    hosts.there.fail("receive", "warning: cannot receive compression property on pool/home: permission denied")
    done = hosts.run("tank/home", "--into", "pool/home")
    assert programs.good(done)
    assert "pool/home: zfs receive: warning: cannot receive compression property" in done.stderr.decode()
    assert hosts.receiver.stop() == 0
    assert "cannot connect" in hosts.refused(75, "tank/home", "--into", "pool/again")
    assert hosts.received() == []


@pytest.mark.slow
def test_a_tree(hosts: Hosts) -> None:
    for name in ("tank", "tank/a", "tank/a/deep", "tank/b", "tank/not/stored/c"):
        hosts.here.create(name)
    hosts.here.edit(lambda state: state["datasets"].pop("tank/not/stored/c"))
    hosts.here.create("tank/x/y/z")
    pushed = hosts.push("-r", "tank")
    name = pushed[0]["snapshot"]
    for each in ("tank/a", "tank/b"):
        hosts.here.change(each)
    hosts.push("-r", "tank")
    hosts.here.rename("tank/b", "tank/renamed")
    hosts.here.change("tank/renamed")
    (last,) = hosts.push("-r", "tank")
    done = hosts.run("-r", "--json", "tank", "--into", "pool/back", "--exclude", "tank/a/*")
    said = {each["dataset"]: each["streams"] for each in programs.rows(programs.good(done))}
    assert said == {"tank": 1, "tank/a": 2, "tank/renamed": 3, "tank/x/y/z": 1}
    assert "tank/b continues as tank/renamed" in done.stderr.decode()
    assert hosts.there.properties("pool/back/x") == {"canmount": "off"}
    assert hosts.guids("pool/back/renamed")[-1] == last["guid"]
    # As of the first night: what was not there yet is not there.
    done = hosts.run("-r", "--json", f"tank@{name}", "--into", "pool/first")
    said = {each["dataset"]: each["streams"] for each in programs.rows(programs.good(done))}
    assert said == dict.fromkeys(["tank", "tank/a", "tank/a/deep", "tank/b", "tank/x/y/z"], 1)


@pytest.mark.slow
def test_a_tree_as_of_a_snapshot_says_what_it_lacks(hosts: Hosts) -> None:
    for name in ("tank", "tank/late"):
        hosts.here.create(name)
    for name in ("tank@mon", "tank/late@tue"):
        hosts.here.snapshot(name)
        hosts.push(name)
    note = "has nothing stored that was received before @mon, and is left out: it is younger, or what"
    done = hosts.run("-r", "--json", "tank@mon", "--into", "pool/first")
    top, late = programs.rows(programs.good(done))
    assert (top["dataset"], top["note"]) == ("tank", None)
    assert late == {"dataset": "tank/late", "target": None, "streams": 0, "note": late["note"]}
    assert late["note"].startswith(note)
    assert f"fullsend: tank/late {note}" in done.stderr.decode()


@pytest.mark.slow
def test_a_tree_with_a_gap_below_its_top(hosts: Hosts) -> None:
    """What is between is made when its turn comes, below what has been received by then."""
    for name in ("tank", "tank/x/y"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    done = hosts.run("-n", "-r", "tank", "--into", "pool/back")
    lines = programs.good(done).decode().splitlines()
    assert [next(each for each in line.split() if each.startswith("pool/")) for line in lines] == [
        *("pool/back", "pool/back/x", "pool/back/x/y"),
        *["pool/back/x/y"] * 4,  # their quotas, children first
        *["pool/back"] * 4,
    ]
    assert [said["target"] for said in hosts.restore("-r", "tank", "--into", "pool/back")] == [
        *("pool/back", "pool/back/x/y")
    ]
    # One that cannot be made is one failure, and no reason to leave the others out.
    hosts.there.fail("create -o canmount=off pool/again", "cannot create 'pool/again/x': permission denied")
    done = hosts.run("-r", "--json", "tank", "--into", "pool/again")
    assert done.returncode == 1
    assert [each["target"] for each in programs.rows(done.stdout)] == ["pool/again"]
    assert "fullsend: pool/again/x/y: not tried, because pool/again/x failed" in done.stderr.decode()


@pytest.mark.slow
def test_a_tree_onto_a_pool_of_its_name(hosts: Hosts) -> None:
    """A new host: the pool's root is there, and empty. It is left alone, and all else comes back."""
    for name in ("tank", "tank/a", "tank/a/deep", "tank/b"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.create("tank")
    done = hosts.run("-r", "--json", "tank")
    assert done.returncode == 2
    assert [each["target"] for each in programs.rows(done.stdout)] == ["tank/a", "tank/a/deep", "tank/b"]
    assert "fullsend: tank: tank exists, and has no snapshot" in done.stderr.decode()
    assert hosts.guids("tank") == []


@pytest.mark.slow
def test_the_way_to_undo_it_names_what_came_in_earlier_runs(hosts: Hosts) -> None:
    for name in ("tank", "tank/a", "tank/b"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.fail(f"receive -u -s -o canmount=noauto {HELD} pool/back/b", "cannot receive: it is broken")
    done = hosts.run("-r", "tank", "--into", "pool/back")
    assert done.stdout.decode().splitlines()[-1].endswith("inherit -S canmount pool/back pool/back/a")
    hosts.there.mend()
    text = programs.good(hosts.run("-r", "tank", "--into", "pool/back")).decode()
    assert text.splitlines()[-1].endswith("inherit -S canmount pool/back pool/back/a pool/back/b")
    # What may mount already needs no undoing.
    hosts.there.edit(lambda state: state["datasets"]["pool/back/a"]["properties"].pop("canmount"))
    text = programs.good(hosts.run("-r", "tank", "--into", "pool/back")).decode()
    assert text.splitlines()[-1].endswith("inherit -S canmount pool/back pool/back/b")


@pytest.mark.slow
def test_a_tree_in_which_one_fails(hosts: Hosts) -> None:
    for name in ("tank", "tank/a", "tank/a/deep", "tank/b"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.fail(f"receive -u -s -o canmount=noauto {HELD} pool/back/a", "cannot receive: it is broken")
    done = hosts.run("-r", "--json", "tank", "--into", "pool/back")
    assert done.returncode == 1
    assert [each["dataset"] for each in programs.rows(done.stdout)] == ["tank", "tank/b"]
    assert "pool/back/a/deep: not tried, because pool/back/a failed" in done.stderr.decode()


@pytest.mark.slow
def test_a_tree_in_which_one_cannot_be_restored(hosts: Hosts) -> None:
    for name in ("tank", "tank/a", "tank/a/deep", "tank/b"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    (entry,) = (each for each in hosts.sender.list() if each["dataset"] == "tank/a")
    file = hosts.receiver.store / entry["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    done = hosts.run("-r", "--json", "tank", "--into", "pool/back")
    assert done.returncode == 1
    assert [each["dataset"] for each in programs.rows(done.stdout)] == ["tank", "tank/b"]
    # Nothing stands where it belongs, so that the next try can put it there.
    file.write_bytes(whole)
    done = hosts.run("-r", "--json", "tank", "--into", "pool/back")
    said = {each["dataset"]: each["streams"] for each in programs.rows(programs.good(done))}
    assert said == {"tank": 0, "tank/a": 1, "tank/a/deep": 1, "tank/b": 0}


@pytest.mark.slow
@pytest.mark.parametrize("reads", [99, 100_000_000])
def test_what_is_not_received_is_not_restored(hosts: Hosts, tmp_path: Path, reads: int) -> None:
    hosts.here.create("tank/home")
    nights(hosts, "tank/home", 1)
    program = tmp_path / "some-zfs"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = receive ] || exec {hosts.there.program} "$@"\nhead -c {reads} >/dev/null\n'
    )
    program.chmod(0o755)
    hosts.use(hosts.there)
    config = hosts.sender.folder / "sender.toml"
    config.write_text(config.read_text().replace(hosts.there.program, str(program)))
    done = hosts.sender.fullsend("restore", "tank/home", "--into", "pool/home")
    assert (done.returncode, b"exited with 0, but has not received it" in done.stderr) == (1, True)


def interrupt(hosts: Hosts, tmp_path: Path, reads: int) -> None:
    """From now on `zfs receive` gets no more than so many bytes, as if the host had gone."""
    program = tmp_path / "some-zfs"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = receive ] || exec {hosts.there.program} "$@"\n'
        f'head -c {reads} | {hosts.there.program} "$@"\n'
    )
    program.chmod(0o755)
    config = hosts.sender.folder / "sender.toml"
    hosts.use(hosts.there)
    config.write_text(config.read_text().replace(hosts.there.program, str(program)))


FLAVOURS: list[tuple[dict[str, Any], list[str]]] = [({}, []), ({"encrypted": True}, ["-w"]), ({"kind": "volume"}, [])]


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "flags"), FLAVOURS, ids=["plain", "raw", "volume"])
def test_an_interrupted_receive_resumes_inside_the_stream(
    hosts: Hosts, tmp_path: Path, dataset: dict[str, Any], flags: list[str]
) -> None:
    hosts.here.create("tank/home", size=13_000_000, **dataset)
    for _night in range(2):
        hosts.here.change("tank/home")
        hosts.push(*flags, "tank/home")
    full, increment = hosts.sender.list()
    hosts.restore("tank/home", "--into", "pool/whole")
    content = hosts.content("pool/whole")
    # In the full: before anything was written, in its first chunk, in a later one, and behind the last record.
    for number, reads in enumerate((2_000, 900_000, 7_000_000, full["raw_bytes"] - 1)):
        into = f"pool/back-{number}"
        interrupt(hosts, tmp_path, reads)
        done = hosts.sender.fullsend("restore", "tank/home", "--into", into)
        assert done.returncode == 1, done.stderr
        assert b"run the same command again to resume" in done.stderr
        (said,) = hosts.restore("tank/home", "--into", into)
        assert hosts.received() == [hosts.received()[1]] * 2  # with the same options
        # What the target has does not come again, but for less than two chunks.
        assert said["resumed_at"] + said["raw_bytes"] == full["raw_bytes"] + increment["raw_bytes"]
        assert said["resumed_at"] > reads - 5_000_000
        assert hosts.content(into) == content
        assert hosts.guids(into) == [full["guid"], increment["guid"]]
    # Twice, and in the increment.
    interrupt(hosts, tmp_path, 9_000_000)
    for _time in range(2):
        assert hosts.sender.fullsend("restore", f"guid:{full['guid']}", "--into", "pool/twice").returncode == 1
        interrupt(hosts, tmp_path, 3_000_000)
    hosts.restore(f"guid:{full['guid']}", "--into", "pool/twice")
    interrupt(hosts, tmp_path, 6_000_000)
    assert hosts.sender.fullsend("restore", "tank/home", "--into", "pool/twice").returncode == 1
    (said,) = hosts.restore("tank/home", "--into", "pool/twice")
    assert said["streams"] == 1
    assert said["resumed_at"]
    assert hosts.content("pool/twice") == content


@pytest.mark.slow
def test_a_push_that_meets_an_interrupted_restore_does_not_make_it_a_question(hosts: Hosts, tmp_path: Path) -> None:
    """The push reported the half-restored dataset as unchanged, so the same restore was refused from then on."""
    hosts.here.create("tank/home", size=2_000_000)
    first, second, third = nights(hosts, "tank/home", 3)
    hosts.there.create("tank")
    hosts.restore(f"tank/home@{first['snapshot']}")
    interrupt(hosts, tmp_path, 1_000_000)
    done = hosts.sender.fullsend("restore", "tank/home", "--mountable")
    assert done.returncode == 1
    again = f"fullsend restore guid:{third['guid']} --into tank/home --mountable"
    assert f"if that asks which state is the newest: `{again}`\n" in done.stderr.decode()
    for flags in ([], ["-n"]):
        done = hosts.sender.fullsend("push", *flags, "tank/home")
        assert done.returncode == 1
        assert b"it has a part of a stream, as an interrupted `fullsend restore` leaves it" in done.stderr
    assert hosts.restore("tank/home", "--mountable")[0]["streams"] == 2
    assert hosts.guids("tank/home") == [first["guid"], second["guid"], third["guid"]]
    # Between two streams nothing tells that from a rollback: the command that was printed works all the same.
    hosts.there.rollback(f"tank/home@{first['snapshot']}")
    assert hosts.sender.push("tank/home") == []
    noted = hosts.receiver.store / ".state" / "unchanged.zfshost.json"
    said = json.loads(noted.read_text())
    said["tank/home"]["at"] = format_time(time.time() + 3600)
    noted.write_text(json.dumps(said))
    assert "it is not certain which state is the newest" in hosts.refused(2, "tank/home")
    assert hosts.restore(*again.split()[2:])[0]["streams"] == 2


@pytest.mark.slow
def test_a_part_of_something_else_is_left_alone(hosts: Hosts, tmp_path: Path) -> None:
    for name in ("tank/home", "tank/other"):
        hosts.here.create(name, size=3_000_000)
        hosts.push(name)
    interrupt(hosts, tmp_path, 1_000_000)
    assert hosts.sender.fullsend("restore", "tank/home", "--into", "pool/home").returncode == 1
    said = hosts.refused(2, "tank/other", "--into", "pool/home")
    assert "pool/home has a part of tank/home@" in said
    assert "`zfs receive -A pool/home` discards that part" in said
    # What would be run is said in words that can be typed.
    (row,) = programs.rows(programs.good(hosts.run("-n", "--json", "tank/home", "--into", "pool/home")))
    (entry,) = (each for each in hosts.sender.list() if each["dataset"] == "tank/home")
    assert row["command"] == f"fullsend restore guid:{entry['guid']} --into pool/home"
    assert row["about"].startswith("resumes inside ")
    # A token of tomorrow, and a stream that is damaged.
    kept = hosts.there.edit(lambda state: dict(state["datasets"]["pool/home"]["kept"]))
    hosts.there.edit(lambda state: state["datasets"]["pool/home"]["kept"].update(token="1-0-00"))
    assert "is not of the form" in hosts.refused(2, "tank/home", "--into", "pool/home")
    hosts.there.edit(lambda state: state["datasets"]["pool/home"].update(kept=kept))
    file = hosts.receiver.store / entry["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[:4000] + b"?" + whole[4001:])
    assert "what the receiver sent is damaged" in hosts.refused(1, "tank/home", "--into", "pool/home")
    file.write_bytes(whole)
    hosts.restore("tank/home", "--into", "pool/home")
    assert hosts.guids("pool/home") == [entry["guid"]]


@pytest.mark.slow
def test_a_snapshot_that_was_taken_beside_a_part_is_not_destroyed(hosts: Hosts, tmp_path: Path) -> None:
    """`zfs receive -F` would do that at its end; without -F it would refuse what it has taken by then."""
    hosts.here.create("tank/home", size=3_000_000)
    first, second = nights(hosts, "tank/home", 2)
    hosts.restore(f"guid:{first['guid']}", "--into", "pool/home")
    interrupt(hosts, tmp_path, 1_000_000)
    assert hosts.sender.fullsend("restore", "tank/home", "--into", "pool/home").returncode == 1
    hosts.there.snapshot("pool/home@auto")
    for flags in ([], ["-F"]):
        said = hosts.refused(2, *flags, "tank/home", "--into", "pool/home")
        assert f"has a part of tank/home@{second['snapshot']}, and @auto, which does not belong before that" in said
        assert hosts.received() == []
    # What was only written goes by -F, and the part stays.
    hosts.there.edit(lambda state: state["datasets"]["pool/home"]["snapshots"].pop())
    hosts.there.change("pool/home")
    assert "has been modified" in hosts.refused(1, "tank/home", "--into", "pool/home")
    (said_again,) = hosts.restore("-F", "tank/home", "--into", "pool/home")
    assert f"rollback pool/home@{first['snapshot']}" in hosts.there.commands
    assert said_again["resumed_at"] > 0
    assert hosts.guids("pool/home") == [first["guid"], second["guid"]]


@pytest.mark.slow
def test_snapshots_that_always_have_the_same_name(hosts: Hosts) -> None:
    """Each push was stored and called restorable; and at the second stream `zfs receive` met the first one's name."""
    hosts.here.create("tank/home")
    pushed = []
    for night in range(4):
        hosts.here.change("tank/home")
        if night == 2:  # or the one before is renamed
            hosts.here.edit(lambda state: state["datasets"]["tank/home"]["snapshots"][-1].update(name="yesterday"))
        elif night:
            hosts.here.edit(lambda state: state["datasets"]["tank/home"]["snapshots"].pop())
        hosts.here.snapshot("tank/home@daily")
        pushed += hosts.push("tank/home@daily")
    assert [each["kind"] for each in pushed] == ["full", *["incremental"] * 3]
    last = f"guid:{pushed[-1]['guid']}"
    (line,) = [
        line
        for line in programs.good(hosts.run("-n", f"guid:{pushed[1]['guid']}", "--into", "pool/n"))
        .decode()
        .splitlines()
        if " rename " in line
    ]
    assert line.endswith(
        f"rename pool/n@daily pool/n@daily.{int(pushed[0]['guid']):016x}  # the next has the same name"
    )
    hosts.restore(f"guid:{pushed[1]['guid']}", "--into", "pool/home")
    done = hosts.run(last, "--into", "pool/home")
    programs.good(done)
    assert "pool/home: each of 2 snapshots had the name of a later one of its chain (@daily)" in done.stderr.decode()
    assert hosts.guids("pool/home") == [each["guid"] for each in pushed]
    names = [f"daily.{int(each['guid']):016x}" for each in pushed[:-1]]
    assert hosts.there.names("snapshots", "pool/home") == [*names, "daily"]
    assert hosts.restore(last, "--into", "pool/home")[0]["streams"] == 0


@pytest.mark.slow
def test_what_is_not_there(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    (first,) = hosts.push("tank/home")
    assert "no such stream is stored" in hosts.refused(1, "tank/nothing", "--into", "pool/home")
    assert "no such stream is stored" in hosts.refused(1, "tank/home@nothing", "--into", "pool/home")
    assert "nothing of it, or below it, is stored" in hosts.refused(1, "-r", "tank/nothing", "--into", "pool/home")
    (said,) = hosts.restore(f"guid:{first['guid']}", "--into", "pool/by-guid")
    assert said["target"] == "pool/by-guid"
    assert "cannot be created, because there is no tank" in hosts.refused(2, "tank/home")


@pytest.mark.slow
def test_a_package(hosts: Hosts) -> None:
    hosts.here.create("tank/top")
    hosts.here.create("tank/top/below")
    (pushed,) = hosts.push("-R", "tank/top")
    (said,) = hosts.restore("tank/top", "--into", "pool/top")
    assert (said["guid"], said["undo"].split()[1:]) == (pushed["guid"], ["inherit", "-r", "-S", "canmount", "pool/top"])
    # Nothing of it may mount before all of it is kept from that.
    assert hosts.received() == [f"-u -o mountpoint=none {HELD} pool/top"]
    assert hosts.there.properties("pool/top") == {"canmount": "noauto"}
    # It may have been interrupted there, below its top: nobody shall hear that it is there.
    assert "a package is only restored as a whole" in hosts.refused(2, "tank/top", "--into", "pool/top")
    hosts.there.fail("receive", "cannot receive: it is broken")
    text = hosts.refused(1, "tank/top", "--into", "pool/again")
    assert "a part of it may be there: destroy pool/again" in text


@pytest.mark.slow
def test_what_a_package_does_not_bring_is_restored_too(hosts: Hosts) -> None:
    """A dataset that was destroyed before the package was pushed was left out, since the package "has" it: exit 0."""
    for name in ("tank/top", "tank/top/below", "tank/top/below/old"):
        hosts.here.create(name)
    (old,) = hosts.push("tank/top/below/old")
    hosts.push("tank/top/below")
    hosts.here.destroy("tank/top/below/old")
    hosts.push("-R", "tank/top")
    done = hosts.run("-r", "--json", "tank/top", "--into", "pool/top")
    # The made-up `zfs receive` makes the top of a package only.
    assert (done.returncode, [row["dataset"] for row in programs.rows(done.stdout)]) == (1, ["tank/top"])
    said = done.stderr.decode()
    assert "tank/top/below comes as it was in the package" in said
    assert "cannot open 'pool/top/below/old': dataset does not exist" in said
    assert hosts.received()[1].endswith("pool/top/below/old")
    hosts.there.create("pool/top/below")
    (row,) = programs.rows(hosts.run("-r", "--json", "tank/top", "--into", "pool/top").stdout)
    assert (row["dataset"], row["guid"]) == ("tank/top/below/old", old["guid"])


@pytest.mark.slow
def test_show_and_the_lines_without_us(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    _first, second = nights(hosts, "tank/home", 2)
    name = f"tank/home@{second['snapshot']}"
    shown = json.loads(programs.good(hosts.sender.fullsend("show", "--json", name)))
    assert (shown["guid"], shown["kind"]) == (second["guid"], "incremental")
    text = programs.good(hosts.sender.fullsend("show", name)).decode()
    assert f"snapshot           {second['snapshot']}\n" in text
    ours = programs.good(hosts.sender.fullsend("show", "--commands", name)).decode()
    assert ours == programs.good(hosts.receiver.fullsendd("show", "--commands", f"zfshost/{name}")).decode()
    assert ours.count("zfs receive") == 2
    full = next(each for each in hosts.sender.list() if each["kind"] == "full")
    (hosts.receiver.store / full["file"]).unlink()
    done = hosts.sender.fullsend("show", "--commands", name)
    assert (done.returncode, b"cannot be restored" in done.stderr) == (1, True)


# --- clones --------------------------------------------------------------------------------------------------------


def made(name: str, guid: int, base: int = 0, *, flags: int = 0, props: bool = False) -> bytes:
    """A stream of one object, with true sums. `flags`: 1 is a clone's increment on its origin."""
    found = resumed.stream_of(
        streams.begin(name, guid, base, flags=flags),
        [streams.object_(1, b"bonus"), streams.write(1, 0, name.encode().ljust(512)), streams.end(guid)],
    )
    return streams.package(found, name=name, nvlist={"tosnap": name.partition("@")[2]}) if props else found


@pytest.mark.slow
@pytest.mark.parametrize("props", [False, True], ids=["plain", "props"])
def test_a_clones_increment_comes_back_after_its_origin(hosts: Hosts, props: bool) -> None:
    """`zfs send -i tank/a@one tank/clone@two | fullsend push --stdin` was called restorable, and `zfs receive` took it
    into no dataset that there is.
    """
    clone = made("tank/clone@two", 2, 1, flags=CLONE, props=props)
    hosts.sender.push("--stdin", "--allow-orphan", stdin=clone)
    assert [each["restorable"] for each in hosts.sender.list()] == [False]
    assert "guid:1, the base of tank/clone@two, is not stored" in hosts.refused(1, "tank/clone", "--into", "pool/back")
    hosts.sender.push("--stdin", stdin=made("tank/a@one", 1))
    hosts.sender.push("--stdin", stdin=made("tank/clone@three", 3, 2))
    assert [each["restorable"] for each in hosts.sender.list()] == [True] * 3
    _full, increment, after = (
        programs.good(hosts.run("-n", "tank/clone", "--into", "pool/back")).decode().splitlines()[:3]
    )
    assert "it is a clone's: `fullsend show --commands tank/clone@three` says how" in increment
    assert "clone's" not in after
    (said,) = hosts.restore("tank/clone", "--into", "pool/back")
    assert said["streams"] == 3
    assert hosts.guids("pool/back") == ["1", "2", "3"]
    # What is stored is the clone's stream, byte for byte.
    assert programs.good(hosts.sender.fullsend("cat", "tank/clone@two")) == clone


# --- quotas and reservations -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quotas_come_when_all_is_there_and_not_before(hosts: Hosts) -> None:
    """openzfs issue 4492. What broke off is settled by the next run; what somebody has set stays."""
    for name in ("tank", "tank/a"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.fail("pool/back/a", "cannot receive: out of space")
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    assert "in the way may be" not in said  # nothing is set
    # What nothing came for need not wait.
    known = {"quota": str(4 << 60), "refquota": str(4 << 60), "reservation": "1", "refreservation": "1"}
    assert not known.keys() & hosts.there.properties("pool/back").keys()
    hosts.there.edit(lambda state: state["datasets"].pop("pool/back"))
    hosts.there.brings(quota=str(1 << 30), reservation="none")
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    line = f"{hosts.there.program} inherit -S quota pool/back"
    assert (f"pool/back: quota not set, because pool/back/a is not restored; to set it all the same: {line}\n") in said
    assert known.keys() & hosts.there.properties("pool/back").keys() == {"quota"}
    # A quota that somebody has set above is named.
    hosts.there.edit(lambda state: state["datasets"]["pool"]["properties"].update(quota=str(5 << 20)))
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    assert "in the way may be quota=5.0 MiB of pool)" in said
    hosts.there.mend()
    hosts.restore("-r", "tank", "--into", "pool/back")
    for name in ("pool/back", "pool/back/a"):
        assert not known.keys() & hosts.there.properties(name).keys()
    assert [line for line in hosts.there.commands if "inherit" in line] == [
        *(f"inherit -S {name} pool/back/a" for name in known),
        "inherit -S quota pool/back",
    ]
    # Nothing is held back any more, so nothing is to be done.
    hosts.restore("-r", "tank", "--into", "pool/back")
    assert not [line for line in hosts.there.commands if "inherit" in line]
    hosts.there.edit(lambda state: state["datasets"]["pool/back/a"]["properties"].update(quota=str(1 << 30)))
    hosts.here.change("tank/a")
    hosts.push("-r", "tank")
    hosts.restore("-r", "tank", "--into", "pool/back")
    assert hosts.received() == [
        "-u -s -o canmount=noauto -o refquota=4E -o reservation=1 -o refreservation=1 pool/back/a"
    ]
    assert hosts.there.properties("pool/back/a")["quota"] == str(1 << 30)


@pytest.mark.slow
def test_quotas_come_to_all_of_a_tree_whose_top_is_not_stored(hosts: Hosts) -> None:
    """All but what was below the shortest name kept 4E, with exit 0."""
    for name in ("tank/a", "tank/b", "tank/b/deep"):
        hosts.here.create(name)
        hosts.push(name)
    lines = programs.good(hosts.run("-n", "-r", "tank", "--into", "pool")).decode().splitlines()
    hosts.restore("-r", "tank", "--into", "pool")
    done = [line for line in hosts.there.commands if line.startswith("inherit")]
    assert done == [
        f"inherit -S {name} pool/{target}"
        for target in ("b/deep", "b", "a")
        for name in ("quota", "refquota", "reservation", "refreservation")
    ]
    assert [line.partition(" ")[2] for line in lines if "inherit" in line] == done


@pytest.mark.slow
def test_a_receiver_that_goes_away_leaves_what_is_above_held_back(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quota of what was there already came into force, and was in the way of the next run."""
    for name in ("tank", "tank/a", "tank/b"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.brings(quota=str(1 << 30))
    real = restoring._receive

    async def broken(job: Any, item: Any, *arguments: Any) -> None:
        if item.target == "pool/back/a":
            raise Unreachable("it is gone")
        await real(job, item, *arguments)

    monkeypatch.setattr(restoring, "_receive", broken)
    said = hosts.refused(75, "-r", "tank", "--into", "pool/back")
    assert "pool/back/b: not tried, because the receiver is away" in said
    assert hosts.there.properties("pool/back")["quota"] == str(4 << 60)
    monkeypatch.undo()
    hosts.restore("-r", "tank", "--into", "pool/back")
    assert hosts.there.properties("pool/back") == {"canmount": "noauto"}


@pytest.mark.slow
def test_what_stays_held_back_is_said(hosts: Hosts) -> None:
    names = "quota, refquota, reservation, refreservation"
    for name in ("tank", "tank/a", "tank/b"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.brings(quota="9", refquota="9", reservation="9", refreservation="9")
    # One that fails may need the room that the quota of what it is in does not give: that stays, and is said.
    hosts.there.fail("pool/back/b", "cannot receive: it is broken")
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    assert f"pool/back: {names} not set, because pool/back/b is not restored; to set it all the same: " in said
    assert f"{hosts.there.program} inherit -S quota pool/back; " in said
    assert "inherit -S quota pool/back" not in programs.good(hosts.run("-n", "tank/b", "--into", "pool/other")).decode()
    # Another kind of run does not end what that one has begun, and says so.
    hosts.there.mend()
    done = hosts.run("tank/b", "--into", "pool/back/b")
    programs.good(done)
    assert f"pool/back: {names} not set, because an earlier restore" in done.stderr.decode()
    assert "pool/back/b: its" not in done.stderr.decode()
    done = hosts.run("-r", "tank", "--into", "pool/back")
    programs.good(done)
    assert "not set" not in done.stderr.decode()
    assert hosts.there.properties("pool/back") == {"canmount": "noauto"}


@pytest.mark.slow
def test_what_would_be_done_is_what_is_done_also_with_options(hosts: Hosts, tmp_path: Path) -> None:
    """-n said that quotas would come where --no-quotas leaves them out; and lost the options of what is resumed."""
    hosts.here.create("tank/home", size=3_000_000)
    (pushed,) = hosts.push("tank/home")
    interrupt(hosts, tmp_path, 1_000_000)
    assert hosts.sender.fullsend("restore", "tank/home", "--into", "pool/home").returncode == 1
    options = ["--mountable", "--no-quotas", "--unencrypted"]
    config = hosts.sender.folder / "sender.toml"
    text = config.read_text()
    config.write_text(text + text[text.index("[receivers.") :].replace("[receivers.", "[receivers.other-", 1))
    name = text.partition("[receivers.")[2].partition("]")[0].strip('"')
    which = ["--receiver", name]
    (line,) = programs.good(hosts.run("-n", *options, *which, "tank/home", "--into", "pool/home")).decode().splitlines()
    assert line.startswith(
        f"fullsend restore guid:{pushed['guid']} --into pool/home {' '.join(options)} --receiver {name}  #"
    )
    config.write_text(text)
    hosts.restore("--mountable", "tank/home", "--into", "pool/home")
    hosts.here.change("tank/home")
    hosts.push("tank/home")
    hosts.there.fail("inherit", "it is broken")
    programs.good(hosts.run("tank/home", "--into", "pool/home"))
    hosts.there.mend()
    hosts.here.change("tank/home")
    hosts.push("tank/home")
    lines = programs.good(hosts.run("-n", "--no-quotas", "tank/home", "--into", "pool/home")).decode().splitlines()
    programs.good(hosts.run("--no-quotas", "tank/home", "--into", "pool/home"))
    done = [line for line in hosts.there.commands if line.startswith("set ")]
    assert done == [f"set {name}=none pool/home" for name in ("quota", "refquota", "reservation", "refreservation")]
    assert [line.partition(" ")[2] for line in lines[1:]] == done


def test_an_empty_name_is_none(hosts: Hosts) -> None:
    """`--into "$UNSET"` meant the dataset's own name, and `-r "tank@$UNSET"` the newest."""
    hosts.here.create("tank/home")
    hosts.push("tank/home")
    hosts.there.create("tank")
    assert "'' is not the name of a dataset" in hosts.refused(2, "tank/home", "--into", "")
    assert "'tank@' is not DATASET or DATASET@SNAPSHOT" in hosts.refused(2, "-r", "tank@", "--into", "pool/back")
    assert hosts.received() == []


@pytest.mark.slow
def test_a_quota_that_cannot_be_is_named_with_the_way_to_have_it_later(hosts: Hosts) -> None:
    hosts.here.create("tank/a")
    hosts.push("tank/a")
    hosts.there.fail("inherit -S quota", "cannot inherit quota for 'pool/a': size is less than current used")
    done = hosts.run("tank/a", "--into", "pool/a")
    programs.good(done)
    assert "pool/a: it cannot have the quota of its backup: cannot inherit quota" in done.stderr.decode()
    assert f"later: {hosts.there.program} inherit -S quota pool/a\n" in done.stderr.decode()
    assert hosts.there.properties("pool/a")["quota"] == str(4 << 60)
    # Without them nothing is set, nor held back.
    hosts.there.mend()
    hosts.restore("--no-quotas", "tank/a", "--into", "pool/a")  # what was held back is let go of
    # ZFS has no `inherit` without -S for them, and says so.
    assert [line for line in hosts.there.commands if "quota" in line and "get" not in line] == ["set quota=none pool/a"]
    assert hosts.there.properties("pool/a")["quota"] == "0"
    hosts.restore("--no-quotas", "tank/a", "--into", "pool/b")
    without = "-x quota -x refquota -x reservation -x refreservation"
    assert hosts.received() == [f"-u -s -o canmount=noauto {without} pool/b"]
    assert not [line for line in hosts.there.commands if "inherit" in line]


@pytest.mark.slow
def test_what_zfs_says_of_each_stream_of_a_chain_is_said_once(hosts: Hosts) -> None:
    hosts.here.create("tank/a")
    nights(hosts, "tank/a", 3)
    hosts.there.fail("receive", "warning: cannot receive quota property on pool/a: permission denied")
    done = hosts.run("tank/a", "--into", "pool/a")
    programs.good(done)
    assert done.stderr.decode().count("cannot receive quota property") == 1
    assert done.stderr.decode().startswith("fullsend: pool/a: zfs receive: warning: cannot receive quota")


@pytest.mark.slow
def test_a_package_whose_own_quota_stops_it_says_what_helps(hosts: Hosts) -> None:
    for name in ("tank/top", "tank/top/below"):
        hosts.here.create(name)
    hosts.push("-R", "tank/top")
    hosts.there.fail("receive -u", "cannot receive incremental stream: quota exceeded")
    said = hosts.refused(1, "tank/top", "--into", "pool/top")
    assert "(its own quotas may be in the way: --no-quotas leaves them out)" in said
    assert "--no-quotas" not in hosts.refused(1, "--no-quotas", "tank/top", "--into", "pool/top")


# --- encryption --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_plain_comes_encrypted_into_an_encrypted_place(hosts: Hosts) -> None:
    for name in ("tank", "tank/a"):
        hosts.here.create(name)
    hosts.push("-r", "tank")
    hosts.there.create("pool/vault", encrypted=True)
    hosts.restore("-r", "tank", "--into", "pool/vault/back")
    assert hosts.received() == [
        f"-u -s -o canmount=noauto {HELD} -x encryption pool/vault/{name}" for name in ("back", "back/a")
    ]
    done = hosts.run("--unencrypted", "tank", "--into", "pool/vault/clear")
    programs.good(done)
    assert "pool/vault/clear: it will be unencrypted, below pool/vault, which is encrypted" in done.stderr.decode()
    assert hosts.received() == [f"-u -s -o canmount=noauto {HELD} -o encryption=off pool/vault/clear"]
    hosts.push("-e", "--full", "tank")
    assert "has embedded blocks" in hosts.refused(2, "tank", "--into", "pool/vault/other")
    assert hosts.received() == []


# --- a clock that is wrong ---------------------------------------------------------------------------------------

#: 2021-01-01T02:00:00Z
BEHIND = 1_609_466_400


@pytest.mark.slow
def test_a_host_whose_clock_was_behind_gets_its_newest_state_back(hosts: Hosts) -> None:
    """sanoid issue 815: it woke up in 2021 for two nights, and the first of three versions came back, with exit 0."""
    for name in ("tank/a", "tank/quiet"):
        hosts.here.create(name)
    first = hosts.push("-r", "tank/a") + hosts.push("tank/quiet")
    for night in range(2):
        hosts.here.clock(BEHIND + night * 86400)
        hosts.here.change("tank/a")
        first += hosts.push("tank/a", "tank/quiet")
    hosts.here.clock(None)
    versions = [each for each in first if each["dataset"] == "tank/a"]
    assert [each["kind"] for each in versions] == ["full", "incremental", "incremental"]
    listed = [each for each in hosts.sender.list() if each["dataset"] == "tank/a"]
    assert [each["guid"] for each in listed] == [each["guid"] for each in versions]
    assert [each["sequence"] for each in listed] == sorted(each["sequence"] for each in listed)
    assert listed[1]["created"] < listed[0]["created"] < listed[1]["received"]

    (restored,) = hosts.restore("tank/a", "--into", "pool/back")
    assert (restored["guid"], restored["streams"]) == (versions[-1]["guid"], 3)
    # As of the second night: what had nothing new then is there as it was.
    rows = hosts.restore("-r", "--into", "pool/tree", f"tank@{versions[1]['snapshot']}")
    assert {row["dataset"]: row["guid"] for row in rows} == {
        "tank/a": versions[1]["guid"],
        "tank/quiet": next(each["guid"] for each in first if each["dataset"] == "tank/quiet"),
    }
    # Its age is that of its reception, by the receiver's clock; and that the clocks disagree is said.
    hosts.use(hosts.here)  # on the other host it is missing: what was restored there is a copy
    done = hosts.sender.fullsend("status", "--max-age", "26h", "tank/a")
    assert done.returncode == 1
    assert b"says that it was taken 2021-01-02T02:00:00Z, and came 20" in done.stdout


@pytest.mark.slow
def test_where_a_rollback_left_two_ends_both_are_named(hosts: Hosts) -> None:
    hosts.here.create("tank/a")
    versions = []
    for night, name in enumerate(("mon", "tue", "wed")):
        if name == "wed":
            hosts.here.rollback("tank/a@mon")
        hosts.here.clock(BEHIND + night * 86400)
        hosts.here.change("tank/a")
        hosts.here.snapshot(f"tank/a@{name}")
        versions += hosts.push(f"tank/a@{name}")
    done = hosts.run("tank/a", "--into", "pool/back")
    assert done.returncode == 0
    assert hosts.guids("pool/back") == [versions[0]["guid"], versions[2]["guid"]]
    assert "another branch of its chain ends with tank/a@tue" in done.stderr.decode()
    programs.good(hosts.run("tank/a@tue", "--into", "pool/other"))
    assert hosts.guids("pool/other") == [versions[0]["guid"], versions[1]["guid"]]


@pytest.mark.slow
def test_a_rollback_after_which_nothing_was_written_is_a_question(hosts: Hosts) -> None:
    """`push` had nothing to send, `status` was content, and `restore` gave back what had been rolled back."""
    for name in ("tank", "tank/a"):
        hosts.here.create(name)
    hosts.push("tank")
    for name in ("mon", "tue"):
        hosts.here.change("tank/a")
        hosts.here.snapshot(f"tank/a@{name}")
        hosts.push(f"tank/a@{name}")
    hosts.here.rollback("tank/a@mon")
    assert hosts.push("tank/a") == []
    noted = hosts.receiver.store / ".state" / "unchanged.zfshost.json"
    said = json.loads(noted.read_text())
    later = format_time(time.time() + 3600)  # and not within the same second
    said["tank/a"]["at"] = later
    noted.write_text(json.dumps(said))
    text = hosts.refused(2, "tank/a", "--into", "pool/back")
    assert "it is not certain which state is the newest: tank/a@tue came last" in text
    assert f"at {later}, its host said that it is as of @mon, as after a rollback" in text
    assert hosts.received() == []
    assert len(hosts.restore("tank/a@mon", "--into", "pool/mon")) == 1
    # So it is for that dataset of a tree alone; and what was asked for by name is certain.
    done = hosts.run("-r", "--json", "tank", "--into", "pool/back")
    assert (done.returncode, [row["dataset"] for row in programs.rows(done.stdout)]) == (2, ["tank"])
    assert {row["snapshot"] for row in hosts.restore("-r", "tank/a@tue", "--into", "pool/tue")} == {"tue"}
    # What is written from there on is the newest, whatever was said before.
    said["tank/a"]["at"] = "2020-01-01T00:00:00Z"
    noted.write_text(json.dumps(said))
    hosts.here.change("tank/a")
    (pushed,) = hosts.push("tank/a")
    assert hosts.restore("tank/a", "--into", "pool/last")[0]["guid"] == pushed["guid"]


@pytest.mark.slow
def test_an_older_snapshot_that_was_pushed_last_is_a_question(hosts: Hosts) -> None:
    hosts.here.create("tank/a")
    for night, name in enumerate(("mon", "tue", "wed")):
        hosts.here.clock(BEHIND + night * 86400)
        hosts.here.change("tank/a")
        hosts.here.snapshot(f"tank/a@{name}")
    hosts.here.clock(None)
    for name in ("mon", "wed", "tue"):
        hosts.push(f"tank/a@{name}")
    said = hosts.refused(2, "tank/a", "--into", "pool/back")
    assert "it is not certain which state is the newest" in said
    assert "tank/a@tue, taken 2021-01-02T02:00:00Z, received" in said
    assert "tank/a@wed, taken 2021-01-03T02:00:00Z, received" in said
    assert hosts.received() == []
    assert hosts.restore("tank/a@wed", "--into", "pool/back")[0]["streams"] == 2


@pytest.mark.slow
def test_the_old_name_of_a_pool_says_what_its_new_one_is(hosts: Hosts) -> None:
    hosts.here.create("tank/home")
    before = hosts.push("tank/home")[0]
    hosts.here.rename("tank/home", "new/home")
    hosts.here.change("new/home")
    after = hosts.push("new/home")[0]
    for arguments in (["tank/home"], ["-r", "tank"]):
        said = hosts.refused(2, *arguments, "--into", "pool/back")
        assert f"tank/home was renamed, and continues as new/home, up to @{after['snapshot']}" in said
        assert hosts.received() == []
    assert hosts.restore("new/home", "--into", "pool/back")[0]["guid"] == after["guid"]
    assert hosts.restore(f"tank/home@{before['snapshot']}", "--into", "pool/old")[0]["guid"] == before["guid"]


# --- what a pool cannot do, and what nobody expects ---------------------------------------------------------------


@pytest.mark.slow
def test_a_pool_without_features_takes_it_without_keeping_parts(hosts: Hosts) -> None:
    """`zfs receive -s` says that it must be upgraded, and so said every run, for ever."""
    hosts.here.create("tank/a")
    first, second = nights(hosts, "tank/a", 2)
    hosts.there.pool("pool", extensible=False)
    done = hosts.run("tank/a", "--into", "pool/back")
    assert done.returncode == 0
    assert done.stderr.decode().count("the pool keeps no part of a stream") == 1
    assert hosts.guids("pool/back") == [first["guid"], second["guid"]]
    assert [line.split()[:2] for line in hosts.received()] == [["-u", "-s"], ["-u", "-o"], ["-u", "-o"]]


@pytest.mark.slow
def test_a_stream_that_a_pool_cannot_take_is_no_reason_to_keep_no_part_of_others(hosts: Hosts) -> None:
    """ZFS has the same words for a feature that the pool lacks, whichever it is."""
    for name in ("tank/a", "tank/b"):
        hosts.here.create(name)
        hosts.push(name)
    why = "cannot receive new filesystem stream: pool must be upgraded to receive this stream."
    hosts.there.fail("pool/back/a", why)
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    assert why in said
    assert "the pool keeps no part of a stream" not in said
    assert [line.split()[:2] for line in hosts.received()] == [["-u", "-s"], ["-u", "-o"], ["-u", "-s"]]


@pytest.mark.slow
def test_a_pool_that_is_suspended_meanwhile_ends_the_restore(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zfs receive` waits in the kernel then, and may not end before somebody clears the pool."""
    monkeypatch.setattr(restoring, "while_usable", functools.partial(while_usable, every=0.01))
    for name in ("tank/a", "tank/b", "tank/c"):
        hosts.here.create(name)
        hosts.push(name)
    hosts.there.fail("pool/back/b", "hang")

    def suspend() -> None:
        programs.wait_for(lambda: any(line.endswith("pool/back/b") for line in hosts.received()))
        hosts.there.pool("pool", health="SUSPENDED")

    suspending = threading.Thread(target=suspend)
    suspending.start()
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    suspending.join()
    assert " failed: the pool is SUSPENDED, and cannot be used: see `zpool status -v pool`, then `zpool cl" in said
    assert "pool/back/c: not tried, because the pool cannot be used: run the same command again to resume\n" in said
    assert [line.split()[-1] for line in hosts.received()] == ["pool/back/a", "pool/back/b"]
    assert "the pool is SUSPENDED" in hosts.refused(1, "-r", "tank", "--into", "pool/back")
    hosts.there.mend()
    hosts.there.pool("pool", health="ONLINE")
    hosts.restore("-r", "tank", "--into", "pool/back")
    assert [line.split()[-1] for line in hosts.received()] == ["pool/back/b", "pool/back/c"]


@pytest.mark.slow
def test_an_error_of_any_class_is_one_datasets(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tank/a", "tank/b", "tank/c"):
        hosts.here.create(name)
        hosts.push(name)
    real = restoring._receive

    async def broken(job: Any, item: Any, *arguments: Any) -> None:
        if item.target == "pool/back/b":
            raise ValueError("out of\nnowhere")
        await real(job, item, *arguments)

    monkeypatch.setattr(restoring, "_receive", broken)
    said = hosts.refused(1, "-r", "tank", "--into", "pool/back")
    assert "pool/back/b: ValueError: out of nowhere (--debug shows more)" in said
    assert hosts.guids("pool/back/a")
    assert hosts.guids("pool/back/c")
