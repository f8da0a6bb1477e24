"""`fullsend drill`: does a restore work?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend drill                              the dataset whose last drill is the oldest, a random snapshot
  fullsend drill --newest tank/home           the newest snapshot of that dataset
  fullsend drill tank/home@monday --json      that snapshot, and the result for a program"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "restore a snapshot into a scratch place, compare it with the one here, destroy it, and report"
    sub = arguments.command(commands, "drill", run, text, _EXAMPLES)
    sub.add_argument(
        "what",
        nargs="?",
        metavar="DATASET[@SNAPSHOT]",
        help="default: the dataset whose last drill is the oldest, and a random snapshot of it",
    )
    sub.add_argument(
        "--into", dest="drill_into", metavar="PLACE", help="the dataset below which to restore; default: drill-into"
    )
    sub.add_argument(
        "--quota", dest="drill_quota", type=arguments.size, metavar="SIZE", help="what the drill may take there"
    )
    sub.add_argument("--newest", action="store_true", help="the newest snapshot, not a random one")
    sub.add_argument("--seed", type=int, metavar="N", help="make the random choice with this number")
    arguments.progress(sub)
    arguments.retry_for(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Restore and compare. Returns: the exit code. Raises: FullsendError."""
    settings, endpoint, identity = read_all(args)
    from fullsend_sender.cli.results import print_outcome
    from fullsend_sender.drill.run import DrillJob, drill
    from fullsend_sender.host import runtime
    from fullsend_sender.zfs.commands import Zfs

    if settings.drill_into is None:
        raise UsageError(
            'no place to restore into: set `drill-into` in sender.toml, as in drill-into = "tank/drill", or give --into'
        )
    job = DrillJob(
        *(args.what, settings.drill_into, endpoint, identity, Zfs(settings.zfs_command)),
        quota=settings.drill_quota,
        newest=args.newest,
        seed=args.seed,
        show=settings.progress,
        retry_for=settings.retry_for,
    )
    outcome = runtime.run(drill(job))
    talks = args.verbose or sys.stdout.isatty() or args.what is not None
    print_outcome(outcome, settings, as_json=args.json, talks=talks)
    return outcome.exit_code
