"""`fullsend get`: files out of a stored snapshot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.cli import arguments, file_question

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend get --tar tank/home@monday /anna/thesis.tex | tar -x -C /tmp/back
  fullsend get --tar tank/home@monday / --name '*.jpg' > photos.tar"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "give back files of a stored snapshot as a tar archive, without a restore"
    sub = arguments.command(commands, "get", run, text, _EXAMPLES)
    file_question.add_snapshot(sub)
    sub.add_argument("--tar", action="store_true", required=True, help="write a tar archive to stdout")
    sub.add_argument("--special", action="store_true", help="devices and fifos, too")
    sub.add_argument("--setuid", action="store_true", help="keep setuid and setgid bits")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Give back. Returns: the exit code, FAILED if something is not as it was.

    Raises: FullsendError, BrokenPipeError.
    """
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("an archive is binary: pipe it into `tar -x`, or into a file")
    if not args.paths and not args.name:
        raise UsageError("name the files, or / for all of them")
    return file_question.ask(args, "tar", special=args.special, setuid=args.setuid)
