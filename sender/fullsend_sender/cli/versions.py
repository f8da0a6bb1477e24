"""`fullsend versions`: one path in all stored snapshots of a dataset."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fullsend_sender.cli import arguments, file_question

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend versions tank/home /anna/thesis.tex             in which snapshots it is, and where it differs
  fullsend versions --last 7 tank/home /anna/thesis.tex    in the newest seven snapshots"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "show a file's versions in all stored snapshots of a dataset"
    sub = arguments.command(commands, "versions", run, text, _EXAMPLES)
    sub.add_argument("dataset", metavar="DATASET", help="as `list` shows it")
    sub.add_argument("path", metavar="PATH", help="from the root of the dataset")
    sub.add_argument("--last", type=int, default=0, metavar="N", help="only the newest N snapshots")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Show. Returns: the exit code. Raises: FullsendError, BrokenPipeError."""
    from fullsend_sender.restore.files import versions

    wanted = versions(args.dataset, os.fsencode(args.path), as_json=args.json, last=args.last)
    return file_question.ask(args, wanted)
