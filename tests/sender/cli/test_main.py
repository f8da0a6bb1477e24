"""What happens around every command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.sender.command import AWAY, here

from fullsend_protocol import __version__
from fullsend_sender.cli import list_
from fullsend_sender.host.options import Endpoint


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fullsend_sender.cli.main import main; main(['--version']);"
        "print([name for name in ('pydantic', 'asyncio', 'uvloop', 'zstandard', 'ssl') if name in sys.modules])"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env)
    assert done.stdout.decode().splitlines() == [f"fullsend {__version__}", "[]"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see fullsend --help)"),
        (["frob"], "invalid choice: 'frob'"),
        (["push", "--stdin", "tank/a"], "--stdin takes the stream as it comes"),
        (["push", "--stdin", "--size", "big"], "argument --size: 'big' is not a size"),
        (["list", "--config", "/nowhere/sender.toml"], "/nowhere/sender.toml is missing: make it with `fullsend join"),
        (["join", "--config", "/nowhere/sender.toml", "x"], "this is not a whole invitation"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    ended = here(capsys, *arguments)
    assert ended.code == 2
    assert ended.line.startswith("fullsend: ")
    assert message in ended.line


@pytest.mark.parametrize(
    "arguments", [["--config", "/nowhere/x.toml", "--log-format", "json", "list"], ["list", "--log-format", "json"]]
)
def test_common_options_before_and_after_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("FULLSEND_CONFIG", "/nowhere/x.toml")
    assert "/nowhere/x.toml is missing" in json.loads(here(capsys, *arguments).err)["message"]


def test_log_format_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLSEND_LOG_FORMAT", "json")
    assert json.loads(here(capsys, "list", "--config", "/nowhere/x").err)["level"] == "error"


@pytest.mark.parametrize("debug", [False, True])
def test_even_a_bug_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def fail(args: object) -> int:
        raise LookupError("surprise")

    monkeypatch.setattr(list_, "run", fail)
    ended = here(capsys, *(["--debug"] if debug else []), "list")
    assert ended.code == 1
    assert ended.err.startswith("fullsend: LookupError: surprise (--debug shows more)\n")
    assert ("Traceback" in ended.err) is debug


def test_interrupted_before_anything_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(list_, "run", interrupt)
    ended = here(capsys, "list")
    assert (ended.code, ended.line) == (130, "fullsend: interrupted by SIGINT")


@pytest.mark.parametrize(("closed", "arguments"), [(0, ["push", "--stdin"]), (1, ["cat", "x"])])
async def test_closed_descriptors_are_refused(
    config: Callable[[Endpoint], str], closed: int, arguments: list[str]
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", f'exec "$@" {closed}<&-', "sh", sys.executable, "-m", "fullsend_sender", *arguments],
        env={**os.environ, "FULLSEND_CONFIG": config(AWAY)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"is not a pipe" in done.stderr


def test_terminals_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "stdin is not a pipe" in here(capsys, "push", "--stdin").line
    assert "a send stream is binary" in here(capsys, "cat", "x").line
