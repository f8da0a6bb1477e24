"""The output of commands: lines for a person, or one JSON object a line for a program."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from fullsend_cli.output import write_line
from fullsend_protocol.format.tables import details, partials_table, table
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_duration, format_size, format_time, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path, PurePosixPath

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_receiver.access.senders import Sender
    from fullsend_receiver.catalogue.pins import PinEntry
    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
    from fullsend_receiver.maintenance.undelete import TrashEntry
    from fullsend_receiver.maintenance.verify import Checked, Finding
    from fullsend_receiver.store.api import AsideStream, ProbeFinding
    from fullsend_receiver.store_s3.place import BucketPlace


#: How `verify` prints each verdict.
_VERDICTS: Final = {"whole": "ok", "damaged": "DAMAGED", "unreadable": "UNREAD"}


#: What `verify --json` prints of each result.
_RESULT: Final = ("file", "received", "at", "verdict", "damage", "unreadable", "sha256")


def complain(text: str) -> None:
    """Print an error to stderr. `text`: safe for a terminal."""
    print(f"fullsendd: {text}", file=sys.stderr)


def complain_of(problems: Iterable[object]) -> None:
    """Print the problems of the store to stderr. Their names and texts come from outside."""
    for problem in problems:
        complain(printable(str(problem)))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of text."""
    for line in lines:
        write_line(line)


def print_made(store: Path | BucketPlace, config: Path, fingerprint: str, *, new_key: bool = False) -> None:
    """Print what `init` has made, and the next steps. `new_key`: senders know the store by another key."""
    write_line(f"store        {store}")
    write_line(f"config       {config}")
    write_line(f"fingerprint  {fingerprint}")
    again = " --replace` for each ZFS host: it must join again" if new_key else "` for each ZFS host"
    print(f"next: `fullsendd serve`, and `fullsendd invite NAME{again}", file=sys.stderr)


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


def print_aside(aside: Iterable[AsideStream], *, keep: float, as_json: bool) -> None:
    """Print what is set aside as damaged. `keep`: seconds for which it is kept."""
    for each in aside:
        at, until = format_time(each.at), format_time(each.at + keep)
        if as_json:
            row = {"name": f"aside:{each.name}" if each.file else None, "sender": each.sender, "what": each.what}
            more = {"stored_bytes": each.stored_bytes, "at": at, "until": until, "why": each.why}
            write_line(json.dumps(row | more))
        else:
            name = f"{each.sender}/aside:{each.name}" if each.file else f"{each.sender}/-"
            size = format_size(each.stored_bytes)
            write_line(printable(f"{name}  {each.what}  {size}  {at}, deleted {until}  {each.why}"))


def print_entries(
    catalogue: Catalogue, chosen: Iterable[StoredStream], pins: Mapping[str, PinEntry], *, as_json: bool
) -> None:
    """Print what is stored. `pins`: those in force, by file."""
    if as_json:
        for stored in chosen:
            entry = catalogue.entry(stored)
            more = pin_facts(pins, entry.file) | check_facts(catalogue, stored)
            # As pydantic writes it: 100,000 of them are printed in a second or two.
            write_line(f"{entry.model_dump_json(by_alias=True)[:-1]},{json.dumps(more)[1:]}")
        return
    marks = {file: "pinned" + (f" until {pin.until}" if pin.until else "") for file, pin in pins.items()}
    print_lines(table((catalogue.entry(stored) for stored in chosen), with_sender=True, marks=marks))


def check_facts(catalogue: Catalogue, stored: StoredStream) -> dict[str, object]:
    """Return what the JSON object of a stream says of its checks, beside what a sender is told."""
    checked = catalogue.checked(stored)
    return {
        "whole_since": None if checked is None else checked.whole_since,
        "unreadable": None if checked is None else checked.unreadable,
    }


def pin_facts(pins: Mapping[str, PinEntry], file: str) -> dict[str, object]:
    """Return what the JSON object of a stream says of its pin. `pins`: those in force, by file."""
    pin = pins.get(file)
    return {"pinned": None if pin is None else {"at": pin.at, "until": pin.until, "note": pin.note}}


