"""`fullsendd prune`: drop what the policy does not keep, and merge what stays only as a base."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import FullsendError, OutputFailed, UsageError, describe, reason
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import printable
from fullsend_receiver.cli.configuration import add_quiet, open_store, shown

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.progress import LiveLine, When
    from fullsend_cli.running import Commands
    from fullsend_protocol.shared.stages import StageWaits
    from fullsend_receiver.cli.pruning import Pruned
    from fullsend_receiver.maintenance.merging import Merger
    from fullsend_receiver.maintenance.prune import Pruner
    from fullsend_receiver.maintenance.thinning import Merge
    from fullsend_receiver.store.api import Store


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
    add_quiet(sub)
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prune. Returns: the exit code, FAILED if something keeps it from its work. Raises: UsageError, StoreError."""
    from fullsend_cli.progress import Progress, short_label, showing
    from fullsend_receiver.cli.pruning import Pruned
    from fullsend_receiver.cli.results import complain, print_note
    from fullsend_receiver.cli.selection import check_stored, split_name
    from fullsend_receiver.cli.working import told
    from fullsend_receiver.events.emit import emit
    from fullsend_receiver.events.records import PruneFailed
    from fullsend_receiver.maintenance.clock import SystemClock, note, objection_now, waits_for
    from fullsend_receiver.maintenance.merge_records import note_merge_run
    from fullsend_receiver.maintenance.merging import Merger
    from fullsend_receiver.maintenance.plans import rules_of
    from fullsend_receiver.maintenance.prune import Judged, Pruner, newest_reception
    from fullsend_receiver.maintenance.trash import expire_trash, locked_line
    from fullsend_receiver.store.errors import disk_error
    from fullsend_receiver.store.event_recorder import recording_command

    settings, store = open_store(options)
    rules = rules_of(settings)
    if rules is None:
        msg = "receiver.toml has no policy, so nothing is ever deleted: write a table [retention], such as daily = 7"
        raise UsageError(msg)
    sender, dataset = split_name(options.what)
    recorded = contextlib.ExitStack()
    if not options.dry_run:
        recorded.enter_context(recording_command(store))
    with recorded:
        clock = SystemClock()
        now = clock.read()
        pruner = Pruner(store, rules, now.wall)
        if sender is not None:
            check_stored(pruner.catalogues.current(sender), options.what, sender, dataset)
        refused = objection_now(store.documents, clock, lambda: newest_reception(pruner.catalogues))
        pruned = Pruned(as_json=options.json, dry_run=options.dry_run)
        if refused is not None:
            pruned.failed = True
            text = f"nothing is pruned: {refused}"
            complain(text)
            if not options.dry_run:
                emit(PruneFailed(text=text, sender=sender or "", why=refused), logging.ERROR)
                return Exit.FAILED
        elif (doubt := waits_for(store.documents, now)) is not None:
            print_note(f"warning: {doubt}: the daily prune waits for that, this one does not")
        if not (options.dry_run or options.merge_only):
            with contextlib.suppress(OSError):  # a disk without a free byte: the prune makes room
                note(store.documents, clock, lambda: newest_reception(pruner.catalogues))
            try:
                expire_trash(
                    store,
                    rules.undelete_within,
                    now.wall,
                    undelete_merged=rules.undelete_merged,
                    stays=lambda stream, until: print_note(printable(locked_line(stream, until))),
                )
            except OSError as error:  # streams are pruned all the same
                pruned.failed = True
                complain(printable(f"the trash cannot be deleted: {error}"))
        senders = pruner.catalogues.senders() if sender is None else [sender]
        when = shown(options)
        if not options.merge_only:
            size = None if dataset is not None else _count(pruner, senders, when)
            progress = Progress(time.monotonic(), size, noun="stream")
            with showing(progress, sys.stderr, when) as line:
                for name in senders:
                    progress.label = name
                    try:
                        for event in pruner.prune(name, dataset, dry_run=options.dry_run, yes_more=options.yes_more):
                            if isinstance(event, Judged):
                                progress.add(1, 0)
                            with line.aside():
                                pruned.add(event)
                    except (OutputFailed, BrokenPipeError):
                        raise
                    except (FullsendError, OSError) as error:  # the others do not wait for it
                        why = disk_error(error) if isinstance(error, OSError) else error
                        pruned.fail(name)
                        with line.aside():
                            complain(printable(f"{name}: its prune has failed: {why}"))
            pruned.sum_up()
            if not options.dry_run:
                pruned.report()
        if rules.merging is not None and not (options.dry_run or options.no_merge):
            merging = Progress(time.monotonic())

            def count(due: Merge, waits: StageWaits) -> Progress:
                merging.label = short_label(f"merge {due.target.dataset}@{due.target.snapshot}")
                return Progress(time.monotonic(), due.stored_bytes, waits=waits, within=merging)

            merger = Merger(pruner.catalogues, rules, now.wall, count=count)
            with showing(merging, sys.stderr, when) as line, told(store, lambda: merger.live):
                _merge(store, merger, senders, dataset, pruned, line)
            if sender is None:
                with contextlib.suppress(OSError):  # the daemon notes that nothing was noted
                    note_merge_run(store.documents, None, time.time())
            pruned.sum_up_merges()
        return Exit.FAILED if pruned.failed else Exit.OK


def _count(pruner: Pruner, senders: list[str], when: When) -> int | None:
    """Return how many streams will be judged; None: no person sees it."""
    from fullsend_cli.progress import is_live

    if not is_live(sys.stderr, when):
        return None
    return sum(len(shelf) for sender in senders for shelf in pruner.catalogues.current(sender).shelves())


def _merge(  # noqa: PLR0917 - one step of `run`
    store: Store, merger: Merger, senders: list[str], dataset: str | None, pruned: Pruned, line: LiveLine
) -> None:
    """Merge what is due of these senders, at low priority. If one of them fails, the others are still merged.

    Raises: StoreError, OSError.
    """
    from fullsend_receiver.cli.results import complain
    from fullsend_receiver.maintenance.io_priority import step_back
    from fullsend_receiver.maintenance.merge_records import note_failures

    with store.alone("merge") as alone:
        if not alone:
            with line.aside():
                pruned.note("nothing is merged: another process merges at the moment")
            return
        for said in store.recover_merges():
            with line.aside():
                pruned.note(said)
        # A thread of its own: Linux has priorities for each thread.
        with ThreadPoolExecutor(1, initializer=step_back) as thread:
            try:
                for name in senders:
                    try:
                        events = merger.merge(name, dataset)
                        while (event := thread.submit(next, events, None).result()) is not None:
                            with line.aside():
                                pruned.add(event)
                    except (OutputFailed, BrokenPipeError):
                        raise
                    except Exception as error:  # noqa: BLE001 - whatever is in the store of one sender
                        foreseen = isinstance(error, FullsendError | OSError)
                        why = f"its merges have failed: {reason(error) if foreseen else describe(error)}"
                        pruned.failed = True
                        with line.aside():
                            complain(printable(f"{name}: {why}"))
                        with contextlib.suppress(OSError):  # a disk without a free byte, or read-only
                            note_failures(store.documents, name, [why])
            finally:
                merger.abandon()
