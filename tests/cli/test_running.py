"""What every command ends with, whatever happens in it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from fullsend_cli.output import write_line
from fullsend_cli.running import run
from fullsend_protocol.shared.errors import ErrorCode, FullsendError, Interrupted, OutputFailed, PeerError, UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_cli.running import Complain

#: What nobody foresaw is this, for a command that says so.
TROUBLED: Final = 7


def ended(command: Callable[[argparse.Namespace], int], *arguments: str, **defaults: Any) -> tuple[int, list[str]]:
    """The exit code, and the class of each error that was told."""
    told: list[str] = []

    def make_parser() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog="x")
        parser.add_argument("--word")
        parser.set_defaults(run=command, **defaults)
        return parser

    def begin(_options: argparse.Namespace) -> Complain:
        return lambda error: told.append(type(error).__name__)

    return run(make_parser, arguments, begin), told


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def command(_options: argparse.Namespace) -> int:
        raise error

    return command


def test_the_command_has_its_words_and_its_exit_code() -> None:
    assert ended(lambda options: len(options.word), "--word", "four") == (4, [])


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], Exit.OK), (["--no-such-word"], Exit.USAGE)])
def test_what_argparse_has_said_is_all_that_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: Exit
) -> None:
    assert ended(raising(AssertionError("not called")), *arguments) == (code, [])
    assert any(capsys.readouterr())


@pytest.mark.parametrize(
    "error",
    [FullsendError("x"), UsageError("x"), Interrupted("x"), PeerError(ErrorCode.SPACE, "x")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_has_the_exit_code_of_its_class(error: FullsendError) -> None:
    assert ended(raising(error), troubled=TROUBLED) == (error.exit_code, [type(error).__name__])


def test_an_interrupted_command() -> None:
    assert ended(raising(KeyboardInterrupt())) == (Exit.INTERRUPTED, ["KeyboardInterrupt"])


@pytest.mark.parametrize("error", [LookupError("x"), PermissionError("x"), OutputFailed("x")])
def test_what_nobody_foresaw(error: Exception) -> None:
    assert ended(raising(error)) == (Exit.FAILED, [type(error).__name__])
    assert ended(raising(error), troubled=TROUBLED) == (TROUBLED, [type(error).__name__])


def test_a_reader_that_has_enough_is_no_success_and_needs_no_word() -> None:
    assert ended(raising(BrokenPipeError())) == (Exit.FAILED, [])
    assert ended(raising(BrokenPipeError()), troubled=TROUBLED) == (TROUBLED, [])


def test_what_is_in_the_buffer_at_the_end_is_written_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_options: argparse.Namespace) -> int:
        write_line("a result")
        return Exit.OK

    silenced: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _from, to: silenced.append(to))
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert ended(command) == (Exit.FAILED, ["OutputFailed"])
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed
    assert silenced == [1]


def test_the_interpreter_has_no_exit_code_of_its_own() -> None:
    """It exits with 120 where it cannot write what the buffer of stdout holds."""
    code = (
        "import argparse, sys\n"
        "from fullsend_cli.output import write_line\n"
        "from fullsend_cli.running import run\n"
        "from fullsend_protocol.shared.errors import UsageError\n"
        "def command(options):\n    write_line('a result')\n    raise UsageError('wrong')\n"
        "def make_parser():\n"
        "    parser = argparse.ArgumentParser()\n    parser.set_defaults(run=command)\n    return parser\n"
        "sys.exit(run(make_parser, [], lambda options: lambda error: print(error, file=sys.stderr)))\n"
    )
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False, env=buffered
        )
    assert (done.returncode, done.stderr) == (Exit.USAGE, b"wrong\n")


def test_the_interpreter_searches_nothing_for_cycles_at_its_end() -> None:
    """It would free the cycle, and the model classes of a real command take a tenth of the time of its start."""
    code = (
        "import argparse, os\n"
        "from fullsend_cli.running import run\n"
        "class Node:\n    def __del__(self, write=os.write):\n        write(1, b'freed')\n"
        "def command(options):\n    node = Node()\n    node.itself = node\n    return 0\n"
        "def make_parser():\n"
        "    parser = argparse.ArgumentParser()\n    parser.set_defaults(run=command)\n    return parser\n"
        "run(make_parser, [], lambda options: print)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b""
