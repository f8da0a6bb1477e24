"""`fullsendd prune`: drop what the policy does not keep, and merge what stays only as a base."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_receiver.cli.pruning import Pruned
    from fullsend_receiver.maintenance.merging import Merger
    from fullsend_receiver.store.local import LocalStore


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("prune", help="drop or merge the stored streams that the policy does not keep")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    sub.add_argument("-n", "--dry-run", action="store_true", help="say what would be dropped, and why; change nothing")
    sub.add_argument("--yes-more", action="store_true", help="also more than prune-at-most of a dataset")
    only = sub.add_mutually_exclusive_group()
    only.add_argument("--no-merge", action="store_true", help="drop, and merge nothing")
    only.add_argument("--merge-only", action="store_true", help="merge, and drop nothing")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prune. Returns: the exit code, FAILED if something keeps it from its work. Raises: UsageError, StoreError."""
    from fullsend_receiver.cli.pruning import Pruned
    from fullsend_receiver.cli.results import complain, print_note
    from fullsend_receiver.cli.selection import check_stored, split_name
    from fullsend_receiver.maintenance.clock import SystemClock, note, objection, waits_for
    from fullsend_receiver.maintenance.merging import Merger
    from fullsend_receiver.maintenance.plans import rules_of
    from fullsend_receiver.maintenance.prune import Pruner, newest_reception
    from fullsend_receiver.maintenance.trash import expire_trash

    settings, store = open_store(options)
    rules = rules_of(settings)
    if rules is None:
        msg = "receiver.toml has no policy, so nothing is ever deleted: write a table [retention], such as daily = 7"
        raise UsageError(msg)
    sender, dataset = split_name(options.what)
    now = SystemClock().read()
    pruner = Pruner(store, rules, now.wall)
    if sender is not None:
        check_stored(pruner.catalogues.current(sender), options.what, sender, dataset)
    refused = objection(store.documents, now, newest_reception(pruner.catalogues))
    pruned = Pruned(as_json=options.json, dry_run=options.dry_run)
    if refused is not None:
        pruned.failed = True
        complain(f"nothing is pruned: {refused}")
        if not options.dry_run:
            return Exit.FAILED
    elif (doubt := waits_for(store.documents, now)) is not None:
        print_note(f"warning: {doubt}: the daily prune waits for that, this one does not")
    if not (options.dry_run or options.merge_only):
        with contextlib.suppress(OSError):  # a disk without a free byte: the prune makes room
            note(store.documents, now)
        expire_trash(store, rules.undelete_within, now.wall, undelete_merged=rules.undelete_merged)
    senders = pruner.catalogues.senders() if sender is None else [sender]
    if not options.merge_only:
        for name in senders:
            for event in pruner.prune(name, dataset, dry_run=options.dry_run, yes_more=options.yes_more):
                pruned.add(event)
        pruned.sum_up()
    if rules.merging is not None and not (options.dry_run or options.no_merge):
        _merge(store, Merger(pruner.catalogues, rules, now.wall), senders, dataset, pruned)
    return Exit.FAILED if pruned.failed else Exit.OK


def _merge(store: LocalStore, merger: Merger, senders: list[str], dataset: str | None, pruned: Pruned) -> None:
    """Merge what is due of these senders, at low priority. Raises: StoreError, OSError."""
    from fullsend_receiver.maintenance.io_priority import step_back

    with store.alone("merge") as alone:
        if not alone:
            pruned.note("nothing is merged: another process merges at the moment")
            return
        for line in store.recover_merges():
            pruned.note(line)
        # A thread of its own: Linux has priorities for each thread.
        with ThreadPoolExecutor(1, initializer=step_back) as thread:
            try:
                for name in senders:
                    events = merger.merge(name, dataset)
                    while (event := thread.submit(next, events, None).result()) is not None:
                        pruned.add(event)
            finally:
                merger.abandon()
        pruned.sum_up_merges()
