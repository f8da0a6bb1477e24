"""What `ls`, `get`, `diff` and `versions` have in common: the answer of the receiver on stdout."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse

    from fullsend_sender.cli.arguments import Parser
    from fullsend_sender.restore.files import Form, Wanted


def add_snapshot(sub: Parser) -> None:
    """Add the arguments that name a snapshot, and the paths in it."""
    sub.add_argument("stream", metavar="STREAM", help="DATASET@SNAPSHOT, guid:N, or a file name as `list` shows it")
    sub.add_argument("paths", nargs="*", metavar="PATH", help="a path in the snapshot, from its root")
    sub.add_argument(
        "--name", action="append", default=[], metavar="GLOB", help="only files with such a name, such as '*.txt'"
    )


def ask(
    args: argparse.Namespace, form: Form, *, recursive: bool = False, special: bool = False, setuid: bool = False
) -> int:
    """Ask `files?`, and write the answer to stdout. As `ask_for`."""
    from fullsend_sender.restore.files import question

    paths, names = [os.fsencode(each) for each in args.paths], [os.fsencode(each) for each in args.name]
    return ask_for(args, question(args.stream, form, paths, names, recursive=recursive, special=special, setuid=setuid))


def ask_for(args: argparse.Namespace, wanted: Wanted) -> int:
    """Ask, and write the answer to stdout. Returns: the exit code. Raises: FullsendError, BrokenPipeError."""
    from fullsend_cli.output import writing_output
    from fullsend_protocol.shared.errors import OutputFailed
    from fullsend_sender.cli.configuration import read_all
    from fullsend_sender.host import runtime
    from fullsend_sender.host.log import log
    from fullsend_sender.restore.files import fetch_files

    if sys.stdout is None:
        raise OutputFailed("stdout is closed, so there is no place for the result: redirect it to a file")
    _settings, endpoint, identity = read_all(args)
    with writing_output():  # an OSError comes only from the descriptor
        end = runtime.run(fetch_files(endpoint, identity, wanted, sys.stdout.fileno()))
    for line in end.said:
        (log.error if end.code else log.warning)("%s: %s", endpoint.name, line)
    if end.code in {Exit.OK, Exit.USAGE, Exit.REFUSED}:
        return Exit(end.code)
    return Exit.FAILED
