"""`fullsendd pin`: keep a stream, and all that it builds on, whatever the policy says."""

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
    sub = commands.add_parser("pin", help="keep a stream, and all that it builds on, whatever the policy says")
    sub.add_argument("stream", metavar="SENDER/STREAM")
    sub.add_argument(
        "--until", metavar="DURATION|DATE", help="such as 90d, or 2027-06-30 (its end, UTC); default: for ever"
    )
    sub.add_argument("--note", default="", metavar="TEXT", help="why; `list` and `prune` show it")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Pin. Returns: the exit code. Raises: UsageError, StoreError, NoSuchStream."""
    from fullsend_receiver.catalogue import pins
    from fullsend_receiver.catalogue.streams import NoSuchStream
    from fullsend_receiver.cli.selection import find
    from fullsend_receiver.maintenance.clock import SystemClock

    _settings, store = open_store(options)
    _catalogue, stored = find(store, options.stream)
    now = SystemClock().read().wall
    until = None if options.until is None else parse_until(options.until, now)
    pins.pin(store.documents, [stored.file], now=now, until=until, note=options.note)
    # A prune that has read the pins before this one has removed all that it chose when this returns.
    store.wait_for_removals()
    if not store.has(stored.file):
        pins.unpin(store.documents, stored.file)
        msg = f"{options.stream}: was removed at this moment, and is not pinned"
        raise NoSuchStream(msg)
    return Exit.OK


def parse_until(text: str, now: float) -> float:
    """Read the end of a pin: a duration from `now` on, a day (its end, UTC), or a time as `list` prints it.

    Returns: seconds since the epoch. Raises: UsageError if it is not one of these, or is over.
    """
    from datetime import UTC, date, datetime, timedelta

    from fullsend_protocol.shared.units import parse_duration, parse_time

    until = parse_time(text)
    if until is None:
        try:
            day = date.fromisoformat(text)
            until = (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)).timestamp()
        except (ValueError, OverflowError):
            try:
                until = now + parse_duration(text)
            except UsageError:
                msg = f"--until {text}: neither a duration such as 90d, nor a day such as 2027-06-30"
                raise UsageError(msg) from None
    if until <= now:
        msg = f"--until {text}: is over already"
        raise UsageError(msg)
    return until
