"""`fullsend verify`: the receiver reads and checks what it stores of this host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = arguments.command(commands, "verify", run, "make the receiver read and check what it stores of this host")
    sub.add_argument("dataset", nargs="?", metavar="DATASET")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Have the streams verified. Returns: the exit code. Raises: FullsendError, also if something is damaged."""
    _settings, endpoint, identity = read_all(args)
    from fullsend_protocol.shared.units import plural
    from fullsend_sender.cli.results import VerdictPrinter
    from fullsend_sender.host import runtime
    from fullsend_sender.monitor.verify import verdicts
    from fullsend_sender.transfer.link import connect

    found = VerdictPrinter(as_json=args.json)

    async def ask() -> None:
        async with connect(endpoint, identity) as (link, _name):
            async for verdict in verdicts(link, args.dataset):
                found.add(verdict)

    runtime.run(ask())
    if found.damaged:
        raise FullsendError(f"damaged: {found.damaged} of {plural(found.whole + found.damaged, 'stream')}")
    if not args.json and (args.verbose or sys.stdout.isatty()):
        found.end()
    return Exit.OK
