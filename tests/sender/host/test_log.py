from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import pytest

from fullsend_sender.host.log import ESCAPED, configure, log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = log.handlers[:], log.propagate, log.level
    yield
    log.handlers[:], log.propagate, log.level = before


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text", verbose=False)
    log.info("not said")
    logging.getLogger("fullsend.push").warning("name %s", "tank/\x1b[2J")
    assert capsys.readouterr().err == "fullsend: name tank/\\x1b[2J\n"


def test_names_that_are_escaped_already(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text", verbose=False)
    log.error("%s", r"a\n: lost" + "\x1b", extra=ESCAPED)
    log.error("%s", "a\\n")
    assert capsys.readouterr().err == "fullsend: a\\n: lost\\x1b\nfullsend: a\\\\n\n"


def test_verbose_and_configured_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", verbose=False)
    configure("text", verbose=True)
    log.info("said once")
    assert capsys.readouterr().err == "fullsend: said once\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", verbose=True)
    log.info("ü\n\x1b")
    line = capsys.readouterr().err
    entry = json.loads(line)
    assert line.count("\n") == 1
    assert (entry["level"], entry["program"], entry["message"]) == ("info", "fullsend", "ü\n\x1b")
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("style", ["text", "json"])
def test_traceback(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure(style, verbose=False)  # type: ignore[arg-type]
    try:
        os.environ["INSIDE"]
    except KeyError:
        log.exception("outside")
    err = capsys.readouterr().err
    assert "outside" in err
    assert "Traceback" in err
    assert "KeyError: 'INSIDE'" in err


def test_a_terminal_has_its_live_line_cleared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure("text", verbose=False)
    log.warning("line")
    assert capsys.readouterr().err == "\r\x1b[Kfullsend: line\n"
