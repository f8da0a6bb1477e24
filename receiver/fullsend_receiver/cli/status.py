"""`fullsendd status`: what is stored of each dataset, what a person should look at, and what the daemon does now.

The first line and the exit code are those of a monitoring plugin (Nagios): 0, 1, 2, or 3 if the state is unknown. It
shows the same with and without a daemon; without one nothing can be received, which is critical.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural, printable
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fullsend_cli.running import Commands
    from fullsend_protocol.wire.local import DueStreams, ScrubProgress
    from fullsend_protocol.wire.messages import BeingRead
    from fullsend_receiver.access.config import ReceiverSettings
    from fullsend_receiver.cli.status_output import ServiceState
    from fullsend_receiver.monitor.overview import Overview
    from fullsend_receiver.store.api import Store

_AGE_WORDS: Final = "older is critical, such as 26h; default: as receiver.toml says, or as it has come so far"


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    text = "show all datasets, and what is wrong, for a person or for Nagios (exit 0 to 3)"
    sub = commands.add_parser("status", help=text)
    sub.add_argument(
        "what", nargs="*", metavar="SENDER/DATASET", help="a sender, a dataset, or a pattern of datasets; default: all"
    )
    sub.add_argument("--max-age", metavar="AGE", help=_AGE_WORDS)
    sub.add_argument("-v", "--verbose", dest="more", action="store_true", help="more columns, and each sender")
    sub.add_argument("--json", action="store_true", help="one JSON object")
    sub.set_defaults(run=run, troubled=NagiosState.UNKNOWN)


def run(options: argparse.Namespace) -> int:
    """Survey the store, and ask the daemon. Returns: the exit code of a Nagios plugin."""
    from fullsend_cli.tables import stdout_painter
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_receiver.cli import status_output
    from fullsend_receiver.cli.results import print_lines
    from fullsend_receiver.store.errors import disk_error

    try:
        settings, store = open_store(options)
        overview = _survey(options, settings, store)
    except (FullsendError, OSError) as error:
        why = str(disk_error(error)) if isinstance(error, OSError) else str(error)
        said = {"format": status_output.FORMAT, "state": "UNKNOWN", "why": why}
        print_lines([json.dumps(said) if options.json else printable(f"UNKNOWN: {why}")])
        return NagiosState.UNKNOWN
    service, progress = _ask(store)
    if options.json:
        print_lines([json.dumps(status_output.facts(overview, service, progress))])
    else:
        daemon = service.why if progress is None else f"{progress.program} serves {store.where}"
        scrub = [f"daemon   {printable(daemon)}", *(_lines_without(store) if progress is None else lines(progress))]
        print_lines(status_output.lines(overview, service, scrub, stdout_painter(), more=options.more))
    return status_output.state_of(overview, service)


def _survey(options: argparse.Namespace, settings: ReceiverSettings, store: Store) -> Overview:
    """Return what the command line asks for. Raises: UsageError, StoreError, OSError."""
    from typing import Literal

    from fullsend_protocol.shared.errors import UsageError
    from fullsend_protocol.shared.units import parse_duration
    from fullsend_receiver.access.config import config_file
    from fullsend_receiver.cli.inventory import read_inventory
    from fullsend_receiver.cli.status_output import chosen
    from fullsend_receiver.monitor.alarm_log import read_alarms
    from fullsend_receiver.monitor.survey import take_overview

    max_age = None if options.max_age is None else parse_duration(options.max_age)

    def expected(sender: str, dataset: str) -> float | Literal["learn", "never"]:
        said = settings.expected_every(sender, dataset)
        return said if max_age is None or said == "never" else max_age

    overview = take_overview(
        store,
        settings,
        read_inventory(store),
        rules_since=config_file(options.config).stat().st_mtime,
        before=read_alarms(store.documents),
        expected=expected,
    )
    found = chosen(overview, options.what)
    for pattern in options.what:
        if not chosen(overview, [pattern]).senders:
            raise UsageError(f"{pattern}: nothing of that name is stored (see `fullsendd list`)")
    return found


def lines(progress: ScrubProgress) -> Iterator[str]:
    """Yield how the daemon's checks stand, for a person."""
    reading = progress.reading
    if reading is not None and progress.asked_by is not None:
        yield printable(f"check    {progress.asked_by} waits for {_place(reading)}")
    elif reading is not None:
        end = _end(progress, reading.stored_bytes - reading.read_bytes)
        rate = f", {format_size(progress.rate)} a second" if progress.rate else ""
        busy = "; arriving streams need the disk, so it waits" if progress.busy else ""
        yield printable(f"scrub    reads {_place(reading)}{rate}{end}{busy}")
    if progress.stopped:
        yield "scrub    has stopped, because many streams are damaged: `fullsendd check` says more"
    elif not progress.every:
        yield "scrub    is off (scrub-every = 0): only what arrived in several segments is read"
    elif progress.due is None:
        yield "scrub    what is due is not known yet: the daemon has just started"
    else:
        yield _left(progress, progress.due)
    if progress.resumes is not None:
        yield f"scrub    waits until {progress.resumes}, because of a read error: `fullsendd check` says more"


def _left(progress: ScrubProgress, due: DueStreams) -> str:
    streams = plural(due.streams, "stream")
    if not due.due_streams:
        following = "" if due.next_due is None else f"; the next one is due at {due.next_due}"
        return f"scrub    left to check: 0 of {streams}{following}"
    size = format_size(due.due_bytes)
    return f"scrub    left to check: {due.due_streams} of {streams}, {size}{_end(progress, due.due_bytes)}"


def _place(reading: BeingRead) -> str:
    return f"{reading.file}: {format_size(reading.read_bytes)} of {format_size(reading.stored_bytes)}"


def _end(progress: ScrubProgress, left: int) -> str:
    """Return when so many bytes are read, if the daemon goes on as it did of late."""
    now = parse_time(progress.now)
    if not progress.rate or now is None:
        return ""
    rate = min(progress.rate, progress.limit or progress.rate)  # at first it reads faster, and waits then
    return f", until about {format_time(now + left / rate)}"


def _ask(store: Store) -> tuple[ServiceState, ScrubProgress | None]:
    """Ask the daemon what it checks now; None: none answers."""
    from fullsend_protocol.shared.errors import FullsendError, reason
    from fullsend_protocol.wire.local import ScrubProgress, ScrubWanted
    from fullsend_receiver.cli import asking
    from fullsend_receiver.cli.status_output import ServiceState

    try:
        connection = asking.connect(store)
        if connection is None:
            return ServiceState(None, f"no daemon runs that commands can ask (store {store.where})"), None
        with connection:
            progress = asking.ask(connection, ScrubWanted(), ScrubProgress)
    except (FullsendError, OSError) as error:
        return ServiceState(None, f"the daemon does not answer: {reason(error)}"), None
    return ServiceState(progress.program), progress


def _lines_without(store: Store) -> Iterator[str]:
    from fullsend_receiver.maintenance import checkpoints

    found = checkpoints.read(store)
    if found is not None:
        read = f"{format_size(found.reading.stored_bytes)} of {format_size(found.stored_bytes)}"
        yield printable(f"scrub    {found.file}: {read} was read until {found.at}")
