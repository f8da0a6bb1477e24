"""`fullsendd hooks` beside a real daemon: what happens there reaches a hook."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import streams
from tests.receiver.command import fails, read_only_process
from tests.receiver.peer import chunks, control, finish, offer
from tests.receiver.running import Receiver, serving, wait_until

RAW = streams.substream()


#: `fullsendd`, without patience with a store that is away.
IMPATIENT = """
import sys
from fullsend_receiver.cli import hook_running, main
hook_running.PATIENCE, hook_running.EVERY = 0.0, 0.05
hook_running.Outage.look_for_hang = lambda outage: None  # without patience each disk would seem to hang
sys.exit(main.main())
"""


@contextlib.contextmanager
def started(receiver: Receiver, *program: str) -> Iterator[subprocess.Popen[bytes]]:
    """`fullsendd hooks`, as it starts. It ends well."""
    log = receiver.folder / "hooks.log"
    with log.open("ab") as file:
        command = [sys.executable, *(program or ("-m", "fullsend_receiver")), "--config", str(receiver.config), "hooks"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0, log.read_text(encoding="utf-8")
        assert "Traceback" not in log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def hooks(receiver: Receiver) -> Iterator[subprocess.Popen[bytes]]:
    """`fullsendd hooks`, once it follows the journal."""
    with started(receiver) as process:
        place = receiver.store / ".state" / "hooks.on-success.json"
        wait_until(place.exists, "it has a place")
        yield process


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with serving(tmp_path / "receiver", "alpha") as receiver:
        yield receiver


def noted(receiver: Receiver, *keys: str) -> Path:
    """Write a hook that notes what it reads, for these keys. Returns: its file."""
    file = receiver.folder / "noted"
    lines = [f"{key} = {json.dumps(['sh', '-c', f'cat >>{file}'])}\n" for key in keys]
    with receiver.config.open("a", encoding="utf-8") as config:
        config.writelines(["[hooks]\n", *lines])
    return file


def said(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def test_a_push_reaches_its_hook_and_a_failed_one_the_other(receiver: Receiver) -> None:
    file = noted(receiver, "on-success", "on-failure")
    with hooks(receiver):
        with receiver.peer() as peer:
            peer.give(RAW)
        wait_until(lambda: len(said(file)) == 1, "the hook is run")
        with receiver.peer() as peer:
            peer.push(offer(snapshot="other"))
            for chunk in chunks([RAW]):
                peer.write(chunk.encode())
            peer.write(control(finish(RAW)))
            assert "tank/data@other was offered" in peer.refusal()
        wait_until(lambda: len(said(file)) == 2, "the other hook is run")
    event, failed = said(file)
    assert (failed["event"], failed["hook"], failed["snapshot"]) == ("push-failed", "on-failure", "other")
    assert "tank/data@other was offered" in failed["why"]
    assert (event["event"], event["hook"], event["sender"]) == ("received", "on-success", "alpha")
    assert event["raw_bytes"] == len(RAW)


def test_a_second_one_is_refused(receiver: Receiver) -> None:
    noted(receiver, "on-success")
    with hooks(receiver):
        fails(receiver.fullsendd("hooks", cwd="/"), 1, "another `fullsendd hooks` runs for this store")


def test_a_store_that_is_away_at_the_start_is_told_and_followed_when_it_is_back(receiver: Receiver) -> None:
    """As after a reboot: no daemon runs either."""
    file = noted(receiver, "on-success", "on-failure")
    receiver.stop()
    marker = receiver.store / ".fullsend"
    away = marker.rename(receiver.folder / "marker")
    with started(receiver, "-c", IMPATIENT):
        wait_until(lambda: len(said(file)) == 1, "somebody is told")
        away.rename(marker)
        wait_until(lambda: len(said(file)) == 2, "somebody is told again")
        wait_until((receiver.store / ".state" / "hooks.on-success.json").exists, "the hook has a place")
        receiver.start()
        with receiver.peer() as peer:
            peer.give(RAW)
        wait_until(lambda: len(said(file)) == 3, "the push is heard")
    gone, back, event = said(file)
    assert (gone["event"], gone["hook"]) == ("store-away", "on-failure")
    assert f"{receiver.store}: no store here" in gone["why"]
    assert (back["event"], event["event"]) == ("store-back", "received")


def test_a_store_that_is_read_only_at_the_start_is_told(receiver: Receiver) -> None:
    """Also where no process has run its hooks before, so that nothing can be locked."""
    file = noted(receiver, "on-failure")
    receiver.stop()
    inside = [sys.executable, "-c", IMPATIENT, "--config", str(receiver.config), "hooks"]
    with read_only_process(receiver, inside) as process:
        wait_until(lambda: len(said(file)) == 1, "somebody is told")
        (event,) = said(file)
        assert (event["event"], "mounted read-only" in event["why"]) == ("store-away", True)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    (receiver.store / ".state" / "hooks.lock").touch()
    file.unlink()
    with read_only_process(receiver, inside):
        wait_until(lambda: len(said(file)) == 1, "somebody is told")
        assert "mounted read-only" in said(file)[0]["why"]


def test_a_wrong_configuration_is_not_waited_for(receiver: Receiver) -> None:
    noted(receiver, "on-success")
    receiver.stop()
    (receiver.store / ".fullsend").unlink()
    receiver.set(nonsense=1)
    fails(receiver.fullsendd("hooks", cwd="/"), 2, "nonsense")


def test_without_a_hook_there_is_nothing_to_do(receiver: Receiver) -> None:
    fails(receiver.fullsendd("hooks", cwd="/"), 2, "no hook is configured")


def test_a_changed_file_counts_at_once_and_a_wrong_one_does_not(receiver: Receiver) -> None:
    file = noted(receiver, "on-success")
    before = receiver.config.read_text(encoding="utf-8")
    log = receiver.folder / "hooks.log"
    with hooks(receiver):
        receiver.config.write_text(before + "nonsense\n", encoding="utf-8")
        wait_until(lambda: "the hooks stay as they were" in log.read_text(), "it says so")
        receiver.config.write_text(before.replace("noted", "others"), encoding="utf-8")
        with receiver.peer() as peer:
            peer.give(RAW)
        others = file.with_name("others")
        wait_until(lambda: bool(said(others)), "the new hook is run")
    assert said(file) == []


def test_a_test_runs_a_hook_once(receiver: Receiver) -> None:
    file = noted(receiver, "on-late")
    done = receiver.fullsendd("hooks", "--test", "on-late")
    assert (done.returncode, done.stderr) == (0, "on-late: succeeded\n")
    (event,) = said(file)
    assert (event["event"], event["hook"]) == ("test", "on-late")
    fails(receiver.fullsendd("hooks", "--test", "on-damage"), 2, "no on-damage in its table [hooks]")
    fails(receiver.fullsendd("hooks", "--test", "on-fire"), 2, "there are on-success")


def test_a_test_of_a_hook_that_fails_says_so(receiver: Receiver) -> None:
    with receiver.config.open("a", encoding="utf-8") as config:
        config.write('[hooks]\non-late = "false"\n')
    fails(receiver.fullsendd("hooks", "--test", "on-late"), 1, "`false` has failed: exit code 1")
