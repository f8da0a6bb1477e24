"""`fullsendd verify`: read and check what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Say what it takes."""
    sub = commands.add_parser("verify", help="read and check what is stored, byte by byte")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Verify. Returns: the exit code, FAILED where something is damaged. Raises: UsageError, StoreError."""
    from fullsend_receiver.catalogue.streams import files_without_manifest
    from fullsend_receiver.cli.results import Scrubs, complain_of, print_rebuilt
    from fullsend_receiver.cli.selection import select, split_name
    from fullsend_receiver.maintenance import scrub
    from fullsend_receiver.store.api import StoreError

    _settings, store = open_store(options)
    sender, _dataset = split_name(options.what)
    lost = 0
    for file in files_without_manifest(store, sender):
        try:
            scrub.rebuild(store, file)
            print_rebuilt(file)
        except (StoreError, OSError) as error:
            lost += 1
            complain_of([str(error)])
    catalogue, chosen = select(store, options.what)
    scrubs = Scrubs(as_json=options.json, failed=lost)
    for stored in chosen:
        result = scrub.scrub(store, stored)
        if result is None:
            scrubs.removed(stored)
            continue
        try:
            catalogue.scrubbed.add(result)
        except OSError as error:  # a disk that is read-only, or full, wants checking most
            scrubs.not_recorded(error)
        scrubs.add(stored, result, catalogue.dependents(stored) if result.damage else ())
    scrubs.end()
    # What has no manifest was named above, by what is wrong with it.
    unread = [problem for problem in catalogue.problems if "has no manifest" not in problem]
    complain_of(unread)
    return Exit.FAILED if scrubs.failed or scrubs.unrecorded or unread else Exit.OK
