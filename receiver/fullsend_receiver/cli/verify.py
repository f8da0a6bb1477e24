"""`fullsendd verify`: read and check what is stored."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("verify", help="read and check what is stored, byte by byte")
    sub.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Verify. Returns: the exit code, FAILED if something is damaged. Raises: UsageError, StoreError."""
    from fullsend_receiver.cli.results import Findings
    from fullsend_receiver.cli.selection import select
    from fullsend_receiver.maintenance.verify import Rebuilt, Subject, Verifier, take_back, unlisted

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
    for stored in chosen:
        findings.add(verifier.check(Subject.of(stored)))
    findings.sum_up()
    for unread in unlisted(catalogue.problems):
        findings.add(unread)
    return Exit.FAILED if findings.failed else Exit.OK
