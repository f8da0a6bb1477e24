"""`fullsendd versions`: one path in all stored snapshots of a dataset."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from fullsend_cli.running import Commands
    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.catalogue.streams import Catalogue
    from fullsend_receiver.files.index import FileIndex
    from fullsend_receiver.files.versions import Version
    from fullsend_receiver.store.api import Store

_HEAD = f"{'snapshot made':<20} {'size':>12} {'mtime':<20} {'object':>8} {'generation':>10} {'change':<10} snapshot"
_NOTE = (
    "each is compared with the one above: object, generation, size, times and other attributes; contents were not"
    " compared"
)


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("versions", help="show a file's versions in all stored snapshots of a dataset")
    sub.add_argument("dataset", metavar="SENDER/DATASET")
    sub.add_argument("path", metavar="PATH", help="from the root of the dataset")
    sub.add_argument("--last", type=int, default=0, metavar="N", help="only the newest N snapshots")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show. Returns: the exit code, FAILED if a snapshot could not be read or listed. Raises: FullsendError, OSError,
    BrokenPipeError.
    """
    from fullsend_protocol.dataset.entry import shown
    from fullsend_protocol.shared.units import printable
    from fullsend_receiver.access import config, identity, opening
    from fullsend_receiver.cli.results import complain, complain_of, print_note
    from fullsend_receiver.cli.selection import select, split_name
    from fullsend_receiver.files.index import NoSuchFile
    from fullsend_receiver.files.versions import snapshots, versions
    from fullsend_receiver.store.names import dataset_folder

    sender, dataset = split_name(options.dataset)
    if options.last < 0 or sender is None or dataset is None:
        msg = "name SENDER/DATASET and PATH; with --last, a number of snapshots"
        raise UsageError(msg)
    settings = config.load(config.config_file(options.config))
    store = opening.open_store(settings)
    path = os.fsencode(options.path)
    opener = _opener(store)  # which imports what it needs before the process acts as another user
    with identity.acting_as_owner(store):
        catalogue, stored = select(store, options.dataset)
        chosen = snapshots(each.summary for each in stored)[-options.last :]
        there, troubles = _show(options, versions(path, chosen, opener(catalogue)))
        folder = str(dataset_folder(sender, dataset))
        hidden = [each for each in catalogue.problems if each.hides(folder)]
    for streams in chosen:
        if streams[0].kind == "package":
            print_note(printable(f"@{streams[0].snapshot} is a package: other snapshots in it were not looked at"))
    if not there and not troubles:
        msg = f"{shown(path)}: in no stored snapshot of {options.dataset}"
        if not hidden:
            raise NoSuchFile(msg)
        complain(f"{msg} that can be listed")
    complain_of(hidden)
    return Exit.FAILED if troubles or hidden else Exit.OK


def _show(options: argparse.Namespace, found: Iterable[Version]) -> tuple[bool, bool]:
    """Print the versions. Returns: whether one snapshot has the path, and whether one could not be read. If all can be
    read, and none has it, nothing is printed. Raises: the first error, if no snapshot can be read.
    """
    from fullsend_receiver.cli.results import print_note

    waiting: list[Version] = []
    there = troubles = begun = False
    for each in found:
        waiting.append(each)
        there = there or each.node is not None
        troubles = troubles or each.trouble is not None
        if there:
            _print(waiting, begun=begun, as_json=options.json)
            begun = True
            waiting.clear()
    if troubles and not there:
        first = waiting[0].trouble
        if first is not None and all(each.trouble is not None for each in waiting):
            raise first
        _print(waiting, begun=False, as_json=options.json)
    if there and not options.json:
        print_note(_NOTE)
    return there, troubles


def _print(rows: Iterable[Version], *, begun: bool, as_json: bool) -> None:
    from fullsend_cli.output import write_line
    from fullsend_protocol.shared.errors import reason
    from fullsend_protocol.shared.units import printable
    from fullsend_receiver.cli.results import complain

    if not begun and not as_json:
        write_line(_HEAD)
    for row in rows:
        write_line(json.dumps(facts(row)) if as_json else line(row))
        if row.trouble is not None:
            complain(printable(f"@{row.summary.snapshot}: {reason(row.trouble)}"))


def _opener(store: Store) -> Callable[[Catalogue], Callable[[Summary], FileIndex]]:
    """Return what returns, with a catalogue, what opens the index of a stream's snapshot."""
    from fullsend_receiver.catalogue.streams import StoredStream
    from fullsend_receiver.cli.snapshot_choice import source_of
    from fullsend_receiver.files import sources  # noqa: F401 - of `source_of`
    from fullsend_receiver.files.kept_indexes import folder_of, index_of

    def opened(catalogue: Catalogue, summary: Summary) -> FileIndex:
        return index_of(source_of(store, catalogue, StoredStream(store, summary)), folder_of(store))

    return lambda catalogue: lambda summary: opened(catalogue, summary)


def line(version: Version) -> str:
    """Return a version as a line for a person."""
    from fullsend_protocol.shared.units import format_time, printable

    node, snapshot = version.node, printable(f"@{version.summary.snapshot}")
    about = ["", "", "", ""]
    if node is not None:
        about = [str(node.size), format_time(node.mtime.seconds), str(node.number), str(node.generation)]
    size, mtime, number, generation = about
    return (
        f"{version.summary.created:<20} {size:>12} {mtime:<20} {number:>8} {generation:>10} {version.change:<10}"
        f" {snapshot}"
    )


def facts(version: Version) -> dict[str, object]:
    """Return a version for JSON. `there` is null where it is not known."""
    from fullsend_protocol.shared.errors import reason

    node = version.node
    found: dict[str, object] = {
        "snapshot": version.summary.snapshot,
        "guid": version.summary.guid,
        "created": version.summary.created,
        "there": None if version.trouble is not None else node is not None,
        "change": version.change,
        "since": version.since,
        "differs": list(version.differs),
    }
    if node is not None:
        found |= {
            "object": node.number,
            "generation": node.generation,
            "mode": f"{node.mode:o}",
            "size": node.size,
            "mtime": node.mtime.total,
            "ctime": node.ctime.total,
        }
    if version.trouble is not None:
        found["error"] = reason(version.trouble)
    return found
