"""`fullsendd check`: checks the configuration and the store."""

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
    sub = commands.add_parser("check", help="check the configuration and the store")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run all checks. Returns: the exit code, FAILED if there is a problem. A warning is no problem yet.

    Raises: UsageError, StoreError.
    """
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_protocol.shared.units import format_size, plural, printable
    from fullsend_receiver.access import identity
    from fullsend_receiver.access.answering_hosts import look
    from fullsend_receiver.access.bucket_setup import check_certificate
    from fullsend_receiver.access.config import config_file, parse_address
    from fullsend_receiver.access.senders import SenderTable
    from fullsend_receiver.arrival.usage import find_fills
    from fullsend_receiver.cli.copy_standing import print_copies
    from fullsend_receiver.cli.costs import print_costs
    from fullsend_receiver.cli.inventory import read_inventory
    from fullsend_receiver.cli.results import CheckResults, complain_of
    from fullsend_receiver.cli.scrub_standing import print_standing
    from fullsend_receiver.maintenance import prune_records
    from fullsend_receiver.store.errors import StoreFull, StoreReadOnly

    out = CheckResults(as_json=options.json)
    settings, store = open_store(options)
    refuses = False
    try:
        store.check_fitness()
        free = f", {format_size(store.space().free)} free" if store.capabilities.free_space_known else ""
        out.good(f"store {store.where}{free}")
        refuses = out.place(store.examine())
        print_costs(store, out)
    except (StoreFull, StoreReadOnly) as error:
        refuses = True
        out.problem(str(error))
    table = SenderTable(store)
    identity.server_context(store, table.certificates)
    out.good(f"certificate {identity.fingerprint(store)}")
    try:
        check_certificate(store)
    except UsageError as error:
        refuses = True
        out.problem(str(error))
    for answer in look(map(parse_address, settings.advertise), identity.fingerprint(store)):
        if answer.what == "other":
            refuses = True
            out.problem(printable(answer.says))
        else:
            (out.good if answer.what == "same" else out.warning)(printable(answer.says))
    out.good(f"{plural(len(table.certificates), 'sender')} enrolled")
    catalogue = read_inventory(store)
    out.good(plural(len(catalogue.streams), "stream"))
    aside = list(store.set_aside())
    if aside:
        size = format_size(sum(each.stored_bytes for each in aside))
        out.good(f"{plural(len(aside), 'damaged file')} set aside, {size}: see `fullsendd list --damaged`")
    broken = [stored for stored in catalogue.streams if not catalogue.restorable(stored)]
    for stored in broken:
        out.problem(f"{stored.file}: not restorable: it, or a base, is missing or damaged")
    summaries = (stored.summary for stored in catalogue.streams)
    for fill in find_fills(store, summaries, min_free=settings.min_free, quota_of=settings.quota_of):
        if fill.refuses:
            refuses = True
            kept = f", {format_size(fill.kept)} must stay free" if fill.kept else ""
            out.problem(f"{fill}{kept}: pushes are refused")
        elif fill.is_above(settings.warn_at):
            out.warning(f"{fill}: free space soon, or pushes will be refused")
    scrubbed = print_standing(catalogue, settings.scrub_every, out)
    complain_of(catalogue.problems)
    if trash := store.trash_bytes():
        out.good(f"{format_size(trash)} in the trash (`fullsendd undelete` lists it)")
    if (left := store.kept_versions()).count:
        what = f"{plural(left.count, 'removed object')} of {format_size(left.stored_bytes)}"
        out.good(f"{what} still there as versions: locked, or the right to delete them is missing")
    hindered = []
    if settings.retention is not None:
        if done := prune_records.summary(store):
            out.good(done)
        written = config_file(options.config).stat().st_mtime
        hindered = prune_records.troubles(store, None, now=time.time(), since=written)
        for line in hindered:
            out.problem(printable(line))
    copied = print_copies(store, settings.copies, out)
    return Exit.FAILED if broken or catalogue.problems or refuses or hindered or not (scrubbed and copied) else Exit.OK
