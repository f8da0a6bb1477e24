"""The output of commands: lines for a person, or one JSON object a line for a program."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from fullsend_cli.output import write_line
from fullsend_protocol.shared.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fullsend_protocol.format.manifest import PartialEntry, StreamEntry
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_protocol.wire.messages import Verdict
    from fullsend_sender.drill.run import DrillOutcome
    from fullsend_sender.host.config import SenderSettings
    from fullsend_sender.monitor.all_receivers import ReceiverPart
    from fullsend_sender.monitor.check import Finding
    from fullsend_sender.monitor.prove import ProofOutcome
    from fullsend_sender.restore.run import Restored, RestoreJob
    from fullsend_sender.transfer.pairing import Paired
    from fullsend_sender.transfer.send import Pushed


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False)


def _room(settings: SenderSettings) -> str:
    """Return the text that clears a live progress line before a result; "" without one."""
    from fullsend_cli.progress import CLEAR, is_live

    return CLEAR if is_live(sys.stderr, settings.progress) else ""


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of text."""
    for line in lines:
        write_line(line)


def print_paired(paired: Paired) -> None:
    """Print the receiver with which this host is paired."""
    write_line(
        f"paired: receiver {paired.receiver!r} knows this host as {paired.sender!r} (written to {paired.config})"
    )


def print_commands(lines: Sequence[str], *, as_json: bool) -> None:
    """Print the commands of `-n`."""
    for line in lines:
        command, _, about = line.partition("  # ")
        write_line(_json({"command": command, "about": about or None}) if as_json else line)


def pushed_printer(settings: SenderSettings, *, as_json: bool) -> Callable[[Pushed], None]:
    """Return the function that prints each stored stream."""
    from fullsend_protocol.format.lost_spills import warnings
    from fullsend_sender.host.log import log

    room = _room(settings)

    def say(pushed: Pushed) -> None:
        if as_json:
            write_line(_json(pushed.to_dict()), flush=True)
        if room and not as_json:
            # One push has its own progress line, which has ended; several share one that continues.
            print((room if settings.jobs > 1 else "") + printable(pushed.line()), file=sys.stderr)
        else:
            log.info("%s", pushed.line())
        for line in warnings(pushed.receipt.lost_spills):
            log.warning("%s", line)

    return say


