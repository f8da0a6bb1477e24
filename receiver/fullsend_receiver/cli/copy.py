"""`fullsendd copy`: stored streams into another store. Without `--to` as [copy] of receiver.toml says: what the daemon
runs.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_receiver.cli.configuration import add_quiet, open_store, shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fullsend_cli.progress import LiveLine, Progress
    from fullsend_cli.running import Commands
    from fullsend_receiver.access.config import ReceiverSettings
    from fullsend_receiver.access.copy_settings import CopyScope
    from fullsend_receiver.cli.results import CopyResults
    from fullsend_receiver.maintenance.copy_run import CopyEvent, CopyRun
    from fullsend_receiver.store.api import Store


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("copy", help="copy stored streams into another store, byte for byte")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]", help="default: all, or as [copy] says")
    sub.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="the receiver.toml of the other store (`fullsendd init`); default: as [copy] of this store's says",
    )
    sub.add_argument(
        "--all", action="store_true", help="also what is older than the newest copy, such as what was pruned there"
    )
    sub.add_argument(
        "--bwlimit", metavar="RATE", help="stored bytes a second, such as 20M; 0: no limit; default: as [copy] says"
    )
    sub.add_argument("--dry-run", action="store_true", help="say what would be copied, and copy nothing")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    add_quiet(sub)
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Copy. Returns: the exit code, FAILED if something is not copied. Raises: FullsendError, OSError."""
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_protocol.shared.exit_codes import Exit
    from fullsend_protocol.shared.units import parse_size, printable
    from fullsend_receiver.access import config
    from fullsend_receiver.cli.results import CopyResults, complain, print_note
    from fullsend_receiver.maintenance.copy_claim import claimed
    from fullsend_receiver.maintenance.copy_run import CopyRun, CopyTotals, noted
    from fullsend_receiver.store.event_recorder import recording_command

    settings, source = open_store(options)
    to, scope, rate = _wanted(options, settings)
    rate = rate if options.bwlimit is None else parse_size(options.bwlimit)
    there = config.load(to)
    if there.store_id == settings.store_id:
        msg = f"{to}: is the configuration of the same store: name that of another one"
        raise UsageError(msg)
    out = CopyResults(as_json=options.json)
    if options.dry_run:
        with _opened(source, there) as target:
            copying = CopyRun(source, target, there.store_id, scope, CopyTotals())
            for left in copying.plan():
                out.fail(left.file, left.why)
            for stored in [each for plan in copying.plans for each in plan.due]:
                out.tell(stored.summary, "would be copied")
        return out.code
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    lost = partial(stop.set, "another process has taken it over, or the store did not answer")
    with (
        recording_command(source),
        claimed(source, there.store_id, lost, tell=print_note, stop=stop.event),
        noted(source, there.store_id, str(there.store), scope, _scheduled(settings, there.store_id)) as totals,
        _opened(source, there) as target,
    ):
        began = time.monotonic()
        copying = CopyRun(source, target, there.store_id, scope, totals)
        stop.pass_on(copying)
        for left in copying.plan():
            out.fail(left.file, left.why)
        _copy(copying, rate, there, out, options)
        out.sum_up(time.monotonic() - began, older=totals.older)
        if totals.why is not None:
            complain(printable(totals.why))
    return out.code if totals.is_complete else Exit.FAILED


class _Stop:
    """That the run is to end, also before it has begun."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._why: tuple[str, ...] = ()
        self._copying: CopyRun | None = None

    def set(self, *why: str) -> None:
        """End the run, from a signal handler or another thread. `why`: none: it was interrupted."""
        self._why = why
        self.event.set()
        if self._copying is not None:
            self._copying.abandon(*why)

    def pass_on(self, copying: CopyRun) -> None:
        """Have this run end with it."""
        self._copying = copying
        if self.event.is_set():
            copying.abandon(*self._why)


def _wanted(options: argparse.Namespace, settings: ReceiverSettings) -> tuple[Path, CopyScope, int]:
    """Return where to, what, and how many bytes a second are copied. Raises: UsageError."""
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_receiver.access.copy_settings import CopyScope
    from fullsend_receiver.cli.selection import split_name

    split_name(options.what)
    scope = CopyScope(() if options.what is None else (options.what,), options.all)
    if options.to is not None:
        return options.to, scope, 0
    if settings.copies is None:
        msg = "name the other store with --to FILE, or in the table [copy] of receiver.toml"
        raise UsageError(msg)
    said = settings.copies.scope
    scope = CopyScope(scope.what or said.what, scope.everything or said.everything)
    return settings.copies.to, scope, settings.copies.bwlimit


def _scheduled(settings: ReceiverSettings, store_id: str) -> CopyScope | None:
    """Return what [copy] wants copied into this store; None: nothing, or its file cannot be read."""
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_receiver.access import config

    if settings.copies is not None:
        with contextlib.suppress(UsageError):
            if config.load(settings.copies.to).store_id == store_id:
                return settings.copies.scope
    return None


@contextlib.contextmanager
def _opened(source: Store, there: ReceiverSettings) -> Iterator[Store]:
    """Open the other store, and be the only process of this host that copies into it. Raises: CopyBusy, UsageError,
    StoreError, OSError.
    """
    from fullsend_receiver.access import identity, opening
    from fullsend_receiver.maintenance.copy_claim import CopyBusy
    from fullsend_receiver.store.errors import folder_error

    target = opening.open_store(there)
    identity.check_same_owner(source, target)
    with contextlib.ExitStack() as stack:
        try:
            mine = stack.enter_context(target.alone("copy"))
        except OSError as error:
            raise folder_error(error, there.folder) from None
        if not mine:
            msg = f"{target.where}: another process copies into it: wait for its end"
            raise CopyBusy(msg)
        yield target


def _copy(copying: CopyRun, rate: int, there: ReceiverSettings, out: CopyResults, options: argparse.Namespace) -> None:
    """Copy what is planned; as [copy] says, at low priority: a person who names a target waits for the end."""
    from fullsend_cli.progress import Progress, showing
    from fullsend_receiver.maintenance.io_priority import step_back

    progress = Progress(time.monotonic(), copying.stored_bytes)
    events = copying.run(rate=rate, keep_free=there.min_free, count=partial(_count, progress))
    # A thread of its own: Linux has priorities for each thread.
    initializer = step_back if options.to is None else None
    with (
        showing(progress, sys.stderr, shown(options)) as line,
        contextlib.closing(events),
        ThreadPoolExecutor(1, initializer=initializer) as thread,
    ):
        while (event := thread.submit(next, events, None).result()) is not None:
            _show(event, progress, line, out)


def _count(progress: Progress, size: int) -> None:
    progress.add(size, size)


def _show(event: CopyEvent, progress: Progress, line: LiveLine, out: CopyResults) -> None:
    from fullsend_cli.progress import short_label
    from fullsend_receiver.maintenance.copy_run import CopyBegun, CopyDone, LeftBehind

    match event:
        case CopyBegun(about=about):
            progress.label = short_label(f"{about.dataset}@{about.snapshot}")
        case CopyDone(about=about, is_new=is_new):
            with line.aside():
                out.tell(about, "copied" if is_new else "is not there any more, or was copied meanwhile")
        case LeftBehind(file=file, why=why):
            with line.aside():
                out.fail(file, why)
