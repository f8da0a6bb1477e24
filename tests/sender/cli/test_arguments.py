"""What the words of several commands have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.arguments import Parser

if TYPE_CHECKING:
    from collections.abc import Callable


def parsed(*words: str, **defaults: object) -> argparse.Namespace:
    """What a program of one command makes of these words; each of ours is one of its own."""
    parser = Parser(prog="fullsend", parents=[arguments.everywhere()])
    parser.set_defaults(config="default", debug=False, verbose=False, log_format=None)
    commands = parser.add_subparsers(required=True)
    sub = arguments.command(commands, "do", lambda args: len(args.config), "does it", "  fullsend do")
    sub.set_defaults(**defaults)
    for add in (
        *(arguments.receiver, arguments.retry_for, arguments.exclude),
        *(arguments.dry_run, arguments.progress),
    ):
        add(sub)
    sub.add_argument("--size", type=arguments.size)
    sub.add_argument("--age", type=arguments.duration)
    return parser.parse_args(words)


def test_what_is_not_said() -> None:
    args = parsed("do")
    assert (args.receiver, args.retry_for, args.exclude, args.dry_run, args.progress) == (None, None, [], False, None)
    assert args.run(args) == len("default")


def test_what_is_said() -> None:
    args = parsed(
        *("do", "--receiver", "nas", "--retry-for", "1h", "--exclude", "a", "--exclude", "b", "-n"),
        *("--progress", "never", "--size", "1K", "--age", "2m"),
    )
    assert (args.receiver, args.retry_for, args.exclude, args.dry_run) == ("nas", "1h", ["a", "b"], True)
    assert (args.progress, args.size, args.age) == ("never", 1024, 120.0)


@pytest.mark.parametrize("words", [["--config", "x", "-v", "do"], ["do", "--config", "x", "-v"]])
def test_before_and_after_the_command(words: list[str]) -> None:
    args = parsed(*words)
    assert (args.config, args.verbose, args.debug, args.log_format) == ("x", True, False, None)


@pytest.mark.parametrize(("troubled", "code"), [(None, Exit.USAGE), (3, 3)])
def test_wrong_words_are_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], troubled: int | None, code: int
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("do", "--progress", "fast", troubled=troubled)
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("fullsend: argument --progress: invalid choice: 'fast'")
    assert said.endswith(" (see fullsend do --help)\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("read", "says"), [(arguments.size, "'big' is not a size"), (arguments.duration, "'big' is not a duration")]
)
def test_what_is_wrong_is_told_in_our_words(read: Callable[[str], float], says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        read("big")


@pytest.mark.parametrize("wrong", ["tank/secrets/", "/tank/secrets"])
def test_an_exclusion_that_can_match_nothing_is_refused(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    """Shells complete a name with a slash. What was to stay at home was sent."""
    with pytest.raises(SystemExit) as ended:
        parsed("do", "--exclude", wrong)
    assert ended.value.code == Exit.USAGE
    assert capsys.readouterr().err.startswith(f"fullsend: argument --exclude: {wrong!r} is not a name or pattern of")


def test_help_has_the_examples_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("do", "--help")
    assert "\nexamples:\n  fullsend do\n" in capsys.readouterr().out
