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


def test_new_key_is_for_an_existing_store_in_a_bucket(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    folder = receiver.fullsendd("init", "--adopt", "--new-key", "--store", receiver.store)
    fails(folder, 2, "--new-key: is for a store in a bucket")
    fails(receiver.fullsendd("init", "--new-key", "--store", "s3://backups/zfs"), 2, "add --adopt")
