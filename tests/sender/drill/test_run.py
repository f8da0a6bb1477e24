"""Whole drills: a real receiver, and a `zfs` that is made up. That one cannot be mounted, so blocks are compared."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import programs
from tests.fakezfs import Blocks, FakeZfs
from tests.sender.drill.test_report import DrillDesk
from tests.sender.peer import receiving
from tests.sender.restore.test_chains import entry as stored_entry

from fullsend_sender.drill.run import DrillJob, DrillOutcome, _report
from fullsend_sender.drill.scratch import PROPERTY
from fullsend_sender.host.identity import Identity
from fullsend_sender.restore import run as restoring
from fullsend_sender.zfs.commands import Zfs
from fullsend_sender.zfs.pools import while_usable

INTO = "tank/drill"
HOME = "tank/home"
MARK = "0123456789abcdef"

pytestmark = pytest.mark.slow


@dataclass
class Drills:
    """A ZFS host with a stored chain of three, and a scratch place. `before`: its datasets."""

    sender: programs.Sender
    receiver: programs.Receiver
    fake: FakeZfs

    @property
    def before(self) -> set[str]:
        return {"tank", INTO, HOME}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        self.fake.forget_commands()
        done = self.sender.fullsend("drill", *arguments)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    def drill(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = self.run("--json", *arguments)
        assert done.returncode == code, done.stderr.decode()
        (said,) = programs.rows(done.stdout)
        return dict(said)

    def refused(self, code: int, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == code, done.stderr.decode()
        assert done.stdout == b""
        return done.stderr.decode()

    def kept(self) -> dict[str, Any]:
        """What the receiver has kept of drills."""
        path = self.receiver.store / ".state" / f"drills.{self.sender.name}.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def push(self, name: str) -> None:
        self.fake.change(name)
        self.sender.push(name)


@pytest.fixture
def drills(tmp_path: Path) -> Iterator[Drills]:
    with programs.serving(programs.Receiver(tmp_path / "receiver", inside=True)) as receiver:
        sender = programs.Sender(tmp_path / "sender", inside=True)
        sender.join(receiver)
        drills = Drills(sender, receiver, FakeZfs.make(tmp_path / "zfs"))
        config = sender.folder / "sender.toml"
        zfs = json.dumps(drills.fake.program)
        config.write_text(f'zfs-command = {zfs}\ndrill-into = "{INTO}"\nkeep = 9\n\n{config.read_text()}')
        for name in ("tank", INTO):
            drills.fake.create(name)
        drills.fake.create(HOME, blocks=Blocks(32, 8, 4))
        for _night in range(3):
            drills.push(HOME)
        yield drills


def test_a_drill_is_right_is_reported_and_leaves_nothing(drills: Drills) -> None:
    said = drills.drill("--newest", HOME)
    assert (said["ok"], said["compared"], said["streams"], said["reported"]) == (True, "blocks", 3, True)
    assert said["dataset"] == HOME
    assert said["guid"] == drills.fake.edit(lambda state: state["datasets"][HOME]["snapshots"][-1]["guid"])
    assert drills.fake.datasets() == drills.before
    # What is received is marked and hidden from its first byte on, and no part of it is kept.
    created = next(line for line in drills.fake.commands if line.startswith("create"))
    received = [line for line in drills.fake.commands if line.startswith("receive")]
    assert f"-o {PROPERTY}=" in created
    assert "-o quota=" in created
    assert len(received) == 3
    for line in received:
        assert line.startswith("receive -u -o canmount=noauto ")
        assert f"-o mountpoint=none -o readonly=on -o com.sun:auto-snapshot=false -o {PROPERTY}=" in line
    (kept,) = drills.kept().values()
    assert (kept["ok"], kept["guid"], kept["succeeded"]) == (True, said["guid"], kept["at"])
    done = drills.sender.fullsend("status")
    assert (done.returncode, b" ok 20" in done.stdout) == (0, True)


def test_without_a_name_each_dataset_has_its_turn_and_success_is_silent(drills: Drills) -> None:
    drills.fake.create("tank/disk", kind="volume", blocks=Blocks(8, 4, 2))
    drills.push("tank/disk")
    for _turn in range(2):
        done = drills.run()
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert set(drills.kept()) == {HOME, "tank/disk"}
    assert drills.run("-v").stdout.startswith(b"ok: tank/")


def test_a_difference_is_a_failure_that_both_sides_know(drills: Drills) -> None:
    drills.drill(HOME)
    drills.fake.drift(1)
    done = drills.run(HOME)
    assert done.returncode == 1
    assert done.stdout.startswith(b"FAILED: tank/home@")
    assert b"its blocks are DIFFERENT from those of tank/home@" in done.stderr
    assert drills.fake.datasets() == drills.before
    kept = drills.kept()[HOME]
    assert (kept["ok"], kept["succeeded"] is None) == (False, False)
    done = drills.sender.fullsend("status")
    assert (done.returncode, b"WARNING" in done.stdout, b"has failed (the last that was ok" in done.stdout) == (1,) + (
        True,
    ) * 2
    (row, _receiver) = programs.rows(drills.sender.fullsend("status", "--json").stdout)
    assert (row["state"], row["drill"]["ok"]) == ("WARNING", False)


def test_a_damaged_stream_is_a_failure(drills: Drills) -> None:
    file = programs.stored_files(drills.receiver)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    for entry in drills.sender.list():
        said = drills.drill(f"guid:{entry['guid']}", code=1)
        if not said["ok"]:
            assert (said["compared"], said["reported"]) == ("nothing", True)
            assert said["text"].startswith("not restored: ")
        assert drills.fake.datasets() == drills.before
    assert drills.kept()[HOME]["ok"] is False
    # Known to be damaged, nothing is restored, and it is reported all the same.
    assert drills.sender.fullsend("verify").returncode == 1
    said = drills.drill("--newest", code=1)
    assert (said["ok"], said["streams"], said["reported"]) == (False, 0, True)
    assert "cannot be restored" in said["text"]
    assert not [line for line in drills.fake.commands if line.startswith(("create", "receive"))]


def test_a_receive_that_fails_is_a_failure(drills: Drills) -> None:
    drills.fake.fail("receive", "cannot receive new filesystem stream: out of space")
    said = drills.drill(HOME, code=1)
    assert "out of space" in said["text"]
    assert drills.fake.datasets() == drills.before


def test_a_pool_that_is_suspended_meanwhile_is_a_failure_that_both_sides_know(
    drills: Drills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drill that waited for it held up all later ones."""
    monkeypatch.setattr(restoring, "while_usable", functools.partial(while_usable, every=0.01))
    drills.fake.fail("receive", "hang")

    def suspend() -> None:
        programs.wait_for(lambda: any(line.startswith("receive") for line in drills.fake.commands))
        drills.fake.pool("tank", health="SUSPENDED")

    suspending = threading.Thread(target=suspend)
    drills.fake.forget_commands()
    suspending.start()
    said = drills.drill("--newest", HOME, code=1)
    suspending.join()
    assert said["text"].startswith("not restored: the pool is SUSPENDED, and cannot be used: ")
    assert (said["ok"], said["reported"], drills.kept()[HOME]["ok"]) == (False, True, False)
    drills.fake.mend()
    drills.fake.pool("tank", health="ONLINE")
    assert drills.drill("--newest", HOME)["ok"]
    assert drills.fake.datasets() == drills.before


