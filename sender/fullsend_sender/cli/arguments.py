"""Options that several commands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_cli.late_positionals import LateParser
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_cli.running import Commands

CONFIG: Final = "/etc/fullsend/sender.toml"


class Parser(LateParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
        self.exit(self.get_default("troubled") or Exit.USAGE, f"fullsend: {message} (see {self.prog} --help)\n")


def everywhere() -> Parser:
    """Return the options taken both before and after the command: `fullsend -v push` and `fullsend push -v`.

    A new object for each parser: set_defaults changes shared actions, and the subcommand's defaults would overwrite the
    options before it.
    """
    options = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("--config", metavar="FILE", help=f"default: $FULLSEND_CONFIG, else {CONFIG}")
    options.add_argument("--debug", action="store_true", help="show a traceback with an error")
    options.add_argument("-v", "--verbose", action="store_true", help="print more to stderr")
    options.add_argument("--log-format", choices=["text", "json"], help="the format of stderr")
    return options


def command(
    commands: Commands[Parser], name: str, run: Callable[[argparse.Namespace], int], text: str, examples: str = ""
) -> Parser:
    """Return the parser of a new command. `run`: runs it, and returns the exit code; `text`: its description."""
    sub = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=examples and f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[everywhere()],
    )
    sub.set_defaults(run=run)
    return sub


def receiver(sub: Parser, text: str = "which receiver, if several are configured") -> None:
    """Add the option that chooses the receiver. `text`: its help."""
    sub.add_argument("--receiver", metavar="NAME", help=text)


def retry_for(sub: Parser) -> None:
    """Add the option for the time that a command waits for its receiver."""
    sub.add_argument(
        "--retry-for", metavar="TIME", help="how long to wait for a receiver that is lost during the run; default 1h"
    )


def exclude(sub: Parser) -> None:
    """Add the option that leaves datasets out of a tree."""
    sub.add_argument(
        "--exclude",
        type=pattern,
        action="append",
        default=[],
        metavar="PATTERN",
        help="without these, and what is below them",
    )


def dry_run(sub: Parser) -> None:
    """Add the option that only prints what would be done."""
    sub.add_argument("-n", dest="dry_run", action="store_true", help="print the commands and sizes, and change nothing")


def progress(sub: Parser) -> None:
    """Add the option for the progress line."""
    sub.add_argument("--progress", choices=["auto", "always", "never"], help="the live line; auto: on a terminal")


def size(text: str) -> int:
    """Parse a size for argparse, which puts the option's name before the error."""
    from fullsend_protocol.shared.units import parse_size

    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pattern(text: str) -> str:
    """Check a name or pattern of datasets for argparse, as `size`."""
    from fullsend_sender.zfs.selection import check_pattern

    try:
        return check_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> float:
    """Parse a duration for argparse, as `size`."""
    from fullsend_protocol.shared.units import parse_duration

    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
