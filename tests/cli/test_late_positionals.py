"""Positionals behind options."""

from __future__ import annotations

import pytest

from fullsend_cli.late_positionals import LATE, LateParser


def parser() -> LateParser:
    made = LateParser(prog="x")
    commands = made.add_subparsers(required=True)
    late = commands.add_parser("ls")
    late.add_argument("stream")
    late.add_argument("paths", nargs="*")
    late.add_argument("-l", action="store_true")
    late.add_argument("--name", action="append", default=[])
    late.set_defaults(**{LATE: "paths"})
    plain = commands.add_parser("plain")
    plain.add_argument("paths", nargs="*")
    plain.add_argument("-l", action="store_true")
    return made


@pytest.mark.parametrize(
    ("line", "paths", "names"),
    [
        ("s", [], []),
        ("s a b", ["a", "b"], []),
        ("-l s a", ["a"], []),
        ("s -l a b", ["a", "b"], []),
        ("s a -l b", ["a", "b"], []),
        ("s a -l b --name n c", ["a", "b", "c"], ["n"]),
        ("s --name=-n -l a", ["a"], ["-n"]),
        ("s -l -", ["-"], []),
        ("s -l -- -a -l", ["-a", "-l"], []),
        ("s -l a -- -b", ["a", "-b"], []),
        ("-l -- s -a b", ["-a", "b"], []),
        ("s -- -a", ["-a"], []),
        ("s a --name n -- a", ["a", "a"], ["n"]),
    ],
)
def test_paths(line: str, paths: list[str], names: list[str]) -> None:
    found = parser().parse_args(["ls", *line.split()])
    assert (found.stream, found.paths, found.name) == ("s", paths, names)


@pytest.mark.parametrize(
    "line", ["ls", "ls s -x", "ls s -l a -x", "ls s --nothing a", "plain a -l b", "ls s -l -x -- a"]
)
def test_what_is_unknown_stays_so(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(line.split())
    assert "required" in capsys.readouterr().err or line != "ls"
