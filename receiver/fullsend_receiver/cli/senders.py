"""`fullsendd senders`: the enrolled senders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("senders", help="show the enrolled senders")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print all senders. Returns: the exit code. Raises: UsageError, StoreError."""
    from fullsend_receiver.access.senders import SenderTable
    from fullsend_receiver.cli.results import print_sender

    _settings, store = open_store(options)
    for sender in SenderTable(store):
        print_sender(sender, as_json=options.json)
    return Exit.OK
