"""`fullsendd cat`: one stream on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("cat", help="write one stored stream to stdout, decoded and checked")
    sub.add_argument("stream", metavar="SENDER/STREAM")
    sub.add_argument(
        "--skip-damaged",
        action="store_true",
        help="write what is whole of a damaged stream, and name each hole; also of SENDER/aside:NAME (list --damaged)",
    )
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the stream. Returns: the exit code, FAILED if something was skipped. Raises: FullsendError,
    BrokenPipeError.
    """
    from fullsend_receiver.cli.selection import find, find_aside
    from fullsend_receiver.cli.stream_output import write_salvage, write_whole

    _settings, store = open_store(options)
    breaks: list[str] = []
    aside = find_aside(store, options.stream)
    if aside is not None:
        file, manifest = aside
    else:
        catalogue, stored = find(store, options.stream)
        file, manifest = stored.file, stored.manifest
        breaks = [str(each.file) for each in catalogue.dependents(stored)]
    if sys.stdout is None or sys.stdout.isatty():
        msg = "a send stream is binary: pipe it into `zfs receive`, or into a file"
        raise UsageError(msg)
    if options.skip_damaged:
        return Exit.OK if write_salvage(store, file, breaks) else Exit.FAILED
    write_whole(store, file, manifest)
    return Exit.OK
