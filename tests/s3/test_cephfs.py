"""A store in a CephFS: one daemon, and a stand-by on another host, which has a mount of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tests.programs import Receiver, Sender, good, run, wait_for
from tests.s3.ceph import cut_off_mount, needs_ceph, restart
from tests.s3.hosts import arrived, large, point_at, pushing

#: The folders of two mounts, as tests/s3/cephfs-start prints them.
MOUNTS: Final = os.environ.get("FULLSEND_TEST_CEPHFS", "").split()
pytestmark = [
    pytest.mark.s3,
    pytest.mark.alone,
    needs_ceph,
    pytest.mark.skipif(len(MOUNTS) != 2, reason="FULLSEND_TEST_CEPHFS does not name two mounts"),
]


@dataclass
class SharedReceiver(Receiver):
    """A daemon of a store in a shared folder. `at`: that folder, as this host sees it."""

    at: Path = Path()

    @property
    def store(self) -> Path:  # type: ignore[explicit-override]
        return self.at

    def stand_by(self, other: SharedReceiver) -> None:
        """Make this host one that serves the store of `other` if that one does not."""
        self.folder.mkdir()
        text = (other.folder / "receiver.toml").read_text(encoding="utf-8")
        text = text.replace(str(other.at), str(self.at)).replace(f":{other.port}", f":{self.port}")
        (self.folder / "receiver.toml").write_text(text, encoding="utf-8")

    def begins(self) -> bool:
        """Try to serve, as systemd does every 10 seconds. Returns: whether it does."""
        try:
            self.start()
        except AssertionError:
            assert "another fullsendd serves this store" in self.log.read_text(encoding="utf-8")
            return False
        return True


@pytest.mark.timeout(900)
def test_stand_by_takes_over_from_a_host_that_lost_its_power(tmp_path: Path) -> None:
    place = secrets.token_hex(8)
    first = SharedReceiver(tmp_path / "first", at=Path(MOUNTS[0], place))
    other = SharedReceiver(tmp_path / "other", at=Path(MOUNTS[1], place))
    first.init(min_free="0")
    other.stand_by(first)
    first.start()
    try:
        assert b"another fullsendd serves this store" in run("fullsend_receiver", "serve", env=other.env).stderr
        sender, raw = Sender(tmp_path / "sender", "alpha"), large(1)
        sender.join(first)
        point_at(sender, first, other)
        (tmp_path / "stream").write_bytes(raw)
        push = pushing(sender, tmp_path / "stream", "-v", "--retry-for", "600s")
        wait_for(lambda: arrived(first) > 0)
        acknowledged = arrived(first)
        cut_off_mount(1)
        first.stop(signal.SIGKILL)
        wait_for(other.begins)
        _out, said = push.communicate(timeout=300)
        assert push.returncode == 0, said
        assert max(map(int, re.findall(rb"resumes at (\d+)", said))) >= acknowledged
        good(other.fullsendd("verify", "--quiet"))
        (stored,) = other.list()
        assert good(sender.fullsend("cat", stored["file"])) == raw
        # The host comes back, and is the stand-by now.
        restart("fuse-1")
        assert not first.begins()
        other.stop()
        first.start()
        (listed,) = first.list()
        assert listed == stored | {"verified": listed["verified"]}  # `cat` has read it whole since
        assert good(sender.fullsend("cat", stored["file"])) == raw
    finally:
        first.stop(signal.SIGKILL)
        other.stop(signal.SIGKILL)
        shutil.rmtree(other.at)
