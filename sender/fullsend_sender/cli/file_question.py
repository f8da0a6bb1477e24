"""What `ls`, `get`, `diff` and `versions` have in common: the answer of the receiver on stdout."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fullsend_cli.late_positionals import LATE
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse

    from fullsend_protocol.wire.messages import Files, FilesWanted
    from fullsend_sender.cli.arguments import Parser
    from fullsend_sender.restore.files import AnswerTaker, Form, Wanted


def add_snapshot(sub: Parser) -> None:
    """Add the arguments that name a snapshot, and the paths in it."""
    sub.add_argument("stream", metavar="STREAM", help="DATASET@SNAPSHOT, guid:N, or a file name as `list` shows it")
    sub.set_defaults(**{LATE: "paths"})
    sub.add_argument("paths", nargs="*", metavar="PATH", help="a path in the snapshot, from its root")
    sub.add_argument(
        "--name", action="append", default=[], metavar="GLOB", help="only files with such a name, such as '*.txt'"
    )


def files_wanted(
    args: argparse.Namespace, form: Form, *, recursive: bool = False, special: bool = False, setuid: bool = False
) -> FilesWanted:
    """Return the question for what the command line names. Raises: UsageError."""
    from fullsend_sender.restore.files import question

    paths, names = [os.fsencode(each) for each in args.paths], [os.fsencode(each) for each in args.name]
    return question(args.stream, form, paths, names, recursive=recursive, special=special, setuid=setuid)


def ask(args: argparse.Namespace, wanted: Wanted) -> int:
    """Ask, and write the answer to stdout. Returns: the exit code. Raises: FullsendError, BrokenPipeError."""
    from fullsend_cli.output import writing_output
    from fullsend_protocol.shared.errors import OutputFailed

    if sys.stdout is None:
        raise OutputFailed("stdout is closed, so there is no place for the result: redirect it to a file")
    asking = Asking(args, wanted)
    with writing_output():  # an OSError comes only from the descriptor
        return exit_code(asking.fetch(sys.stdout.fileno()))


class Asking:
    """A question to the receiver of the command line."""

    def __init__(self, args: argparse.Namespace, wanted: Wanted) -> None:
        """Read the configuration. Raises: UsageError, FullsendError."""
        from fullsend_sender.cli.configuration import read_all

        self._wanted = wanted
        _settings, self._endpoint, self._identity = read_all(args)

    def fetch(self, to: int | AnswerTaker) -> Files:
        """Ask, give the answer to a descriptor or to what takes it, and log what the receiver says at its end.

        Returns: the end. Raises: FullsendError, OSError of the descriptor, and what `to` raises.
        """
        from fullsend_sender.host import runtime
        from fullsend_sender.host.log import ESCAPED, log
        from fullsend_sender.restore.files import fetch_files

        end = runtime.run(fetch_files(self._endpoint, self._identity, self._wanted, to))
        for line in end.said:
            (log.error if end.code else log.warning)("%s: %s", self._endpoint.name, line, extra=ESCAPED)
        return end


def exit_code(end: Files) -> Exit:
    """Return the exit code of this program for the end of an answer."""
    return Exit(end.code) if end.code in {Exit.OK, Exit.USAGE, Exit.REFUSED} else Exit.FAILED
