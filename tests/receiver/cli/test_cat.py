"""`fullsendd cat`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import PurePosixPath

from tests import streams
from tests.receiver.command import damage
from tests.receiver.helpers import SENDER, long_stream, manifest_path, store_stream
from tests.receiver.running import Receiver

from fullsend_receiver.store.local import LocalStore


def test_cat_gives_the_stream_back(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, _incr = filled
    done = subprocess.run(
        [sys.executable, "-m", "fullsend_receiver", "--config", receiver.config, "cat", str(full)],
        capture_output=True,
        check=True,
    )
    assert done.stdout == streams.named("full").read()


def test_a_reader_that_has_enough_is_no_traceback(receiver: Receiver) -> None:
    file = store_stream(LocalStore(receiver.store), SENDER, long_stream(3))
    command = f'"{sys.executable}" -m fullsend_receiver --config "{receiver.config}" cat "$0" | head -c 1'
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}", str(file)], capture_output=True, check=False
    )
    assert (done.returncode, len(done.stdout), done.stderr) == (1, 1, b"")


def test_cat_writes_nothing_of_a_damaged_chunk_or_behind_it(receiver: Receiver) -> None:
    raw = long_stream(3)
    file = store_stream(LocalStore(receiver.store), SENDER, raw)
    size = json.loads(manifest_path(LocalStore(receiver.store), file).read_bytes())["stored_bytes"]
    damage(receiver, file, size // 3)
    done = subprocess.run(
        [sys.executable, "-m", "fullsend_receiver", "--config", receiver.config, "cat", str(file)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert raw.startswith(done.stdout)
    assert len(done.stdout) < len(raw)
    said = done.stderr.decode()
    assert said.count("\n") == 1
    assert file.name in said
    assert "chunk " in said
    assert "raw bytes " in said


def test_a_stream_is_not_written_to_a_terminal(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, _incr = filled
    ours, theirs = os.openpty()
    try:
        done = receiver.fullsendd("cat", str(full), capture_output=False, stdout=theirs, stderr=subprocess.PIPE)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert done.stderr == "fullsendd: a send stream is binary: pipe it into `zfs receive`, or into a file\n"
