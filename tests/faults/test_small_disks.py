"""Real small file systems that fill up, become read-only, fail or go away at the worst moments.

Each time: the sender is told why, in one line; what was stored can be listed and read; and once the disk is as it was,
the next push succeeds, without a restart of the daemon.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests import programs
from tests.faults.small_disk import FILE_SYSTEMS, MIB, PATH, Hosts, SmallDisk, cannot, make_hosts
from tests.faults.test_full_disk import noise
from tests.faults.test_interrupted import Feeding
from tests.receiver.helpers import check_listed

from fullsend_receiver.catalogue.streams import read_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BEFORE: Final = noise("tank/before", MIB, 1)
#: Three chunks of 4 MiB, and one with the END record.
RAW: Final = noise("tank/data", 12 * MIB, 2)
CHUNKS: Final = 4
FULL: Final = "the store is full (No space left on device)"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    return make_hosts(tmp_path_factory.mktemp("hosts"), BEFORE)


def serving(hosts: Hosts, folder: Path, kind: str) -> Iterator[SmallDisk]:
    disk = SmallDisk(hosts, folder, kind)
    try:
        disk.serve()
        yield disk
        assert disk.receiver.stop(signal.SIGTERM) == 0, disk.log
        assert "Traceback" not in disk.log
    finally:
        disk.end()


@pytest.fixture(params=FILE_SYSTEMS)
def disk(request: pytest.FixtureRequest, hosts: Hosts, tmp_path: Path) -> Iterator[SmallDisk]:
    """Each file system in turn."""
    yield from serving(hosts, tmp_path, request.param)


def begin(disk: SmallDisk, *arguments: str) -> Feeding:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    size = ("--size", str(len(RAW)))
    return Feeding(disk.sender.popen("push", "--stdin", "--json", *size, *arguments, **pipes), RAW)


def refused(feeding: Feeding) -> str:
    """The push is refused. Returns: the one line that says why."""
    code, pushed, said = feeding.end()
    assert (code, pushed) == (3, []), said
    (line,) = said.splitlines()
    return line


def check_served(disk: SmallDisk) -> None:
    """What was stored before is listed, and given back."""
    (entry,) = disk.sender.list("tank/before")
    assert entry["restorable"]
    assert programs.good(disk.sender.fullsend("cat", entry["file"])) == BEFORE


def check_kept(disk: SmallDisk, line: str) -> None:
    """What the line says of what is kept is true."""
    partials = programs.rows(programs.good(disk.sender.fullsend("list", "--partial", "--json")))
    kept = [partial["raw_bytes"] for partial in partials if partial["raw_bytes"]]
    assert ("of it (raw) are kept" in line) == bool(kept), (line, partials)


def check_whole(disk: SmallDisk) -> None:
    """Both streams are stored and whole, and nothing else is left."""
    store = disk.store
    assert len(check_listed(store)) == 2
    assert read_catalogue(store).problems == []
    assert list(store.partial.iterdir()) == []
    programs.good(disk.sender.fullsend("verify"))
    (entry,) = disk.sender.list("tank/data")
    assert programs.good(disk.sender.fullsend("cat", entry["file"])) == RAW


# --- a disk that fills up ---------------------------------------------------------------------------------------

#: At which call the daemon is stopped while the disk is filled: the call, on which files, and how many before it.
MOMENTS: Final = {
    "chunk": ("write", ".data", 1),
    "journal": ("write", ".journal", 1),
    "index": ("write", ".data", CHUNKS),
    ".sha256": ("write", ".sha256", 0),
    "manifest": ("write", ".json", 0),
    "the journal's last line": ("fsync", ".partial", 1),
}
#: What is written then may fit into the last block of its file.
MAY_FIT: Final = {"journal", "index", "the journal's last line"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_disk_fills_up_amid_a_push(disk: SmallDisk, moment: str) -> None:
    call, suffix, after = MOMENTS[moment]
    with disk.faults.blocked(call, suffix, after=after):
        feeding = begin(disk)
        programs.wait_for(lambda: disk.faults.begun(call, suffix) > after)
        filler = disk.fill()
    code, pushed, said = feeding.end()
    if code == 0:
        assert moment in MAY_FIT
        assert pushed[0]["raw_bytes"] == len(RAW)
    else:
        assert (code, pushed) == (3, []), said
        (line,) = said.splitlines()
        assert FULL in line or "ended, since something else has filled the store's disk" in line
        assert line.endswith(": free space on the receiver, then push again")
        check_kept(disk, line)
    check_served(disk)
    assert len(check_listed(disk.store)) == 1 + (code == 0)
    filler.unlink()
    if code:
        assert begin(disk).good()["raw_bytes"] == len(RAW)
    check_whole(disk)


def test_disk_that_is_full_before_a_push_keeps_nothing_and_says_nothing_else(disk: SmallDisk) -> None:
    filler = disk.fill()
    line = refused(begin(disk))
    assert FULL in line or " no room: " in line
    assert "kept" not in line
    check_served(disk)
    filler.unlink()
    assert begin(disk).good()["raw_bytes"] == len(RAW)
    check_whole(disk)


def test_disk_is_full_where_a_command_writes(disk: SmallDisk, tmp_path: Path) -> None:
    """Each command that only reads works; each that writes says why it cannot, and has changed nothing."""
    invited = disk.fullsendd("invite", "beta")
    beta = programs.Sender(tmp_path / "beta", "beta")
    beta.folder.mkdir()
    before = disk.store.state.joinpath("invitations.json").read_bytes()
    filler = disk.fill()
    for command in (["list"], ["senders"], ["verify", "alpha"], ["show", "alpha/tank/before@now"]):
        done = disk.fullsendd(*command)
        assert done.stdout, (command, done.stderr)
    for command in (["invite", "gamma"], ["revoke", "alpha"]):
        done = disk.fullsendd(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"fullsendd: {FULL}: free space on the receiver\n"
    assert disk.store.state.joinpath("invitations.json").read_bytes() == before
    joining = beta.fullsend("join", invited.stdout.strip())
    assert joining.returncode == 3
    assert FULL in joining.stderr.decode()
    filler.unlink()
    programs.good(beta.fullsend("join", invited.stdout.strip()))


# --- a disk that becomes read-only, fails, or goes away ---------------------------------------------------------


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_file_system_that_becomes_read_only_is_served_and_taken_back(disk: SmallDisk) -> None:
    """As after an error on its disk: the kernel makes it read-only, whatever is open on it."""
    with disk.faults.blocked("write", ".data", after=1):
        feeding = begin(disk)
        programs.wait_for(lambda: disk.faults.begun("write", ".data") > 1)
        disk.run("mount", "-o", "remount,abort", disk.place)
    line = refused(feeding)
    assert "the store's disk " in line
    programs.wait_for(lambda: "until then the store can be read, and pushes are refused" in disk.log)
    check_served(disk)
    assert "mounted read-only" in refused(begin(disk))
    checked = programs.run("fullsend_sender", "check", env=disk.sender.env).stdout.decode()
    assert "problem" in checked
    assert "read-only; pushes are refused" in checked
    done = disk.fullsendd("check")
    assert done.returncode == 1
    assert "problem  the store's disk is mounted read-only" in done.stdout
    assert "mounted read-only" in disk.fullsendd("invite", "beta").stderr
    # It is taken away, repaired and mounted again, while the daemon runs.
    disk.run("umount", "-l", disk.place)
    programs.wait_for(lambda: "nothing is served until it is back" in disk.log)
    disk.run("sh", "-c", f"mount {disk.mount} {disk.place}")
    programs.wait_for(lambda: "the store's disk is back, and can be written to" in disk.log)
    assert begin(disk).good()["raw_bytes"] == len(RAW)
    check_whole(disk)


@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
def test_disk_that_fails_is_named_and_taken_back(disk: SmallDisk) -> None:
    """Each call ends with EIO."""
    if shutil.which("xfs_io", path=PATH) is None:
        cannot("xfs_io is not installed")
    with disk.faults.blocked("write", ".data", after=1):
        feeding = begin(disk)
        programs.wait_for(lambda: disk.faults.begun("write", ".data") > 1)
        disk.run("xfs_io", "-x", "-c", "shutdown", disk.place)
    assert "the store's disk fails (Input/output error" in refused(feeding)
    programs.wait_for(lambda: "nothing is served until it is back" in disk.log)
    said = disk.sender.fullsend("list").stderr.decode()
    assert "the store's disk fails (Input/output error" in said
    disk.run("umount", "-l", disk.place)
    disk.run("sh", "-c", f"until mount {disk.mount} {disk.place} 2>/dev/null; do :; done")
    programs.wait_for(lambda: "the store's disk is back, and can be written to" in disk.log)
    check_served(disk)
    assert begin(disk).good()["raw_bytes"] == len(RAW)
    check_whole(disk)


def test_disk_that_is_unmounted_while_it_is_served_gets_no_file_in_its_mount_point(
    disk: SmallDisk, tmp_path: Path
) -> None:
    """An empty mount point is not an empty store."""
    keep = tmp_path / "keep"
    keep.mkdir()
    disk.run("mount", "--bind", disk.place, str(keep))
    with disk.faults.blocked("write", ".data", after=1):
        feeding = begin(disk)
        programs.wait_for(lambda: disk.faults.begun("write", ".data") > 1)
        disk.run("umount", "-l", disk.place)
    line = refused(feeding)
    assert "is its disk mounted?" in line
    programs.wait_for(lambda: "nothing is served until it is back" in disk.log)
    assert "is its disk mounted?" in refused(begin(disk))
    for command in (["list"], ["status"], ["restore", "tank/before", "-n"], ["verify"]):
        done = disk.sender.fullsend(*command)
        assert done.returncode == 3, command
        assert "is its disk mounted?" in done.stdout.decode() + done.stderr.decode()
    assert "revoked" not in disk.log
    assert list(disk.store.root.iterdir()) == []
    disk.run("mount", "--bind", str(keep), disk.place)
    programs.wait_for(lambda: "the store's disk is back, and can be written to" in disk.log)
    check_served(disk)
    assert disk.fullsendd("list").stderr == ""  # it is asked, and answers
    assert begin(disk).good()["raw_bytes"] == len(RAW)
    check_whole(disk)


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_stream_that_is_being_given_back_ends_whole_though_the_disk_is_unmounted(
    disk: SmallDisk, tmp_path: Path
) -> None:
    assert begin(disk).good()["raw_bytes"] == len(RAW)
    (entry,) = disk.sender.list("tank/data")
    with disk.sender.popen("cat", entry["file"], stdout=subprocess.PIPE) as reading:
        assert reading.stdout is not None
        first = reading.stdout.read(MIB)
        disk.run("umount", "-l", disk.place)
        programs.wait_for(lambda: "nothing is served until it is back" in disk.log)
        assert first + reading.stdout.read() == RAW
    assert reading.returncode == 0
