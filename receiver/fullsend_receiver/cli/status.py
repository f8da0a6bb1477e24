"""`fullsendd status`: what the daemon checks now, and what is left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural, printable
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fullsend_cli.running import Commands
    from fullsend_protocol.wire.local import DueStreams, ScrubProgress
    from fullsend_protocol.wire.messages import BeingRead
    from fullsend_receiver.store.local import LocalStore


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("status", help="show what the daemon checks now, and what is left to check")
    sub.add_argument("--json", action="store_true", help="one JSON object")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon. Returns: the exit code, FAILED if none runs. Raises: UsageError, StoreError, Unreachable."""
    from fullsend_receiver.cli.results import print_lines

    _settings, store = open_store(options)
    progress = _ask(store)
    if progress is None:
        print_lines([json.dumps(_facts_without(store))] if options.json else _lines_without(store))
        return Exit.FAILED
    if options.json:
        facts = progress.model_dump(exclude={"type", "program"})
        print_lines([json.dumps({"daemon": progress.program, "store": store.where, "scrub": facts})])
    else:
        print_lines([f"daemon   {printable(f'{progress.program} serves {store.where}')}", *lines(progress)])
    return Exit.OK


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


def _ask(store: LocalStore) -> ScrubProgress | None:
    """Ask the daemon; None: none runs. Raises: Unreachable if it does not answer."""
    from fullsend_protocol.shared.errors import FullsendError, Unreachable, reason
    from fullsend_protocol.wire.local import ScrubProgress, ScrubWanted
    from fullsend_receiver.cli import asking

    try:
        connection = asking.connect(store)
        if connection is None:
            return None
        with connection:
            return asking.ask(connection, ScrubWanted(), ScrubProgress)
    except (FullsendError, OSError) as error:
        msg = f"the daemon does not answer: {reason(error)}"
        raise Unreachable(msg) from None


def _lines_without(store: LocalStore) -> Iterator[str]:
    from fullsend_receiver.maintenance import checkpoints

    yield f"daemon   none runs that commands can ask (store {printable(store.where)})"
    found = checkpoints.read(store)
    if found is not None:
        read = f"{format_size(found.reading.stored_bytes)} of {format_size(found.stored_bytes)}"
        yield printable(f"scrub    {found.file}: {read} was read until {found.at}")


def _facts_without(store: LocalStore) -> dict[str, object]:
    return {"daemon": None, "store": store.where, "scrub": None}
