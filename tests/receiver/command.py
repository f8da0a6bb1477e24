"""What a test of a command says of how it ended, and does to the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from tests.receiver.running import Receiver


def fails(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """It ended with this code, and one line that says why."""
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("fullsendd: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


def damage(receiver: Receiver, file: PurePosixPath, at: int) -> None:
    path = receiver.store / file
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def read_only(receiver: Receiver, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the store is mounted read-only. Skips the test where we may not mount."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    unshared = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    may = subprocess.run([*unshared, script, receiver.store, "true"], capture_output=True, check=False)
    if may.returncode:
        pytest.skip(f"cannot mount here: {may.stderr.decode()}")
    fullsendd: list[str | Path] = [sys.executable, "-m", "fullsend_receiver", "--config", receiver.config]
    return subprocess.run(
        [*unshared, script, receiver.store, *fullsendd, *command],
        capture_output=True,
        text=True,
        check=False,
    )
