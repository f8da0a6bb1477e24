"""The output of commands: lines for a person, or one JSON object a line for a program."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from fullsend_cli.output import write_line
from fullsend_protocol.format.tables import details, partials_table, table
from fullsend_protocol.shared.units import format_duration, format_size, format_time, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path, PurePosixPath

    from fullsend_protocol.format.manifest import PartialEntry, StreamEntry
    from fullsend_receiver.access.senders import Sender
    from fullsend_receiver.catalogue.scrub_results import Scrubbed
    from fullsend_receiver.catalogue.streams import Stored


def complain(text: str) -> None:
    """Print an error to stderr. `text`: safe for a terminal."""
    print(f"fullsendd: {text}", file=sys.stderr)


def complain_of(problems: Iterable[str]) -> None:
    """Print the problems of the store to stderr. Their names and texts come from outside."""
    for problem in problems:
        complain(printable(problem))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of text."""
    for line in lines:
        write_line(line)


def print_made(store: Path, config: Path, fingerprint: str) -> None:
    """Print what `init` has made, and the next steps."""
    write_line(f"store        {store}")
    write_line(f"config       {config}")
    write_line(f"fingerprint  {fingerprint}")
    print("next: `fullsendd serve`, and `fullsendd invite NAME` for each ZFS host", file=sys.stderr)


def print_sender(sender: Sender, *, as_json: bool) -> None:
    """Print an enrolled sender: since when, and whether it is revoked."""
    enrolled = format_time(sender.enrolled)
    revoked = None if sender.revoked is None else format_time(sender.revoked)
    if as_json:
        row = {"sender": sender.name, "fingerprint": sender.fingerprint, "enrolled": enrolled, "revoked": revoked}
        write_line(json.dumps(row))
    else:
        state = f"revoked {revoked}" if revoked else "enrolled"
        write_line(f"{sender.name:20}  {sender.fingerprint}  {enrolled}  {state}")


def print_partials(partials: Sequence[PartialEntry], *, as_json: bool) -> None:
    """Print the partial streams."""
    print_lines(
        (each.model_dump_json() for each in partials) if as_json else partials_table(partials, with_sender=True)
    )


def print_entries(entries: Iterable[StreamEntry], *, as_json: bool) -> None:
    """Print what is stored."""
    print_lines(
        (each.model_dump_json(by_alias=True) for each in entries) if as_json else table(entries, with_sender=True)
    )


def print_stream(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print all that is known of one stream."""
    print_lines([json.dumps(facts)] if as_json else details(facts))


def print_good(text: str) -> None:
    """Print a check without a problem."""
    write_line(f"ok       {text}")


def print_problem(text: str) -> None:
    """Print a check with a problem."""
    write_line(f"problem  {text}")


def print_rebuilt(file: PurePosixPath) -> None:
    """Print a file that had no manifest, and has one now."""
    print(f"{file}: had no manifest; rebuilt from the file", file=sys.stderr)


class ScrubPrinter:
    """Prints the result for each stream, as it is found. `failed`: how many files are known to be lost already."""

    def __init__(self, *, as_json: bool, failed: int) -> None:
        self.failed = failed
        self.unrecorded = 0
        self._as_json = as_json
        self._checked = self._raw_bytes = 0
        self._started = time.monotonic()

    def removed(self, stored: Stored) -> None:
        complain(f"{stored.file}: was removed before it could be checked")

    def not_recorded(self, error: OSError) -> None:
        self.unrecorded += 1
        if self.unrecorded == 1:
            complain(f"the results cannot be recorded: {error}")

    def add(self, stored: Stored, result: Scrubbed, dependents: Iterable[Stored]) -> None:
        """Print a result. `dependents`: the streams that a damage also breaks."""
        from dataclasses import asdict

        self._checked += 1
        self._raw_bytes += stored.summary.raw_bytes
        self.failed += bool(result.damage)
        if self._as_json:
            write_line(json.dumps(asdict(result)))
        else:
            write_line(f"{'DAMAGED  ' if result.damage else 'ok       '}{stored.file}")
        for line in result.damage:
            complain(f"{stored.file}: {printable(line)}")
        for broken in dependents:
            complain(f"{stored.file}: breaks {broken.file}")

    def end(self) -> None:
        seconds = time.monotonic() - self._started
        streams, raw = plural(self._checked, "stream"), format_size(self._raw_bytes)
        print(f"{streams}, {raw} raw, in {format_duration(seconds)}: {self.failed} damaged", file=sys.stderr)
