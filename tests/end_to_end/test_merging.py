"""The daemon merges after its daily prune, in a process of its own, while senders push and read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.chains import named as chain_named
from tests.programs import Receiver, Sender, good, started, wait_for

from fullsend_protocol.shared.units import format_time

if TYPE_CHECKING:
    from pathlib import Path

POLICY = (
    'rebase-after = "0%"\nwhen-suspicious = "prune"\n[retention]\nlast = 0\nminimum-count = 0\nminimum-age = "0s"\n'
)
CHAIN = chain_named("t1-plain")


def kept(tmp_path: Path) -> tuple[Receiver, Sender]:
    """A receiver that has a chain, and prunes at once when it starts."""
    receiver = Receiver(tmp_path / "receiver", inside=True)
    receiver.init()
    sender = Sender(tmp_path / "sender", "alpha")
    with started(receiver):
        sender.join(receiver)
        for _name, raw in CHAIN.run(None, 3):
            sender.push("--stdin", stdin=raw)
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write(POLICY)
    before = {"format": 1, "at": format_time(time.time() - 3 * 86400), "refused": None}
    (receiver.store / ".state" / "prune.json").write_text(json.dumps(before))
    good(receiver.fullsendd("clock", "--accept"))  # a prune waits for no time server then
    return receiver, sender


@pytest.mark.slow
def test_the_daemon_merges_after_its_prune(tmp_path: Path) -> None:
    receiver, sender = kept(tmp_path)
    with started(receiver):
        wait_for(lambda: len(sender.list()) == 3)
        full, *_rest = sender.list()
        assert full["sha256"] == CHAIN.genuine(None, 1)
        assert hashlib.sha256(good(sender.fullsend("cat", full["file"]))).hexdigest() == full["sha256"]
        # What is stored may be pushed once more.
        sender.push("--stdin", stdin=CHAIN.run(2, 3)[0][1])
        assert len(sender.list()) == 3
        good(sender.fullsend("verify"))
        wait_for(lambda: "merge and move the full: alpha/src/plain" in receiver.log.read_text())
    assert "merges: " not in receiver.log.read_text()


@pytest.mark.slow
def test_a_merge_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    receiver, sender = kept(tmp_path)
    config = receiver.folder / "receiver.toml"
    config.write_text('merge-rate = "20K"\n' + config.read_text())  # it takes some seconds, and waits amid them
    with started(receiver):
        # Of a journal without a line nobody knows that it is a merge's: it stays until the next start.
        wait_for(lambda: any(_size(path) for path in (receiver.store / ".partial").glob("*.journal")))
        pid = _merging(receiver)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "merges: the process has ended with -9" in receiver.log.read_text())
        wait_for(lambda: not list((receiver.store / ".partial").iterdir()))
        assert len(sender.list()) == 4
        good(sender.fullsend("verify"))


def _merging(receiver: Receiver) -> int | None:
    """The process that merges for this daemon."""
    assert receiver.process is not None
    tasks = f"/proc/{receiver.process.pid}/task"
    found = [line.split() for task in os.listdir(tasks) for line in _read(f"{tasks}/{task}/children")]
    return next((int(pid) for pids in found for pid in pids), None)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.readlines()
    except FileNotFoundError:
        return []