class EntryPrinter:
    """Prints what is stored: JSON as it comes, or a table at the end. `counts`: of streams so far, by dataset."""

    def __init__(self, *, as_json: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._as_json = as_json
        self._kept: list[StreamEntry] = []

    def add(self, entry: StreamEntry) -> None:
        self.counts[entry.dataset] += 1
        if self._as_json:
            write_line(entry.model_dump_json(by_alias=True))
        else:
            self._kept.append(entry)

    def end(self) -> None:
        from fullsend_protocol.format.tables import table

        print_lines(table(self._kept, with_sender=False))


def print_partials(partials: Sequence[PartialEntry], *, as_json: bool) -> None:
    """Print the partial streams."""
    from fullsend_protocol.format.tables import partials_table

    print_lines(
        (each.model_dump_json() for each in partials) if as_json else partials_table(partials, with_sender=False)
    )


def print_stream(entry: StreamEntry, *, as_json: bool) -> None:
    """Print all that is known of one stream."""
    from fullsend_protocol.format.tables import details

    facts = entry.model_dump(mode="json", by_alias=True)
    print_lines([_json(facts)] if as_json else details(facts))


def print_judged(parts: Sequence[ReceiverPart], *, as_json: bool, more: bool = False) -> None:
    """Print the state of each dataset's backups, and of each receiver; without JSON, first a line with the worst for a
    monitoring system. `more`: more columns.
    """
    from fullsend_cli.tables import stdout_painter
    from fullsend_sender.cli import status_output

    if as_json:
        print_lines(_json(facts) for part in parts for facts in part.to_dicts())
    else:
        print_lines(status_output.lines(parts, stdout_painter(), more=more))


def print_unknown(error: FullsendError, *, as_json: bool) -> None:
    """Print why the state is unknown: on stdout, because a monitoring system reads that alone."""
    write_line(_json({"state": "UNKNOWN", "why": str(error)}) if as_json else printable(f"UNKNOWN: {error}"))


class RestorePrinter:
    """Prints each restored dataset, and at the end how to mount those that were kept unmounted."""

    def __init__(self, settings: SenderSettings, *, as_json: bool) -> None:
        self._as_json = as_json
        self._room = _room(settings)
        self._cautious: list[Restored] = []
        self._restored: set[str] = set()

    def add(self, restored: Restored) -> None:
        self._restored.add(restored.wanted.dataset)
        if restored.undo:
            self._cautious.append(restored)
        print(self._room, end="", file=sys.stderr, flush=True)
        write_line(_json(restored.to_dict()) if self._as_json else printable(restored.line()), flush=True)

    def left_out(self, notes: Mapping[str, str]) -> None:
        """Print, in JSON, the notes about datasets of which nothing was restored. `notes`: by dataset."""
        for name in (name for name in notes if self._as_json and name not in self._restored):
            write_line(_json({"dataset": name, "target": None, "streams": 0, "note": notes[name]}))

    def end(self, job: RestoreJob) -> None:
        if not self._cautious or self._as_json:
            return
        package = any(each.package for each in self._cautious)
        undo = job.undo_all([each.target for each in self._cautious], package=package)
        write_line(f"not mounted, and will not mount at boot (canmount=noauto); to undo that: {undo}")


class VerdictPrinter:
    """Prints the receiver's verdict on each stream, as it arrives."""

    def __init__(self, settings: SenderSettings, *, as_json: bool) -> None:
        self._as_json = as_json
        self._room = _room(settings)
        self.whole = self.damaged = self.size = 0

    def add(self, verdict: Verdict) -> None:
        from fullsend_sender.monitor.verify import describe

        self.size += verdict.raw_bytes
        self.whole += not verdict.damage
        self.damaged += bool(verdict.damage)
        if self._as_json or verdict.damage:
            print(self._room, end="", file=sys.stderr, flush=True)
        if self._as_json:
            write_line(verdict.model_dump_json(exclude={"type"}), flush=True)
            return
        for line in describe(verdict):
            write_line(line, flush=True)

    def end(self) -> None:
        from fullsend_protocol.shared.units import format_size, plural

        verb = "is" if self.whole == 1 else "are"
        write_line(f"{plural(self.whole, 'stream')} {verb} whole, {format_size(self.size)} raw")


class OutcomePrinter:
    """Prints what was proven. `count`: the number of streams; `proven`, `wrong`: how many are, or need a person."""

    def __init__(self, *, as_json: bool, all_lines: bool, named: bool) -> None:
        """`all_lines`: print a line of each stream; otherwise of those that need a person, and, if a person has `named`
        the streams, of those that cannot be proven.
        """
        self._as_json = as_json
        self._all = all_lines
        self._named = named
        self.count = self.proven = self.wrong = 0

    def add(self, outcome: ProofOutcome) -> None:
        self.count += 1
        self.proven += outcome.is_proven
        self.wrong += outcome.is_wrong
        if self._as_json:
            write_line(_json(outcome.to_dict()), flush=True)
        elif self._all or outcome.is_wrong or (self._named and not outcome.is_proven):
            write_line(outcome.line(), flush=True)

    def end(self) -> None:
        from fullsend_protocol.shared.units import plural

        left = self.count - self.proven
        more = f", {left} cannot be proven by this host" if left else ""
        write_line(f"{plural(self.proven, 'stream')} proven{more}" if self.count else "nothing is left to prove")


def print_outcome(outcome: DrillOutcome, settings: SenderSettings, *, as_json: bool, talks: bool) -> None:
    """Print the result of a drill. `talks`: also one that is ok; otherwise only -v logs that."""
    from fullsend_sender.host.log import log

    if as_json:
        write_line(_json(outcome.to_dict()), flush=True)
    elif talks or not outcome.ok:
        print(_room(settings), end="", file=sys.stderr, flush=True)
        write_line(outcome.line(), flush=True)
    if not outcome.ok:
        log.error("the drill has failed: %s: %s", outcome.name, outcome.text)


def print_finding(finding: Finding, *, as_json: bool) -> None:
    """Print one check and its result."""
    write_line(_json(finding.to_dict()) if as_json else finding.line(), flush=True)
