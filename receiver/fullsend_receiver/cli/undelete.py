"""`fullsendd undelete`: bring back from the trash what a prune has dropped."""

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
    sub = commands.add_parser("undelete", help="bring back what was pruned, with its bases; without a name: list it")
    sub.add_argument("what", nargs="?", metavar="SENDER/DATASET[@SNAPSHOT]")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Undelete, or list. Returns: the exit code. Raises: UsageError, StoreError."""
    from fullsend_protocol.shared.units import printable
    from fullsend_receiver.cli.inventory import read_inventory
    from fullsend_receiver.cli.results import complain, print_trash, print_undeleted
    from fullsend_receiver.cli.selection import split_name
    from fullsend_receiver.maintenance.clock import SystemClock
    from fullsend_receiver.maintenance.undelete import find_trashed, undelete
    from fullsend_receiver.store.event_recorder import recording_command

    _settings, store = open_store(options)
    what = options.what
    unread: list[str] = []

    def complain_of_unread(line: str) -> None:
        unread.append(line)
        complain(printable(line))

    if what is None:
        print_trash(list(find_trashed(store, unread=complain_of_unread)), as_json=options.json)
        return Exit.FAILED if unread else Exit.OK
    sender, rest = split_name(what)
    if sender is None or rest is None:
        msg = f"{what}: name it as SENDER/DATASET, or SENDER/DATASET@SNAPSHOT (`fullsendd undelete` lists the trash)"
        raise UsageError(msg)
    dataset, _, snapshot = rest.partition("@")
    there = [
        each for each in find_trashed(store, sender, unread=complain_of_unread) if each.manifest.dataset == dataset
    ]
    if not any(snapshot in {"", each.manifest.snapshot} for each in there):
        msg = f"{what}: nothing of that name is in the trash (`fullsendd undelete` lists it)"
        raise UsageError(msg)
    stored = {each.summary.guid for each in read_inventory(store, sender).streams}
    with recording_command(store):
        done = undelete(store, sender, dataset, snapshot or None, stored=stored, now=SystemClock().read().wall)
    print_undeleted(done.back, as_json=options.json)
    for file in done.taken:
        complain(f"{file}: stays in the trash: it is stored again, or not whole")
    for file, guid in done.lacking.items():
        complain(f"{file}: its base guid:{guid} is neither stored nor in the trash, so it cannot be restored")
    catalogue = read_inventory(store, sender)
    broken = [file for file in done.back if (it := catalogue.at(file)) is None or not catalogue.restorable(it)]
    for file in broken:
        if file not in done.lacking:
            complain(f"{file}: is stored again, and cannot be restored: it, or a base, is missing or damaged")
    return Exit.FAILED if done.taken or done.lacking or broken else Exit.OK
