"""`fullsend prove`: compare what the receiver has merged with what `zfs send` gives here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend prove                       all that the receiver has merged and that is not proven yet
  fullsend prove tank/home             all its stored streams, merged or not
  fullsend prove --whole tank/home@a   the state that it restores, where its base is gone here"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "compare what the receiver has merged with what `zfs send` gives here; only hashes travel"
    sub = arguments.command(commands, "prove", run, text, _EXAMPLES)
    sub.add_argument(
        "stream",
        nargs="?",
        metavar="DATASET[@SNAPSHOT]",
        help="its stored streams, merged or not; default: all that was merged and is not proven",
    )
    sub.add_argument("--again", action="store_true", help="also what was proven before")
    sub.add_argument(
        "--whole",
        action="store_true",
        help="where the base of an increment is gone here: send a full, and compare the state",
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments.retry_for(sub)
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Compare. Returns: the exit code. Raises: FullsendError, also if something is different."""
    settings, endpoint, identity = read_all(args)
    from fullsend_protocol.shared.units import plural
    from fullsend_sender.cli.results import OutcomePrinter
    from fullsend_sender.host import runtime
    from fullsend_sender.monitor.prove import Prover
    from fullsend_sender.zfs.commands import Zfs

    talks = args.verbose or sys.stdout.isatty()
    found = OutcomePrinter(as_json=args.json, all_lines=talks, named=args.stream is not None)
    options = {"retry_for": settings.retry_for, "without_base": args.whole}
    prover = Prover(endpoint, identity, Zfs(settings.zfs_command), **options)

    async def prove() -> None:
        copies = await (prover.stored(args.stream) if args.stream else prover.merged(again=args.again))
        async for outcome in prover.prove(copies):
            found.add(outcome)

    runtime.run(prove())
    if found.wrong:
        raise FullsendError(f"not the same, or not compared: {found.wrong} of {plural(found.count, 'stream')}")
    if talks and not args.json:
        found.end()
    return Exit.OK
