"""`fullsendd clock`: whether this host's clock can be trusted with deleting, and that it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("clock", help="show whether a prune trusts this host's clock")
    sub.add_argument("--accept", action="store_true", help="the clock is right as it is now: prune by it again")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show, or accept. Returns: the exit code, FAILED if prunes refuse it. Raises: UsageError, StoreError."""
    from fullsend_protocol.shared.units import format_time
    from fullsend_receiver.catalogue.service import Catalogues
    from fullsend_receiver.cli.results import CheckResults
    from fullsend_receiver.maintenance import clock
    from fullsend_receiver.maintenance.prune import newest_reception

    out = CheckResults()
    _settings, store = open_store(options)
    newest = newest_reception(Catalogues(store))  # before the clock: what comes meanwhile is not from the future
    now = clock.SystemClock().read()
    if options.accept:
        clock.accept(store.documents, now, newest)
    wrong = clock.objection(store.documents, now, newest)
    if wrong is not None:
        out.problem(wrong)
        return Exit.FAILED
    out.good(f"clock {format_time(now.wall)}")
    doubt = clock.waits_for(store.documents, now)
    if doubt is not None:
        out.warning(f"{doubt}: the daily prune waits")
    return Exit.OK
