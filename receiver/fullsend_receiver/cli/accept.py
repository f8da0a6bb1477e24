"""`fullsendd accept`: what was suspicious about a dataset is known, and right."""

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
    sub = commands.add_parser("accept", help="prune a dataset again that was found suspicious (see `check`)")
    sub.add_argument("what", metavar="SENDER/DATASET")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Accept. Returns: the exit code. Raises: UsageError, StoreError."""
    from fullsend_receiver.catalogue.service import Catalogues
    from fullsend_receiver.cli.selection import check_stored, split_name
    from fullsend_receiver.maintenance import prune_records, suspicion
    from fullsend_receiver.maintenance.clock import SystemClock
    from fullsend_receiver.monitor import sizes

    _settings, store = open_store(options)
    sender, dataset = split_name(options.what)
    if sender is None or dataset is None:
        msg = f"{options.what}: name it as SENDER/DATASET (see `fullsendd check`)"
        raise UsageError(msg)
    holdings = Catalogues(store).current(sender)
    if dataset not in sizes.latest(sizes.read(store.documents), sender):  # what has vanished is accepted, too
        check_stored(holdings, options.what, sender, dataset)
    now = SystemClock().read().wall
    suspicion.accept(store.documents, f"{sender}/{dataset}", holdings.last_sequence, now)
    prune_records.forget_suspicion(store.documents, sender, dataset)
    return Exit.OK