def test_what_the_place_does_not_take_is_a_failure_and_the_next_dataset_has_its_turn(drills: Drills) -> None:
    drills.fake.create("tank/other", blocks=Blocks(8, 4, 2))
    drills.sender.push("-e", "tank/other")
    drills.fake.alter(INTO, encrypted=True)
    said = drills.drill("tank/other", code=1)
    assert (said["ok"], said["compared"], said["reported"]) == (False, "nothing", True)
    assert "has embedded blocks (`zfs send -e`), which no encrypted place takes" in said["text"]
    assert drills.fake.datasets() == {*drills.before, "tank/other"}
    assert drills.drill()["dataset"] == HOME
    # Nothing at all can be created there: that is no result of a dataset.
    drills.fake.alter(INTO, key_loaded=False)
    assert "key is not loaded" in drills.refused(1)


def test_a_place_that_cannot_be_used(drills: Drills) -> None:
    drills.fake.alter(INTO, available=1000)
    said = drills.refused(2, HOME)
    assert "needs up to" in said
    assert f"{INTO} has room for 1000 B" in said
    drills.fake.alter(INTO, available=1 << 40)
    assert "has room for 1.0 KiB" in drills.refused(2, "--quota", "1K", HOME)
    assert "there is no such filesystem to restore into: create it with" in drills.refused(2, "--into", "tank/no", HOME)
    assert "nothing is stored" not in drills.refused(1, "tank/typo")
    assert not [line for line in drills.fake.commands if line.startswith(("create", "receive", "destroy"))]
    assert drills.kept() == {}
    # The scratch may take what the streams need, not the pool.
    drills.drill("--newest", "--quota", "10M", HOME)
    assert any(f"-o quota={10 << 20} " in line for line in drills.fake.commands)


