"""The parser of `fullsend`, and what every command needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fullsend_cli.running import run
from fullsend_protocol import __version__
from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.cli import (
    cat,
    check,
    diff,
    drill,
    get,
    hooks,
    join,
    list_,
    ls,
    prove,
    push,
    report,
    restore,
    show,
    status,
    top,
    verify,
    versions,
)
from fullsend_sender.cli.arguments import CONFIG, Parser, everywhere

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fullsend_cli.running import Complain


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None: that of the process). Returns: the exit code."""
    return run(make_parser, argv, _begin)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. docs/generate.py makes man pages and completions from it, too."""
    parser = Parser(
        prog="fullsend",
        description="Stream ZFS snapshots to a host without ZFS: verified, encrypted, readable with zstd alone.",
        parents=[everywhere()],
    )
    parser.set_defaults(
        config=os.environ.get("FULLSEND_CONFIG") or CONFIG,
        debug=False,
        verbose=False,
        log_format=None,
        receiver=None,
        troubled=None,
    )
    parser.add_argument("--version", action="version", version=f"fullsend {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (
        join,
        push,
        list_,
        status,
        top,
        report,
        restore,
        cat,
        ls,
        get,
        diff,
        versions,
        show,
        verify,
        prove,
        drill,
        check,
        hooks,
    ):
        command.add(commands)
    return parser


def _begin(args: argparse.Namespace) -> Complain:
    """Configure the log from the command line and the environment, until the configuration is read."""
    from fullsend_sender.host.log import configure, log

    style = args.log_format or os.environ.get("FULLSEND_LOG_FORMAT")
    configure("json" if style == "json" else "text", verbose=args.verbose)

    def complain(error: Exception | KeyboardInterrupt, /) -> None:
        match error:
            case KeyboardInterrupt():
                log.error("interrupted by SIGINT")
            case FullsendError():
                log.error("%s", error, exc_info=args.debug)
            case _:
                log.error("%s: %s (--debug shows more)", type(error).__name__, error, exc_info=args.debug)

    return complain
