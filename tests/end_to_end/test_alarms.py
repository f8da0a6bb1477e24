"""An alarm is told everywhere: by `fullsendd status` and its exit code, in the metrics, on the page, and to a hook."""

from __future__ import annotations

import contextlib
import html
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from tests.receiver.command import damage
from tests.receiver.helpers import SENDER, long_stream, manifest_path, store_stream
from tests.receiver.running import Receiver, wait_until

from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_time
from fullsend_receiver.store.local import LocalStore

DAY = 86400


def stored(receiver: Receiver, *, age: float) -> str:
    """Store a stream that was received so many seconds ago. Returns: its file."""
    store = LocalStore(receiver.store)
    file = store_stream(store, SENDER, long_stream(1, name="tank/data@one", guid=1))
    path = manifest_path(store, file)
    at = format_time(time.time() - age)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"received": at, "created": at}), encoding="utf-8")
    return str(file)


def late(receiver: Receiver) -> None:
    """The sender has stopped three days ago."""
    receiver.set(expect_every="26h")
    stored(receiver, age=3 * DAY)


def damaged(receiver: Receiver) -> None:
    """A byte of a stored stream has changed, and a check has found it."""
    file = stored(receiver, age=3600)
    damage(receiver, PurePosixPath(file), 40)
    assert receiver.fullsendd("verify").returncode


def full(receiver: Receiver) -> None:
    """The disk has less room than must stay free."""
    text = receiver.config.read_text(encoding="utf-8")
    receiver.config.write_text(text.replace("min-free = 0", 'min-free = "99.99%"'), encoding="utf-8")
    stored(receiver, age=3600)


def clock_ahead(receiver: Receiver) -> None:
    """This host's clock was a year ahead when it received a stream, and is right again."""
    stored(receiver, age=-365 * DAY)


def clock_of_the_sender(receiver: Receiver) -> None:
    """A snapshot comes from the future: the clock of its host is a year ahead."""
    file = stored(receiver, age=3600)
    path = manifest_path(LocalStore(receiver.store), PurePosixPath(file))
    ahead = format_time(time.time() + 365 * DAY)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"created": ahead}), encoding="utf-8")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    found = Receiver(tmp_path / "receiver")
    found.init()
    yield found
    if found.process is not None:
        found.stop(signal.SIGKILL)


@contextlib.contextmanager
def following(receiver: Receiver) -> Iterator[None]:
    """`fullsendd hooks`, once it follows the journal."""
    with (receiver.folder / "hooks.log").open("ab") as file:
        command = [sys.executable, "-m", "fullsend_receiver", "--config", str(receiver.config), "hooks"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_until((receiver.store / ".state" / "hooks.on-late.json").exists, "the hooks have a place")
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()


def said(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def without_times(text: str) -> str:
    """Leave out all numbers: some say how long ago something was, and time passes."""
    return re.sub(r"[0-9.]+", "0", text)


@pytest.mark.parametrize(
    ("make", "code", "hook", "state"),
    [
        (late, "late", "on-late", NagiosState.CRITICAL),
        (damaged, "damage", "on-damage", NagiosState.CRITICAL),
        (full, "refusing", "on-low-space", NagiosState.CRITICAL),
        (clock_ahead, "clock", "on-failure", NagiosState.WARNING),
        (clock_of_the_sender, "clock", "on-failure", NagiosState.WARNING),
    ],
)
def test_an_alarm_is_told_everywhere(
    receiver: Receiver, make: Callable[[Receiver], None], code: str, hook: str, state: NagiosState
) -> None:
    metrics, heard = receiver.folder / "fullsend.prom", receiver.folder / "heard"
    receiver.set(metrics_file=str(metrics))
    make(receiver)
    with receiver.config.open("a", encoding="utf-8") as config:
        config.write("[hooks]\n")
        for key in ("on-late", "on-damage", "on-low-space", "on-failure"):
            config.write(f"{key} = {json.dumps(['sh', '-c', f'cat >>{heard}'])}\n")
    with following(receiver):
        receiver.start()
        line = re.compile(rf'^fullsend_alarm\{{[^}}]*code="{code}"[^}}]*\}} 1$', re.MULTILINE)
        wait_until(
            lambda: metrics.exists() and line.search(metrics.read_text(encoding="utf-8")) is not None, "the metrics"
        )
        wait_until(lambda: any(each.get("code") == code for each in said(heard)), f"{hook} is run")
        event = next(each for each in said(heard) if each.get("code") == code)
        assert (event["event"], event["hook"]) == ("alarm-raised", hook)
        status = receiver.fullsendd("status")
        assert status.returncode == state, status.stdout
        told = json.loads(receiver.fullsendd("status", "--json").stdout)
        (alarm,) = (each for each in told["alarms"] if each["code"] == code)
        assert without_times(alarm["text"]) in without_times(status.stdout)
        page = receiver.folder / "page.html"
        assert receiver.fullsendd("report", "--html", page).returncode == 0
        shown = html.unescape(page.read_text(encoding="utf-8"))
        assert without_times(alarm["text"].removeprefix("alpha/tank/data: ")) in without_times(shown)
        receiver.stop()


def test_where_all_is_well_nobody_is_told_anything(receiver: Receiver) -> None:
    metrics, heard = receiver.folder / "fullsend.prom", receiver.folder / "heard"
    receiver.set(metrics_file=str(metrics), expect_every="26h")
    stored(receiver, age=3600)
    with receiver.config.open("a", encoding="utf-8") as config:
        config.write(f"[hooks]\non-late = {json.dumps(['touch', str(heard)])}\n")
    with following(receiver):
        receiver.start()
        wait_until(metrics.exists, "the metrics")
        assert "fullsend_alarm{" not in metrics.read_text(encoding="utf-8")
        status = receiver.fullsendd("status")
        assert status.returncode == NagiosState.OK, status.stdout
        receiver.stop()
    assert not heard.exists()
