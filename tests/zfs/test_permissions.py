"""`fullsend` without being root: with permissions that `zfs allow` gives, and through sudo."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests import forked, programs
from tests.zfs import pools
from tests.zfs.test_push import failure, holds, own, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.programs import Receiver
    from tests.zfs.pools import Pool

#: What docs/operations.md says that a user needs, no more and no less.
FOR_PUSH = ("bookmark", "destroy", "hold", "mount", "release", "send", "snapshot")
FOR_DRILL = (
    *("canmount", "create", "destroy", "mount", "mountpoint", "quota", "readonly", "receive", "send", "userprop"),
)
FOR_RESTORE = ("canmount", "create", "mount", "quota", "receive", "refquota", "refreservation", "reservation")


@dataclass
class User:
    """An ordinary user, who has a configuration."""

    name: str
    sender: programs.Sender

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *("setpriv", "--reuid", self.name, "--regid", self.name, "--clear-groups", "--"),
                *(sys.executable, "-m", "fullsend_sender", *arguments),
            ],
            env=programs.environment(**self.sender.env, HOME=str(self.sender.folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
        )

    def fullsend(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        env = programs.environment(**self.sender.env, HOME=str(self.sender.folder))
        about = pwd.getpwnam(self.name)
        user = about.pw_uid, about.pw_gid
        return forked.run("fullsend_sender", arguments, env, timeout=programs.PATIENCE, user=user)

    def configure(self, line: str) -> None:
        config = self.sender.folder / "sender.toml"
        config.write_text(f"{line}\n{config.read_text()}")


@pytest.fixture
def user(receiver: Receiver) -> Iterator[User]:
    name = f"fs{secrets.token_hex(3)}"
    folder = Path(tempfile.mkdtemp(prefix="fullsend-user-"))
    try:
        subprocess.run(["useradd", "--user-group", "--home-dir", str(folder), name], check=True)
        shutil.chown(folder, name, name)
        user = User(name, programs.Sender(folder))
        programs.good(user.fullsend("join", receiver.invite("zfshost")))
        yield user
    finally:
        subprocess.run(["userdel", name], check=True)
        shutil.rmtree(folder)


def test_with_delegated_permissions(pool: Pool, other_pool: Pool, receiver: Receiver, user: User) -> None:
    home = pool.create("home", "-o", "compression=lz4")
    pool.create("home/child", "-o", "quota=1G")
    said = failure(user.fullsend("push", "-r", home), 1)
    assert "permission denied" in said
    pools.zfs("allow", "-u", user.name, ",".join(FOR_PUSH), home)
    for night in range(4):
        write(pool, "home", f"night {night}")
        write(pool, "home/child", f"night {night}")
        done = user.fullsend("push", "-v", "-r", home)
        assert b"not cleaned up" not in done.stderr
        programs.good(done)
    for name in ("home", "home/child"):
        assert len([each for each in own(pool, "snapshot") if each.startswith(f"{pool.full(name)}@")]) == 2
        assert len([each for each in own(pool, "bookmark") if each.startswith(f"{pool.full(name)}#")]) == 2
    assert holds(pool) == []
    # Not one of them is for nothing.
    for permission in FOR_PUSH:
        pools.zfs("unallow", "-u", user.name, permission, home)
        write(pool, "home", f"without {permission}")
        done = user.fullsend("push", "-v", home)
        assert done.returncode or b"not cleaned up" in done.stderr or b"permission denied" in done.stderr, permission
        pools.zfs("allow", "-u", user.name, permission, home)
    write(pool, "home", "the last")
    programs.good(user.fullsend("push", home))
    assert holds(pool) == []
    # Back: into a place of one's own.
    place = other_pool.create("place")
    into = f"{place}/home"
    assert "permission denied" in failure(user.fullsend("restore", home, "--into", into), 1)
    pools.zfs("allow", "-u", user.name, ",".join(FOR_RESTORE), place)
    done = user.fullsend("restore", "-r", home, "--into", into)
    assert done.returncode == 0, done.stderr.decode()
    assert b"permission denied" in done.stderr  # of `compression`, and nothing else
    assert done.stderr.count(b"permission denied") == done.stderr.count(b"cannot receive compression property")
    assert other_pool.get(f"{into}/child", "quota") == str(1 << 30)
    pools.zfs("inherit", "mountpoint", into)
    pools.zfs("mount", into)
    assert (other_pool.path("place/home") / "file").read_text() == "the last"


def test_a_drill_with_delegated_permissions(pool: Pool, other_pool: Pool, receiver: Receiver, user: User) -> None:
    home = pool.create("home")
    write(pool, "home", "one")
    pools.zfs("allow", "-u", user.name, ",".join(FOR_PUSH), home)
    programs.good(user.fullsend("push", home))
    place = other_pool.create("drill")
    user.configure(f'drill-into = "{place}"')
    pools.zfs("allow", "-u", user.name, ",".join(FOR_DRILL), place)
    done = user.fullsend("drill", "--json", home)
    assert done.returncode == 0, done.stderr.decode()
    (said,) = programs.rows(done.stdout)
    assert (said["ok"], said["compared"]) == (True, "blocks"), said
    assert "its files were not compared: a private mount namespace needs root" in said["text"]
    assert other_pool.names("filesystem") == {other_pool.name, place}
    # Not one of them is for nothing.
    for permission in FOR_DRILL:
        pools.zfs("unallow", "-u", user.name, permission, place)
        assert user.fullsend("drill", home).returncode, permission
        pools.zfs("allow", "-u", user.name, permission, place)
    programs.good(user.fullsend("drill", home))
    assert other_pool.names("filesystem") == {other_pool.name, place}


def test_through_sudo(pool: Pool, other_pool: Pool, receiver: Receiver, user: User) -> None:
    rule = Path("/etc/sudoers.d") / user.name
    home = pool.create("home")
    write(pool, "home", "one")
    user.configure('zfs-command = "sudo -n zfs"')
    said = failure(user.fullsend("push", home), 1)
    assert "sudo" in said
    rule.write_text(f"{user.name} ALL=(root) NOPASSWD: {shutil.which('zfs')}\n")
    rule.chmod(0o440)
    try:
        programs.good(user.fullsend("push", home))
        # Interrupted: what runs as root below sudo ends, too.
        (pool.path("home") / "noise").write_bytes(b"".join(pools.noise(16 << 20)))
        running = user.popen("push", "--bwlimit", "100K", home)
        programs.wait_for(lambda: any((receiver.store / ".partial").glob("*.data")))
        running.terminate()
        running.communicate(timeout=programs.PATIENCE)
        assert running.returncode == 130
        programs.wait_for(lambda: bool(subprocess.run(["pgrep", "-f", f"^zfs send .*{home}@"], check=False).returncode))
        programs.good(user.fullsend("push", home))
        assert holds(pool) == []
        programs.good(user.fullsend("restore", home, "--into", other_pool.full("restored")))
        assert other_pool.full("restored") in other_pool.names("filesystem")
    finally:
        os.unlink(rule)
