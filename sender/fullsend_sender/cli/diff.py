"""`fullsend diff`: what has changed between two stored snapshots."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fullsend_sender.cli import arguments, file_question

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend diff tank/home@monday @friday                          what was done in that week
  fullsend diff -FH --prefix /home tank/home@monday @friday       as `zfs diff -FH` prints it"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "show which files differ between two stored snapshots, as `zfs diff` does"
    sub = arguments.command(commands, "diff", run, text, _EXAMPLES)
    sub.add_argument("stream", metavar="STREAM", help="the older: DATASET@SNAPSHOT, or another name that `list` shows")
    sub.add_argument("other", metavar="STREAM2", help="the newer one; @SNAPSHOT is of the same dataset")
    sub.add_argument("-F", "--types", action="store_true", help="a column with the type: F / @ | = B C")
    sub.add_argument("-H", "--script", action="store_true", help="for programs: a tab instead of ' -> '")
    sub.add_argument("--prefix", default="", metavar="DIR", help="put this before each path, such as the mountpoint")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Compare. Returns: the exit code. Raises: FullsendError, BrokenPipeError."""
    from fullsend_sender.restore.files import difference

    wanted = difference(
        args.stream,
        args.other,
        prefix=os.fsencode(args.prefix),
        as_json=args.json,
        types=args.types,
        script=args.script,
    )
    return file_question.ask(args, wanted)
