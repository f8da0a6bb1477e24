"""What a test of a command says of how it ended, and does to the store."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
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


def read_only(receiver: Receiver, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command where the store, or another folder, is mounted read-only. Skips the test where we may not mount."""
    fullsendd = [sys.executable, "-m", "fullsend_receiver", "--config", str(receiver.config)]
    return subprocess.run(
        [*_read_only(folder or receiver.store), *fullsendd, *command], capture_output=True, text=True, check=False
    )


@contextlib.contextmanager
def read_only_process(receiver: Receiver, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program where the store is mounted read-only, and kill it afterwards. Skips the test as `read_only`."""
    with subprocess.Popen([*_read_only(receiver.store), *command], stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _read_only(folder: Path) -> list[str]:
    """Return what runs a command where a folder is mounted read-only, as in a sandbox: its file system is not. Skips
    the test where we may not mount.
    """
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(folder)]
    may = subprocess.run([*inside, "true"], capture_output=True, check=False)
    if may.returncode:
        pytest.skip(f"cannot mount here: {may.stderr.decode()}")
    return inside
