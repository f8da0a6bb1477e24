"""`fullsend status`; what it judges is in tests/sender/test_status.py."""

from __future__ import annotations

import json

import pytest
from tests.sender.command import AWAY, Fullsend, here

from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_sender.cli.status import UNKNOWN


def test_the_exit_code_is_that_of_nagios() -> None:
    assert NagiosState(UNKNOWN) is NagiosState.UNKNOWN


async def test_a_receiver_that_is_away_is_told_on_stdout(fullsend: Fullsend) -> None:
    ended = await fullsend(AWAY, "status")
    assert (ended.code, ended.err) == (3, "")
    assert ended.out.startswith(b"UNKNOWN: ")
    assert ended.out.count(b"\n") == 1
    ended = await fullsend(AWAY, "status", "--json")
    assert (ended.code, json.loads(ended.out)["state"]) == (3, "UNKNOWN")


def test_wrong_words_are_unknown_too(capsys: pytest.CaptureFixture[str]) -> None:
    ended = here(capsys, "status", "--max-age", "soon")
    assert ended.code == 3
    assert "argument --max-age: 'soon' is not a duration" in ended.line
