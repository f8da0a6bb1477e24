"""`fullsendd unpin`: leave a stream to the policy again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("unpin", help="leave a pinned stream to the policy again")
    sub.add_argument("stream", metavar="SENDER/STREAM")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Unpin. Returns: the exit code. Raises: UsageError if it is not pinned, StoreError."""
    from fullsend_receiver.catalogue import pins
    from fullsend_receiver.cli.selection import find

    _settings, store = open_store(options)
    _catalogue, stored = find(store, options.stream)
    if not pins.unpin(store.documents, stored.file):
        msg = f"{options.stream}: is not pinned (see `fullsendd list`)"
        raise UsageError(msg)
    return Exit.OK
