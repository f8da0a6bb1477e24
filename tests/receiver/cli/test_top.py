"""`fullsendd top` without a terminal. With one: tests/end_to_end/test_top.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.receiver.helpers import SENDER
from tests.receiver.peer import offer
from tests.receiver.running import Receiver, serving

from fullsend_receiver.cli import asking


def test_what_is_under_way_is_printed_once(tmp_path: Path) -> None:
    with serving(tmp_path, SENDER) as receiver, receiver.peer() as peer:
        peer.push(offer(dataset="tank/live"))
        done = receiver.fullsendd("top")
        assert (done.returncode, done.stderr) == (0, "")
        title, _empty, heading, row = done.stdout.splitlines()
        assert title == f"fullsendd top: {receiver.store}"
        assert heading.startswith("ACTIVITY  SENDER")
        assert row.split()[:3] == ["push", SENDER, "tank/live@now"]
        done = receiver.fullsendd("top", "--json", "--once")
        (found,) = json.loads(done.stdout)["transfers"]
        assert (found["sender"], found["stream"], found["limit"]) == (SENDER, "tank/live@now", "unknown")


def test_a_name_cannot_control_the_terminal(tmp_path: Path) -> None:
    with serving(tmp_path, SENDER) as receiver, receiver.peer() as peer:
        peer.push(offer(dataset="tank/\x1b[2J\x07", snapshot="\r\n\u202ex"))
        done = receiver.fullsendd("top")
        assert "tank/\\x1b[2J\\x07@\\r\\n\\u202ex" in done.stdout
        assert all(line.isprintable() for line in done.stdout.splitlines())


def test_a_daemon_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(tmp_path)
    receiver.init()

    def connect(_store: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(asking, "connect", connect)
    done = receiver.fullsendd("top")
    assert (done.returncode, "the daemon does not answer: timed out" in done.stdout) == (1, True)
