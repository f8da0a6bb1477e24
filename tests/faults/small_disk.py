"""A daemon whose store is a small file system of its own (tmpfs, ext4, xfs), in a mount namespace of its own.

disk = SmallDisk(hosts, folder, "ext4")
disk.serve()                    # mounted, with the store of `hosts`; the daemon runs
with disk.faults.blocked("write", ".json"): ...     # as in tests/receiver/faulty.py
filler = disk.fill()            # a file that takes the rest: real ENOSPC until it is unlinked
disk.run("umount", "-l", disk.place)                # in the daemon's namespace
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest
from tests import programs
from tests.receiver.faulty import FaultyDisk

from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB: Final = 1 << 20
FILE_SYSTEMS: Final = ("tmpfs", "ext4", "xfs")
#: xfs is not made smaller than 300 MiB.
_SIZES: Final = {"tmpfs": 48 * MIB, "ext4": 64 * MIB, "xfs": 300 * MIB}
_MAKE: Final = {"ext4": ["mkfs.ext4", "-q", "-m", "0"], "xfs": ["mkfs.xfs", "-q"]}
#: Where programs for file systems are, also for a user without these folders in its PATH.
PATH: Final = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_BLOCK: Final = 4096
#: Mounts the file system, copies the store into it, and becomes the daemon.
_INSIDE: Final = """
set -e
seed=$1 place=$2
shift 2
mount $FULLSEND_TEST_MOUNT "$place"
cp -a "$seed"/. "$place"
sync -f "$place"
exec "$@"
"""
_number: Final = itertools.count()


@dataclass(frozen=True)
class Hosts:
    """A receiver, and a paired sender. `seed`: the receiver's store, which is copied for each test."""

    receiver: programs.Receiver
    sender: programs.Sender
    seed: Path


def cannot(why: str) -> NoReturn:
    """Skip the test: this user or this machine cannot make such a file system. In `.ci/run` it fails instead."""
    if os.environ.get("FULLSEND_TEST_DISKS") == "required":
        pytest.fail(why)
    pytest.skip(why)


def make_hosts(folder: Path, stored: bytes) -> Hosts:
    """Pair two hosts, and store a stream."""
    receiver, sender = programs.Receiver(folder / "receiver"), programs.Sender(folder / "sender", "alpha")
    with programs.serving(receiver, min_free=0):
        sender.join(receiver)
        sender.push("--stdin", stdin=stored)
    seed = receiver.store.rename(folder / "seed")
    receiver.store.mkdir()
    return Hosts(receiver, sender, seed)


class SmallDisk:
    """The file system, the store on it, and the daemon."""

    def __init__(self, hosts: Hosts, folder: Path, kind: str) -> None:
        """Make the file system. Skips the test if this user, or this machine, cannot."""
        self.receiver, self.sender = hosts.receiver, hosts.sender
        self.place = str(hosts.receiver.store)
        self.faults = FaultyDisk(hosts.receiver.folder / f"faults{next(_number)}")
        self._seed = hosts.seed
        self._logged = 0
        self._device = "" if kind == "tmpfs" else _loop_device(folder / "image", kind)
        self.mount = f"-t {kind} " + (f"-o noatime {self._device}" if self._device else f"-o size={_SIZES[kind]} tmpfs")
        if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
            cannot("only root has a mount namespace")

    def serve(self) -> None:
        """Mount it, and start the daemon."""
        self._logged = len(self.receiver.log.read_text(encoding="utf-8"))
        serve = [sys.executable, *map(str, self.faults.program), "serve"]
        inside = ["unshare", "-m", "sh", "-c", _INSIDE, "sh", str(self._seed), self.place, *serve]
        self.receiver.start(*inside, **self.faults.env, FULLSEND_TEST_MOUNT=self.mount)

    @property
    def log(self) -> str:
        """What the daemon has said since it was started."""
        return self.receiver.log.read_text(encoding="utf-8")[self._logged :]

    @property
    def pid(self) -> int:
        assert self.receiver.process is not None
        return self.receiver.process.pid

    @property
    def store(self) -> LocalStore:
        """The store as the daemon sees it."""
        return LocalStore(Path(f"/proc/{self.pid}/root{self.place}"))

    def run(self, *command: str) -> None:
        """Run a command in the daemon's mount namespace. It must succeed."""
        inside = ["nsenter", "-t", str(self.pid), "-m", *command]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
        assert done.returncode == 0, done.stderr

    def fullsendd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the storage host on this store."""
        command = [sys.executable, "-m", "fullsend_receiver", *arguments]
        inside = ["nsenter", "-t", str(self.pid), "-m", f"--wd={Path.cwd()}", *command]
        env = programs.environment(**self.receiver.env)
        return subprocess.run(inside, capture_output=True, text=True, check=False, env=env)

    def fill(self) -> Path:
        """Write a file that takes all that is free, to the last block."""
        filler = self.store.root / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            status = os.statvfs(filler)
            with contextlib.suppress(OSError):  # most of it without writing it
                most = status.f_bavail * status.f_frsize - 4 * MIB
                os.posix_fallocate(descriptor, 0, most)
                os.lseek(descriptor, most, os.SEEK_SET)
            for size in (MIB, _BLOCK, 1):
                with contextlib.suppress(OSError):
                    while os.write(descriptor, bytes(size)):
                        pass
                with contextlib.suppress(OSError):
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return filler

    def end(self) -> None:
        """End the daemon, and with it the mounts."""
        self.receiver.stop(signal.SIGKILL)
        if self._device:
            subprocess.run(["losetup", "-d", self._device], capture_output=True, check=False, env={"PATH": PATH})


def _loop_device(image: Path, kind: str) -> str:
    """Make a file system of this kind in a file. Returns: the block device."""
    if os.geteuid() != 0:
        cannot("only root has loop devices")
    if shutil.which(_MAKE[kind][0], path=PATH) is None:
        cannot(f"{_MAKE[kind][0]} is not installed")
    with image.open("wb") as file:
        file.truncate(_SIZES[kind])
    done = _run([*_MAKE[kind], str(image)])
    assert done.returncode == 0, done.stderr
    made = _run(["losetup", "-f", "--show", str(image)])
    if made.returncode:
        cannot(f"no loop device: {made.stderr}")
    device = made.stdout.strip()
    may = _run(["unshare", "-m", "mount", "-t", kind, device, str(image.parent)])
    if may.returncode:
        _run(["losetup", "-d", device])
        cannot(f"{kind} cannot be mounted here: {may.stderr}")
    return device


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
