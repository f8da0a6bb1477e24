"""`fullsendd copy`: stored streams into another store."""

from __future__ import annotations

import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_receiver.cli.configuration import add_quiet, open_store, shown

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.progress import LiveLine, Progress
    from fullsend_cli.running import Commands
    from fullsend_receiver.cli.results import CopyResults
    from fullsend_receiver.maintenance.copying import Copier, CopyPlan


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("copy", help="copy stored streams into another store, byte for byte")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]", help="default: all")
    sub.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="the receiver.toml of the other store (`fullsendd init`)"
    )
    sub.add_argument(
        "--all", action="store_true", help="also what is older than the newest copy, such as what was pruned there"
    )
    sub.add_argument("--bwlimit", default="0", metavar="RATE", help="stored bytes a second, such as 20M; 0: no limit")
    sub.add_argument("--dry-run", action="store_true", help="say what would be copied, and copy nothing")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    add_quiet(sub)
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Copy. Returns: the exit code, FAILED if something is not copied. Raises: UsageError, StoreError, OSError."""
    from fullsend_cli.progress import Progress, showing
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_protocol.shared.units import parse_size
    from fullsend_receiver.access import config, identity, opening
    from fullsend_receiver.cli.results import CopyResults
    from fullsend_receiver.cli.selection import split_name
    from fullsend_receiver.maintenance.copying import Copier, plan_copy

    settings, source = open_store(options)
    rate = parse_size(options.bwlimit)
    there = config.load(options.to)
    if there.store_id == settings.store_id:
        msg = f"{options.to}: is the configuration of the same store: name that of another one"
        raise UsageError(msg)
    target = opening.open_store(there)
    identity.check_same_owner(source, target)
    sender, dataset = split_name(options.what)
    names = source.senders() if sender is None else [sender]
    with target.alone("copy") as mine:
        if not mine:
            msg = f"{target.where}: another process copies into it: wait for its end"
            raise UsageError(msg)
        plans = [plan_copy(source, target, name, dataset, everything=options.all) for name in names]
        out = CopyResults(as_json=options.json)
        for plan in plans:
            for file, why in plan.left_out.items():
                out.fail(file, why)
        if options.dry_run:
            for plan in plans:
                for stored in plan.due:
                    out.tell(stored.summary, "would be copied")
            return out.code
        progress = Progress(time.monotonic(), sum(plan.stored_bytes for plan in plans))
        count = partial(_count, progress)
        copier = Copier(source, target, rate=rate, keep_free=there.min_free, count=count)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: copier.abandon())
        with showing(progress, sys.stderr, shown(options)) as line:
            for plan in plans:
                _copy(copier, plan, progress, line, out)
    out.sum_up(time.monotonic() - progress.began, older=sum(plan.older for plan in plans))
    return out.code


def _count(progress: Progress, size: int) -> None:
    progress.add(size, size)


def _copy(copier: Copier, plan: CopyPlan, progress: Progress, line: LiveLine, out: CopyResults) -> None:
    """Copy what is due of one sender. A stream that cannot be copied does not keep the others from it."""
    from fullsend_cli.progress import short_label
    from fullsend_protocol.shared.errors import FullsendError, reason
    from fullsend_receiver.maintenance.copying import CopyAbandoned
    from fullsend_receiver.store.errors import StoreMissing, StoreUnreadable

    for stored in plan.due:
        about = stored.summary
        progress.label = short_label(f"{about.dataset}@{about.snapshot}")
        try:
            done = copier.copy(stored, plan.bases.get(about.path, ()), plan.replaces.get(about.path))
        except (StoreMissing, StoreUnreadable) as error:
            with line.aside():
                out.fail(about.path, str(error))
            return
        except FullsendError as error:
            with line.aside():
                out.fail(about.path, str(error))
        except CopyAbandoned:
            with line.aside():
                out.fail(about.path, "interrupted: the next `copy` resumes it")
            return
        except OSError as error:
            with line.aside():
                out.fail(about.path, reason(error))
        else:
            with line.aside():
                out.tell(about, "copied" if done else "is not there any more, or was copied meanwhile")
