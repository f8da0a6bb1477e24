"""The Ceph that tests/s3/run has started: kill parts of it, and rule it as its operator does."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest
from tests import streams
from tests.receiver.buckets import gateways

#: Empty with an object store that was there before, or that is no Ceph.
_FOLDER: Final = os.environ.get("FULLSEND_TEST_CEPH", "")
#: Its parts that may be killed.
GATEWAYS: Final = ("client.rgw.1", "client.rgw.2")
OSD: Final = "osd.0"

#: Whether the object store is the Ceph that tests/s3/ceph-start has started.
IS_CEPH: Final = bool(_FOLDER)

#: For tests that kill or rule it. They are also marked `alone`.
needs_ceph = pytest.mark.skipif(
    bool(gateways()) and not _FOLDER, reason="FULLSEND_TEST_CEPH does not name the folder of tests/s3/ceph-start"
)


def restart(*names: str) -> None:
    """Kill parts of it at once, and start them again."""
    subprocess.run([streams.ROOT / "tests/s3/ceph-restart", _FOLDER, *names], check=True, timeout=300)


def cut_off_mount(number: int) -> None:
    """Kill the client of a mount of the CephFS, as if its host had lost its power."""
    process = int(Path(_FOLDER, "run", f"fuse-{number}.pid").read_text(encoding="ascii"))
    os.kill(process, signal.SIGKILL)


def rule(program: str, *arguments: str) -> bytes:
    """Run `radosgw-admin`, or `ceph`. Returns: its output."""
    conf = str(Path(_FOLDER, "ceph.conf"))
    done = subprocess.run(
        [program, *arguments], env={**os.environ, "CEPH_CONF": conf}, capture_output=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
