"""`fullsendd list`: what is stored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("list", help="show what is stored")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    sub.add_argument("--partial", action="store_true", help="streams that have arrived in part, and can be resumed")
    sub.add_argument(
        "--damaged", action="store_true", help="what was set aside as damaged, and is deleted after damaged-keep"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List. Returns: the exit code, FAILED if something cannot be read. Raises: UsageError, StoreError."""
    from fullsend_receiver.arrival.expiry import find_partials
    from fullsend_receiver.catalogue.pins import pins_in_force
    from fullsend_receiver.cli.results import complain_of, print_aside, print_entries, print_partials
    from fullsend_receiver.cli.selection import select, split_name

    settings, store = open_store(options)
    if options.partial:
        sender, dataset = split_name(options.what)
        found = [each for each in find_partials(store, sender) if dataset in {None, each.dataset}]
        print_partials(found, as_json=options.json)
        return Exit.OK
    if options.damaged:
        sender, dataset = split_name(options.what)
        aside = [each for each in store.set_aside(sender) if dataset in {None, each.what.partition("@")[0]}]
        print_aside(aside, keep=settings.damaged_keep, as_json=options.json)
        return Exit.OK
    catalogue, chosen = select(store, options.what)
    pins = {str(file): pin for file, pin in pins_in_force(store.documents, time.time()).items()}
    print_entries(catalogue, chosen, pins, as_json=options.json)
    complain_of(catalogue.problems)
    return Exit.FAILED if catalogue.problems else Exit.OK
