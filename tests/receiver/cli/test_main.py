"""What happens around every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import PurePosixPath

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, manifest_path, store_stream
from tests.receiver.running import Receiver

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.cli import list_
from fullsend_receiver.store.local import LocalStore


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fullsend_receiver.cli.main import main\nassert main(['--version']) == 0\n"
        "print(sorted({'pydantic', 'uvloop', 'asyncio', 'ssl', 'zstandard'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, heavy = done.stdout.splitlines()
    assert version.startswith("fullsendd ")
    assert heavy == "[]"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["invite"], ["show"], ["init", "--nonsense"]])
def test_wrong_usage_is_2(receiver: Receiver, arguments: list[str]) -> None:
    done = receiver.fullsendd(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "fullsendd" in done.stderr


def test_with_debug_there_is_a_traceback(receiver: Receiver) -> None:
    done = receiver.fullsendd("--debug", "revoke", "nobody")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "alpha/tank/plain@s1"], ["cat"], ["check"]])
def test_output_that_goes_nowhere_is_no_success(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], command: list[str]
) -> None:
    receiver, full, _incr = filled
    name = [str(full)] if command == ["cat"] else []
    with open("/dev/full", "wb") as nowhere:
        done = receiver.fullsendd(*command, *name, capture_output=False, stdout=nowhere, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "fullsendd: stdout cannot be written: No space left on device\n")


def test_a_name_of_any_language_is_printed_anywhere(receiver: Receiver) -> None:
    raw = streams.substream(name="tank/Bücher 本@heute")
    store_stream(LocalStore(receiver.store), SENDER, raw)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = receiver.fullsendd("list", env=ascii_only)
    assert done.returncode == 0
    assert "alpha/tank/B\\xfccher \\u672c@heute" in done.stdout
    done = receiver.fullsendd("list", "--json", env=ascii_only, encoding="utf-8")
    assert json.loads(done.stdout)["dataset"] == "tank/Bücher 本"


def test_what_a_manifest_says_does_not_write_on_the_terminal(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    file = store_stream(store, SENDER, streams.substream(name="tank/\x1b[2J@now"))
    for command in (["list"], ["show", str(file)], ["verify"], ["check"]):
        done = receiver.fullsendd(*command)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
    path = manifest_path(store, file)
    path.write_bytes(path.read_bytes().replace(b"tank/\\u001b", b"tank/\\u001b\\u0007"))
    done = receiver.fullsendd("verify")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (LookupError("sur\x1bprise"), 1, r"LookupError: sur\x1bprise (--debug shows more)"),
        (
            OSError(28, "No space left on device", "/x"),
            1,
            "the store is full (No space left on device): free space on the receiver",
        ),
        (UsageError("wrong\x1b"), 2, r"wrong\x1b"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_happens_is_one_line(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(_options: object) -> int:
        raise error

    monkeypatch.setattr(list_, "run", fail)
    done = receiver.fullsendd("list")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"fullsendd: {line}\n")
