"""`fullsend verify`: the receiver reads and checks what it stores of this host."""

from __future__ import annotations

import sys
import time
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
    arguments.progress(sub)
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Have the streams verified. Returns: the exit code. Raises: FullsendError, also if something is damaged."""
    settings, endpoint, identity = read_all(args)
    from fullsend_cli.progress import Progress, is_live
    from fullsend_protocol.shared.units import plural
    from fullsend_sender.cli.results import VerdictPrinter
    from fullsend_sender.host import runtime
    from fullsend_sender.monitor.verify import verdicts
    from fullsend_sender.transfer.link import connect
    from fullsend_sender.transfer.listing import entries
    from fullsend_sender.transfer.progress import publishing, reporting

    found = VerdictPrinter(settings, as_json=args.json)

    async def ask() -> None:
        async with connect(endpoint, identity) as (link, _name):
            size = None
            if is_live(sys.stderr, settings.progress):
                size = sum([each.raw_bytes async for each in entries(link, args.dataset)])
            progress = Progress(time.monotonic(), size)
            async with (
                reporting(progress, sys.stderr, when=settings.progress),
                publishing(progress, "verify", endpoint.name),
            ):
                async for verdict in verdicts(link, args.dataset):
                    progress.stream = f"{verdict.dataset}@{verdict.snapshot}"
                    progress.add(verdict.raw_bytes, 0)
                    found.add(verdict)
                progress.done = True

    runtime.run(ask())
    if found.damaged:
        raise FullsendError(f"damaged: {found.damaged} of {plural(found.whole + found.damaged, 'stream')}")
    if not args.json and (args.verbose or sys.stdout.isatty()):
        found.end()
    return Exit.OK
