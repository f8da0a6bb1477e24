"""`fullsendd init`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.receiver.command import fails
from tests.receiver.running import Receiver


def test_init_says_what_it_made(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    done = receiver.fullsendd("init", "--store", receiver.store)
    assert done.returncode == 0
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (said["store"], said["config"]) == (str(receiver.store), str(receiver.config))
    assert len(said["fingerprint"]) == 64
    assert "fullsendd invite" in done.stderr


def test_init_overwrites_nothing(receiver: Receiver) -> None:
    fails(receiver.fullsendd("init", "--store", receiver.store), 2, "exists already")
    other = ["--config", str(receiver.folder / "other.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "fullsend_receiver", *other, "init", "--store", receiver.store],
        capture_output=True,
        text=True,
        check=False,
    )
    fails(done, 2, "--adopt")
