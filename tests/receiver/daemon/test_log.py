from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import pytest

_SPEAK = """
import logging, sys
from fullsend_receiver.daemon import log as logs
logs.set_up(sys.argv[1], verbose=len(sys.argv) > 2)
log = logging.getLogger("fullsendd")
log.debug("a detail")
log.info("%s: stored %s", "alpha", "a stream")
try:
    raise ValueError("why")
except ValueError:
    log.exception("a bug")
"""


def _speak(log_format: Literal["text", "json"], *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SPEAK, log_format, *arguments], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == ""
    return done.stderr


def test_text_lines_carry_time_level_and_message() -> None:
    first, *rest = _speak("text").splitlines()
    assert first[4] == first[7] == "-"
    assert first.endswith("Z INFO: alpha: stored a stream")
    assert rest[0].endswith("ERROR: a bug")
    assert rest[-1] == "ValueError: why"


def test_the_journal_stamps_lines_itself() -> None:
    assert _speak("text", JOURNAL_STREAM="8:1").startswith("INFO: alpha: stored a stream\n")


def test_json_is_one_object_a_line_the_traceback_within() -> None:
    info, error = (json.loads(line) for line in _speak("json").splitlines())
    assert (info["level"], info["message"]) == ("info", "alpha: stored a stream")
    assert info["time"].endswith("Z")
    assert error["level"] == "error"
    assert error["traceback"].endswith("ValueError: why")


_EVENT = """
import sys
from fullsend_receiver.daemon import log as logs
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import SenderRevoked
logs.set_up(sys.argv[1], verbose=False)
emit(SenderRevoked(text="alpha: revoked", sender="alpha"))
"""


def test_an_event_has_its_fields_in_json_and_its_text_in_text() -> None:
    def said(log_format: str) -> str:
        command = [sys.executable, "-c", _EVENT, log_format]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    entry = json.loads(said("json"))
    assert (entry["message"], entry["event"], entry["sender"]) == ("alpha: revoked", "sender-revoked", "alpha")
    assert (entry["version"], entry["level"]) == (1, "info")
    assert "text" not in entry
    assert said("text").endswith("INFO: alpha: revoked\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_details_are_for_those_who_ask(log_format: Literal["text", "json"]) -> None:
    assert "a detail" not in _speak(log_format)
    assert "a detail" in _speak(log_format, "verbose")
