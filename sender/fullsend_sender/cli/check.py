"""`fullsend check`: would a push work?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = arguments.command(commands, "check", run, "check whether a push would work")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments.receiver(sub, "only this one; default: all that are configured")


def run(args: argparse.Namespace) -> int:
    """Run all checks. Returns: the exit code of the first problem."""
    from fullsend_sender.cli.results import print_finding
    from fullsend_sender.host import runtime
    from fullsend_sender.monitor.check import check

    async def look() -> int:
        first = Exit.OK
        async for finding in check(args.config, os.environ, vars(args)):
            print_finding(finding, as_json=args.json)
            first = first or finding.outcome
        return first

    return runtime.run(look())
