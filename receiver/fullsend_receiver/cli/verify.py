"""`fullsendd verify`: read and check what is stored."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import add_quiet, open_store, shown

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.progress import Progress
    from fullsend_cli.running import Commands
    from fullsend_receiver.catalogue.streams import StoredStream
    from fullsend_receiver.maintenance.progress import ReadProgress
    from fullsend_receiver.maintenance.verify import Checked, Removed, Subject, Verifier


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("verify", help="read and check what is stored, byte by byte")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    add_quiet(sub)
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Verify. Returns: the exit code, FAILED if something is damaged. Raises: UsageError, StoreError."""
    from fullsend_cli.progress import Progress, showing
    from fullsend_protocol.shared.units import plural
    from fullsend_receiver.cli.results import Findings
    from fullsend_receiver.cli.selection import select
    from fullsend_receiver.cli.working import told
    from fullsend_receiver.events.emit import emit
    from fullsend_receiver.events.records import VerifyFinished
    from fullsend_receiver.maintenance.check_events import CheckCounts, report_check
    from fullsend_receiver.maintenance.progress import ReadProgress
    from fullsend_receiver.maintenance.verify import Checked, Rebuilt, Verifier, take_back, unlisted
    from fullsend_receiver.store.event_recorder import recording_command

    _settings, store = open_store(options)
    findings = Findings(as_json=options.json)
    catalogue, chosen = select(store, options.what)
    rebuilt = False
    for finding in take_back(store, catalogue.problems):
        findings.add(finding)
        rebuilt = rebuilt or isinstance(finding, Rebuilt)
    if rebuilt:
        catalogue, chosen = select(store, options.what)

    def dependents(subject: Subject) -> list[str]:
        stored = catalogue.at(subject.file)
        return [] if stored is None else [str(each.file) for each in catalogue.dependents(stored)]

    # A person looks at the result: the daemon's own checks, which stop when much is damaged, may resume.
    verifier = Verifier(store, functools.partial(catalogue.scrubbed.add, asked=True), dependents)
    began, counts = time.monotonic(), CheckCounts()
    progress = Progress(began, sum(stored.summary.stored_bytes for stored in chosen))
    reads = ReadProgress()
    with recording_command(store):
        with showing(progress, sys.stderr, shown(options)) as line, told(store, lambda: reads.live):
            for stored in chosen:
                found = _check(verifier, stored, progress, reads)
                with line.aside():
                    findings.add(found)
                if isinstance(found, Checked):
                    counts.add(found)
                    report_check(found, store.disk)
        seconds = time.monotonic() - began
        lacking = f", {counts.unreadable} could not be read" if counts.unreadable else ""
        text = f"verified: {plural(counts.streams, 'stream')}: {counts.damaged} damaged{lacking}"
        emit(VerifyFinished(text=text, what=options.what or "", seconds=round(seconds, 1), **asdict(counts)))
    findings.sum_up()
    for unread in unlisted(catalogue.problems):
        findings.add(unread)
    return Exit.FAILED if findings.failed else Exit.OK


def _check(verifier: Verifier, stored: StoredStream, progress: Progress, reads: ReadProgress) -> Checked | Removed:
    """Check one stream, and count its stored bytes as they are read."""
    from fullsend_cli.progress import short_label
    from fullsend_receiver.maintenance.verify import Subject

    subject, size, before = Subject.of(stored), stored.summary.stored_bytes, progress.raw
    progress.label = short_label(subject.name)
    check = verifier.begin(subject)

    def between() -> None:
        # A second pass over a file begins at its start again.
        progress.raw = before + min(size, check.reading.stored_bytes)

    with reads.reading(check, size, stored.summary.sender, what=subject.name):
        result = check.run(between)
    progress.raw = before + size
    return verifier.conclude(subject, check, result)
