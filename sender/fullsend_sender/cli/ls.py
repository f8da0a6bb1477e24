"""`fullsend ls`: the files of a stored snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_sender.cli import arguments, file_question

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser
    from fullsend_sender.restore.files import Form

_EXAMPLES: Final = """\
  fullsend ls -l tank/home@monday /anna           what that directory had on Monday
  fullsend ls tank/home@monday --name '*.tex'     all files with such a name
  fullsend ls -R --json tank/home@monday          all files, with all that is known"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = arguments.command(commands, "ls", run, "list the files of a stored snapshot, which stays stored", _EXAMPLES)
    file_question.add_snapshot(sub)
    sub.add_argument("-l", "--long", action="store_true", help="mode, links, owner, size and time, too")
    sub.add_argument("-R", "--recursive", action="store_true", help="all below; --name means it, too")
    sub.add_argument("--json", action="store_true", help="one JSON object a line, with all that is known")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """List. Returns: the exit code. Raises: FullsendError, BrokenPipeError."""
    form: Form = "json" if args.json else "long" if args.long else "names"
    return file_question.ask(args, file_question.files_wanted(args, form, recursive=args.recursive))
