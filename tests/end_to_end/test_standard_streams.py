"""Both programs where stdout is full or closed, or stderr is: what they cannot say is no success."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests import streams
from tests.fakezfs import FakeZfs
from tests.programs import Receiver, Sender, environment, good, serving

FULL = "stdout cannot be written: No space left on device"
CLOSED = "stdout is closed, so there is no place for the result"


def ended(side: Receiver | Sender, redirection: str, *arguments: str) -> tuple[int, str]:
    """Run a command with this redirection. Returns: its exit code, and what it said on stderr."""
    module = "fullsend_sender" if isinstance(side, Sender) else "fullsend_receiver"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", module, *arguments],
        env=environment(False, **side.env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


@pytest.fixture
def pair(receiver: Receiver, sender: Sender) -> tuple[Receiver, Sender]:
    raw = streams.substream(streams.object_(1), streams.write(1, 0, os.urandom(512)))
    good(sender.fullsend("push", "--stdin", stdin=raw))
    return receiver, sender


@pytest.mark.parametrize(("redirection", "says"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_a_result_that_has_no_place_is_a_failure_of_stdout(
    pair: tuple[Receiver, Sender], redirection: str, says: str
) -> None:
    receiver, sender = pair
    for side, name, arguments in (
        (sender, "fullsend", ["list"]),
        (sender, "fullsend", ["list", "--json"]),
        (receiver, "fullsendd", ["list"]),
        (receiver, "fullsendd", ["senders"]),
    ):
        code, said = ended(side, redirection, *arguments)
        assert (code, said) == (1, f"{name}: {said.removeprefix(f'{name}: ')}")
        assert said.count("\n") == 1
        assert says in said


def test_a_stream_that_stdout_has_no_room_for(pair: tuple[Receiver, Sender]) -> None:
    receiver, sender = pair
    assert ended(sender, ">/dev/full", "cat", "tank/data@now") == (1, f"fullsend: {FULL}\n")
    assert ended(receiver, ">/dev/full", "cat", f"{sender.name}/tank/data@now") == (1, f"fullsendd: {FULL}\n")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_status_that_cannot_be_said_is_unknown(pair: tuple[Receiver, Sender], redirection: str) -> None:
    code, _said = ended(pair[1], redirection, "status")
    assert code == 3


def test_without_stderr_nothing_of_it_goes_to_stdout(pair: tuple[Receiver, Sender]) -> None:
    receiver, sender = pair
    assert ended(sender, "2>&-", "cat", "tank/none@now") == (1, "")
    assert ended(receiver, "2>&-", "show", f"{sender.name}/tank/none@now") == (1, "")
    assert ended(receiver, "0<&- 2>&-", "frobnicate") == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["stdout", "a receiver"])
def test_what_goes_wrong_with_one_receiver_keeps_nothing_from_the_others(tmp_path: Path, wrong: str) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank/a")
    host = Sender(tmp_path / "sender")
    host.folder.mkdir()
    with serving(Receiver(tmp_path / "one")) as one, serving(Receiver(tmp_path / "two")) as two:
        for receiver in (one, two):
            good(host.fullsend("join", receiver.invite("zfshost"), "--as", receiver.folder.name))
        names = ["one", "two"] if wrong == "stdout" else ["one", "misspelt", "two"]
        tables = [f'[[push]]\ndatasets = ["tank/a"]\nreceiver = "{name}"\n' for name in names]
        config = host.folder / "sender.toml"
        text = config.read_text(encoding="utf-8")
        top = f"zfs-command = {json.dumps(fake.program)}\n"
        config.write_text("\n".join([top, text, *tables]), encoding="utf-8")
        code, said = ended(host, ">/dev/full" if wrong == "stdout" else ">/dev/null", "push", "--json")
        assert (code, said.count("\n")) == ((1, 1) if wrong == "stdout" else (2, 1)), said
        assert (FULL if wrong == "stdout" else "no receiver 'misspelt' is configured") in said
        for receiver in (one, two):
            assert [each["dataset"] for each in receiver.list()] == ["tank/a"]


@pytest.mark.slow
def test_a_restore_whose_result_has_no_place_goes_to_its_end(sender: Sender, tmp_path: Path) -> None:
    here, there = FakeZfs.make(tmp_path / "here"), FakeZfs.make(tmp_path / "there")
    there.create("pool")
    names = ["tank", "tank/a", "tank/a/b"]
    for name in names:
        here.create(name)
    config = sender.folder / "sender.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(f"zfs-command = {json.dumps(here.program)}\n{text}", encoding="utf-8")
    good(sender.fullsend("push", "-r", "tank"))
    config.write_text(f"zfs-command = {json.dumps(there.program)}\n{text}", encoding="utf-8")
    assert ended(sender, ">/dev/full", "restore", "-r", "tank", "--into", "pool/t", "--json") == (
        1,
        f"fullsend: {FULL}\n",
    )
    found = there.edit(lambda state: list(state["datasets"]))
    assert {name.replace("tank", "pool/t") for name in names} <= set(found)
