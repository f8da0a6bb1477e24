"""Both programs where stdout is full or closed, or stderr is: what they cannot say is no success."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests import streams
from tests.programs import Receiver, Sender, environment, good

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
