"""`fullsendd revoke`: stop admitting a sender."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("revoke", help="stop admitting a sender; its streams stay")
    sub.add_argument("sender", metavar="SENDER")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Revoke. Returns: the exit code. Raises: UsageError, StoreError."""
    from fullsend_receiver.access import senders
    from fullsend_receiver.events.emit import emit
    from fullsend_receiver.events.records import SenderRevoked
    from fullsend_receiver.store.event_recorder import recording_command

    _settings, store = open_store(options)
    senders.revoke(store, options.sender)
    with recording_command(store):
        emit(SenderRevoked(text=f"{options.sender}: revoked", sender=options.sender), logging.WARNING)
    return Exit.OK