def print_stream(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print all that is known of one stream."""
    print_lines([json.dumps(facts)] if as_json else details(facts))


def print_trash(entries: Sequence[TrashEntry], *, as_json: bool) -> None:
    """Print what is in the trash."""
    for entry in entries:
        about, at = entry.manifest, entry.dropped
        dropped = None if at is None else format_time(at)
        if as_json:
            row: dict[str, object] = {
                "sender": about.sender,
                "dataset": about.dataset,
                "snapshot": about.snapshot,
                "guid": about.guid,
            }
            row |= {"base_guid": about.base_guid, "file": str(entry.place.file), "dropped": dropped}
            write_line(json.dumps(row | {"stored_bytes": entry.place.size}))
        else:
            name = printable(f"{about.sender}/{about.dataset}@{about.snapshot}")
            write_line(f"dropped {dropped or '?'}  {name}  {format_size(entry.place.size)}")
    total = format_size(sum(entry.place.size for entry in entries))
    print_note(f"{plural(len(entries), 'stream')} in the trash, {total}")


def print_undeleted(files: Iterable[PurePosixPath], *, as_json: bool) -> None:
    """Print what has come back from the trash."""
    for file in files:
        write_line(json.dumps({"file": str(file)}) if as_json else f"back     {file}")


def print_note(text: str) -> None:
    """Print what is no result, and no error. `text`: safe for a terminal."""
    print(text, file=sys.stderr)


class CheckResults:
    """Prints what checks have found, a line each."""

    def __init__(self, *, as_json: bool = False) -> None:
        """`as_json`: one JSON object a line."""
        self._as_json = as_json

    def good(self, text: str, **facts: object) -> None:
        """Print a check without a problem. `facts`: more keys of the JSON object."""
        self._print("ok", text, facts)

    def warning(self, text: str) -> None:
        """Print a check that found what may become a problem."""
        self._print("warning", text, {})

    def problem(self, text: str) -> None:
        """Print a check with a problem."""
        self._print("problem", text, {})

    def place(self, findings: Iterable[ProbeFinding]) -> bool:
        """Print what a store's place promises, and what it lacks. Returns: whether it lacks what a store needs."""
        refuses = False
        for each in findings:
            says = printable(f"{each.what}{': ' if each.says else ''}{each.says}")
            if each.holds:
                self.good(says)
            elif each.needed:
                refuses = True
                self.problem(f"{says}: not fit for a store")
            else:
                self.good(f"without {says}")
        return refuses

    def _print(self, result: str, text: str, facts: Mapping[str, object]) -> None:
        write_line(json.dumps({"result": result, "text": text, **facts}) if self._as_json else f"{result:7}  {text}")


class Findings:
    """Prints the findings of `verify`, as they are made. `failed`: whether there is a problem."""

    def __init__(self, *, as_json: bool) -> None:
        self.failed = False
        self._damaged = self._unreadable = 0
        self._unrecorded = False
        self._as_json = as_json
        self._checked = self._raw_bytes = 0
        self._started = time.monotonic()

    def add(self, finding: Finding) -> None:
        """Print one finding."""
        from fullsend_receiver.maintenance.verify import Checked, Lost, Rebuilt, Removed, Unlisted

        match finding:
            case Rebuilt():
                print(f"{finding.file}: had no manifest; rebuilt from the file", file=sys.stderr)
            case Removed():
                complain(f"{finding.subject.file}: was removed before it could be checked")
            case Lost():
                self.failed = True
                self._damaged += 1
                complain_of([finding.why])
            case Unlisted():
                self.failed = True
                complain_of([str(finding.problem)])
            case Checked():
                self._add_checked(finding)

    def sum_up(self) -> None:
        """Print how much was checked, and the number of damaged streams."""
        seconds = time.monotonic() - self._started
        streams, raw = plural(self._checked, "stream"), format_size(self._raw_bytes)
        unread = f", {self._unreadable} could not be read" if self._unreadable else ""
        print(f"{streams}, {raw} raw, in {format_duration(seconds)}: {self._damaged} damaged{unread}", file=sys.stderr)

    def _add_checked(self, checked: Checked) -> None:
        from fullsend_receiver.store.errors import disk_error

        file, result = checked.subject.file, checked.result
        if checked.unrecorded is not None:
            self.failed = True
            if not self._unrecorded:
                complain(f"the results cannot be recorded: {printable(str(disk_error(checked.unrecorded)))}")
            self._unrecorded = True
        self._checked += 1
        self._raw_bytes += checked.subject.raw_bytes
        self.failed = self.failed or bool(result.damage) or result.unreadable is not None
        self._damaged += bool(result.damage)
        self._unreadable += result.unreadable is not None
        if self._as_json:
            write_line(json.dumps({name: getattr(result, name) for name in _RESULT}))
        else:
            write_line(f"{_VERDICTS[result.verdict]:9}{file}")
        for line in checked.passing:
            complain(f"{file}: was wrong once, and right when it was read again from the disk: {printable(line)}")
        for line in result.damage:
            complain(f"{file}: {printable(line)}")
        if result.unreadable is not None:
            complain(f"{file}: not checked, and not known to be damaged by that: {printable(result.unreadable)}")
        if checked.healed:
            complain(f"{file}: was damaged, and is whole")
        for broken in checked.breaks:
            complain(f"{file}: breaks {broken}")


class CopyResults:
    """Prints what `copy` has done. `code`: the exit code so far."""

    def __init__(self, *, as_json: bool) -> None:
        """Prints nothing yet."""
        self.code = Exit.OK
        self._as_json = as_json
        self._copied = self._bytes = 0

    def tell(self, about: Summary, result: str) -> None:
        """Print what has become of a stream."""
        if result == "copied":
            self._copied += 1
            self._bytes += about.stored_bytes
        row = {"file": about.path, "result": result, "stored_bytes": about.stored_bytes}
        self._print(row, f"{about.path}: {result}")

    def fail(self, file: str, why: str) -> None:
        """Print why a stream is not copied."""
        self._print({"file": file, "result": "failed", "why": why}, f"{file}: not copied: {why}")
        self.code = Exit.FAILED

    def sum_up(self, seconds: float, *, older: int) -> None:
        """Print the last lines, for a person. `older`: streams that are older than the newest copy, and not copied."""
        if older:
            print(f"{plural(older, 'older stream')} not copied: --all copies what was pruned there", file=sys.stderr)
        if not self._as_json:
            done = f"{plural(self._copied, 'stream')} copied, {format_size(self._bytes)}"
            print(f"{done} in {format_duration(seconds)}", file=sys.stderr)

    def _print(self, row: Mapping[str, object], text: str) -> None:
        write_line(json.dumps(row) if self._as_json else printable(text))
