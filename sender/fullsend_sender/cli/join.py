"""`fullsend join`: pair with a receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli.arguments import command

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = command(commands, "join", run, "pair with a receiver, with the line that `fullsendd invite` printed")
    sub.add_argument("invitation", metavar="INVITATION")
    sub.add_argument("--as", dest="name", metavar="NAME", help="the receiver's name here; default: its host")


def run(args: argparse.Namespace) -> int:
    """Pair. Returns: the exit code. Raises: as pairing.join."""
    from fullsend_sender.cli.results import print_paired
    from fullsend_sender.host import runtime
    from fullsend_sender.transfer.pairing import join

    print_paired(runtime.run(join(args.config, args.invitation, args.name)))
    return Exit.OK
