"""`fullsend status`: the age of the backups, and what the receiver warns of, for a person or for Nagios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_settings

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend status                             all that is stored and still here; -v: more columns
  fullsend status --max-age 26h               exit 2 if a backup is older than that
  fullsend status 'tank/vm/*'                 some of them"""

#: The exit code if the state is unknown: State.UNKNOWN, whose module is slow to import.
UNKNOWN: Final = 3


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "report how old the backups are, and what the receiver warns of, for a person or for Nagios (exit 0 to 3)"
    sub = arguments.command(commands, "status", run, text, _EXAMPLES)
    sub.set_defaults(troubled=UNKNOWN)
    sub.add_argument(
        "dataset",
        nargs="*",
        metavar="DATASET",
        help="a name or a pattern; default: all that is stored and still here, and all that the configuration names",
    )
    sub.add_argument("--max-age", type=arguments.duration, metavar="AGE", help="older is critical, such as 26h")
    sub.add_argument("--json", action="store_true", help="one JSON object a dataset, and one of each receiver")
    arguments.receiver(sub, "only this one; default: each to which the configuration pushes, and its default one")


def run(args: argparse.Namespace) -> int:
    """Judge. Returns: the exit code of a Nagios plugin."""
    from fullsend_sender.cli.results import print_judged, print_unknown
    from fullsend_sender.host import runtime
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.monitor.all_receivers import ask_all, worst
    from fullsend_sender.zfs.commands import Zfs

    try:
        settings = read_settings(args)
        identity, zfs = Identity.beside(args.config), Zfs(settings.zfs_command)
        parts = runtime.run(ask_all(settings, identity, zfs, args.dataset, max_age=args.max_age))
    except FullsendError as error:
        print_unknown(error, as_json=args.json)
        return UNKNOWN
    print_judged(parts, as_json=args.json, more=args.verbose)
    return worst(parts)
