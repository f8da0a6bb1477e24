"""The parser of `fullsendd`, and what every command needs."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_cli.late_positionals import LateParser
from fullsend_cli.running import run
from fullsend_protocol import __version__
from fullsend_protocol.shared.errors import FullsendError
from fullsend_receiver.cli import (
    accept,
    cat,
    check,
    clock,
    copy,
    diff,
    get,
    hooks,
    init,
    invite,
    list_,
    ls,
    merge,
    pin,
    prune,
    report,
    revoke,
    senders,
    serve,
    show,
    status,
    top,
    undelete,
    unpin,
    verify,
    versions,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fullsend_cli.running import Complain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (without the program's name; None: that of the process). Returns: the exit code."""
    return run(make_parser, arguments, _begin)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. docs/generate.py makes man pages and completions from it, too."""
    parser = LateParser(
        prog="fullsendd", description="Receives ZFS send streams, keeps them as ordinary .zst files, gives them back."
    )
    parser.add_argument("--version", action="version", version=f"fullsendd {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: /etc/fullsend/receiver.toml")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.add_argument("--log-format", choices=["text", "json"], help="default: text")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (
        *(
            init,
            serve,
            status,
            top,
            invite,
            senders,
            revoke,
            list_,
            show,
            cat,
            ls,
            get,
            diff,
            versions,
            verify,
            copy,
            check,
        ),
        *(report, merge, prune, undelete, pin, unpin, clock, accept, hooks),
    ):
        command.add(commands)
    return parser


def _begin(options: argparse.Namespace) -> Complain:
    from fullsend_protocol.shared.units import printable
    from fullsend_receiver.cli import results

    _set_up_stdout(as_json=getattr(options, "json", False))

    def complain(error: Exception | KeyboardInterrupt, /) -> None:
        if isinstance(error, KeyboardInterrupt):
            results.complain("interrupted")
        elif options.debug:
            raise error
        elif isinstance(error, FullsendError):
            results.complain(printable(str(error)))
        elif isinstance(error, OSError):
            from fullsend_receiver.store.errors import disk_error

            results.complain(printable(str(disk_error(error))))
        else:
            results.complain(f"{type(error).__name__}: {printable(str(error))} (--debug shows more)")

    return complain


def _set_up_stdout(*, as_json: bool) -> None:
    """Make names in all languages printable: JSON is UTF-8; otherwise what stdout's encoding lacks is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if as_json:
            sys.stdout.reconfigure(encoding="utf-8")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")