def test_what_is_not_a_drills_is_never_touched(drills: Drills) -> None:
    mine = f"{INTO}/fullsend-drill-{MARK}"
    drills.fake.create(mine)
    drills.fake.snapshot(f"{mine}@precious")
    done = drills.run("--json", HOME)
    assert done.returncode == 1  # a person must look at it
    assert programs.rows(done.stdout)[0]["ok"] is True
    said = done.stderr.decode()
    assert f"{mine}, the scratch of a drill, is not destroyed: it does not have {PROPERTY}={MARK}" in said
    assert drills.fake.names("snapshots", mine) == ["precious"]
    assert drills.fake.datasets() == {*drills.before, mine}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_drill_that_is_killed_leaves_nothing_for_long(drills: Drills, number: int) -> None:
    drills.fake.fail(f"send {HOME}@", "stall")
    drills.fake.forget_commands()
    running = drills.sender.popen("drill", "--newest", HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    programs.wait_for(lambda: any(line.startswith("send") for line in drills.fake.commands))
    # While it runs, another one must not destroy what it has.
    assert "another drill runs" in drills.sender.fullsend("drill", HOME).stderr.decode()
    assert any(name.endswith("/restored") for name in drills.fake.datasets())
    running.send_signal(number)
    _out, errors = running.communicate(timeout=programs.PATIENCE)
    if number == signal.SIGKILL:
        assert drills.fake.datasets() > drills.before
    else:
        assert (running.returncode, b"Traceback" in errors) == (130, False)
        assert drills.fake.datasets() == drills.before
    drills.fake.mend()
    done = drills.run("--json", HOME)
    assert done.returncode == 0, done.stderr
    assert (b"the scratch of a drill that was killed, is destroyed" in done.stderr) == (number == signal.SIGKILL)
    assert drills.fake.datasets() == drills.before


def test_a_scratch_that_stays_is_an_error(drills: Drills) -> None:
    drills.fake.fail("destroy", "cannot destroy: dataset is busy")
    done = drills.run("--json", HOME)
    assert done.returncode == 1
    assert programs.rows(done.stdout)[0]["ok"] is True
    assert b"is not destroyed: " in done.stderr
    drills.fake.mend()
    assert drills.run("--json", HOME).returncode == 0
    assert drills.fake.datasets() == drills.before


async def test_the_receiver_is_told_no_more_than_it_may_read(receiver_identity: Identity, identity: Identity) -> None:
    desk = DrillDesk()
    of = stored_entry("tank/home@a", 7, flags="w", sequence=1)
    outcome = DrillOutcome(of, ok=False, extent="files", text="1 difference: /diagnosis", told="1 difference")
    async with receiving(receiver_identity, always=desk) as state:
        job = DrillJob(HOME, INTO, state.endpoint, identity, Zfs(("none",)))
        assert (await _report(job, outcome)).reported
    assert [each.text for each in desk.said] == ["1 difference"]


def test_a_receiver_that_is_away(drills: Drills) -> None:
    assert drills.receiver.stop() == 0
    assert "cannot connect" in drills.refused(75, HOME)
    assert drills.fake.datasets() == drills.before
