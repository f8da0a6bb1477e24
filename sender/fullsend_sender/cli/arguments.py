"""What the words of several commands have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_cli.running import Commands

CONFIG: Final = "/etc/fullsend/sender.toml"


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
        self.exit(self.get_default("troubled") or Exit.USAGE, f"fullsend: {message} (see {self.prog} --help)\n")


def everywhere() -> Parser:
    """Return the options taken both before and after the command: `fullsend -v push` and `fullsend push -v`.

    Made anew for each parser: set_defaults reaches into actions that are shared, and the subcommand's defaults would
    overwrite what stood before it.
    """
    options = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("--config", metavar="FILE", help=f"default: $FULLSEND_CONFIG, else {CONFIG}")
    options.add_argument("--debug", action="store_true", help="show a traceback with an error")
    options.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    options.add_argument("--log-format", choices=["text", "json"], help="how stderr is written")
    return options


def command(
    commands: Commands[Parser], name: str, run: Callable[[argparse.Namespace], int], text: str, examples: str = ""
) -> Parser:
    """Return the parser of a new command. `run`: does it, and returns the exit code; `text`: what it does."""
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


def receiver(sub: Parser) -> None:
    """Let it be said which receiver is meant."""
    sub.add_argument("--receiver", metavar="NAME", help="which one, where several are configured")


def retry_for(sub: Parser) -> None:
    """Let it be said how patient the command is."""
    sub.add_argument(
        "--retry-for", metavar="TIME", help="how long to wait for a receiver that went away meanwhile; default 1h"
    )


def exclude(sub: Parser) -> None:
    """Let it be said what is left out of a tree."""
    sub.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="but not these, nor what is below them"
    )


def dry_run(sub: Parser) -> None:
    """Let it be asked what would be done."""
    sub.add_argument("-n", dest="dry_run", action="store_true", help="print the commands and sizes, and change nothing")


def progress(sub: Parser) -> None:
    """Let it be said whether there is a live line."""
    sub.add_argument("--progress", choices=["auto", "always", "never"], help="the live line; auto: on a terminal")


def size(text: str) -> int:
    """Read a size for argparse, which gives its own errors the option's name."""
    from fullsend_protocol.shared.units import parse_size

    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> float:
    """Read a duration for argparse, as `size`."""
    from fullsend_protocol.shared.units import parse_duration

    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
