"""The output of `prune`: a line for each stream, and what keeps others from going."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.units import format_duration, format_size, plural, printable
from fullsend_receiver.cli.results import complain, print_lines, print_note
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import PruneFinished
from fullsend_receiver.maintenance.locked_total import LockedTotal
from fullsend_receiver.maintenance.merging import Merged, NotMerged
from fullsend_receiver.maintenance.prune import ChainHeld, Judged, MergePlanned, NothingGoes
from fullsend_receiver.store.locks import lock_end

if TYPE_CHECKING:
    from fullsend_receiver.maintenance.merging import MergeEvent
    from fullsend_receiver.maintenance.prune import PruneEvent
    from fullsend_receiver.maintenance.thinning import Merge

#: Characters of the column of reasons.
_REASON: Final = 40
_SHOWN: Final = ("sender", "dataset", "snapshot", "guid", "received", "file", "stored_bytes")


class Pruned:
    """Prints what a prune does, as it is done. `failed`: whether something keeps it from its work."""

    def __init__(self, *, as_json: bool, dry_run: bool) -> None:
        self.failed = False
        self._as_json = as_json
        self._dry_run = dry_run
        self._stopped: set[str] = set()  # senders of which something does not go
        self._streams = self._dropped = self._freed = self._merges = self._thinned = 0
        self._locked = LockedTotal()

    def add(self, event: PruneEvent | MergeEvent) -> None:
        """Print one event."""
        match event:
            case Judged():
                self._add_stream(event)
            case NothingGoes():
                self.failed = True
                self._stopped.add(event.sender)
                complain(printable(f"{event.sender}/{event.dataset}: nothing goes: {event.why}"))
            case ChainHeld():
                print_note(printable(f"{event.sender}/{event.chain.reason}"))
            case MergePlanned():
                self._add_plan(event.sender, event.merge, event.seconds)
            case Merged():
                self._add_merged(event)
            case NotMerged():
                self.failed = self.failed or event.failed
                say = complain if event.failed else self.note
                say(printable(f"{_named(event.sender, event.merge)}: not merged: {event.why}"))

    def fail(self, sender: str) -> None:
        """The prune of a sender has ended with an error."""
        self.failed = True
        self._stopped.add(sender)

    def note(self, what: str) -> None:
        """Print a line for people."""
        print_note(what)

    def sum_up(self) -> None:
        """Print how much was dropped."""
        done = "would be dropped" if self._dry_run else "dropped"
        freed = "would be freed" if self._dry_run else "freed"
        print_note(f"{plural(self._streams, 'stream')}, {self._dropped} {done}, {format_size(self._freed)} {freed}")
        if self._locked.line:
            print_note(self._locked.line)

    def report(self) -> None:
        """Say the same as an event."""
        text = f"pruned: {plural(self._dropped, 'stream')} dropped, {format_size(self._freed)} freed"
        emit(
            PruneFinished(
                text=f"{text}; {self._locked.line}" if self._locked.line else text,
                why="command",
                dropped=self._dropped,
                freed_bytes=self._freed,
                failed=sorted(self._stopped),
                locked=self._locked.streams,
                locked_until=self._locked.end,
            )
        )

    def sum_up_merges(self) -> None:
        """Print how much was merged, if anything was."""
        if self._merges:
            print_note(f"{plural(self._merges, 'merge')}, {format_size(self._thinned)} smaller")

    def _add_plan(self, sender: str, merge: Merge, seconds: float) -> None:
        if self._as_json:
            about = {"seconds": round(seconds), "read_bytes": merge.stored_bytes, "written_bytes": merge.largest}
            about |= {"written_bytes_at_most": merge.stored_bytes, "freed_bytes_at_most": merge.freed_at_most}
            print_lines([json.dumps(_row("planned", sender, merge) | about)])
            return
        read, least = format_size(merge.stored_bytes), format_size(merge.largest)
        sizes = f"reads {read}, writes {least} to {read}, frees at most {format_size(merge.freed_at_most)}"
        print_lines([printable(f"{_named(sender, merge)}: {sizes}, takes about {format_duration(seconds)}")])
        for each in merge.inputs:
            print_lines([printable(f"    {each.path}  {format_size(each.stored_bytes)}")])

    def _add_merged(self, event: Merged) -> None:
        self._merges += 1
        self._thinned += 0 if event.waits else event.freed
        if self._as_json:
            about = {"file": str(event.file), "seconds": round(event.seconds, 1), "stored_bytes": event.stored_bytes}
            about |= {"freed_bytes": 0 if event.waits else event.freed, "waits": event.waits}
            print_lines([json.dumps(_row("done", event.sender, event.merge) | about)])
            return
        sizes = f"{format_size(event.merge.stored_bytes)} became {format_size(event.stored_bytes)}"
        waits = "; the inputs stay until `fullsend prove` has proven it" if event.waits else ""
        print_lines([printable(f"{_named(event.sender, event.merge)}: {sizes}: {event.file}{waits}")])

    def _add_stream(self, judged: Judged) -> None:
        decision = judged.decision
        about = decision.stream
        self._streams += 1
        self._locked.add(judged)
        if judged.dropped:
            self._dropped += 1
            self._freed += about.stored_bytes
        if self._as_json:
            row = {name: getattr(about, name) for name in _SHOWN}
            row |= {"verdict": decision.action.value, "rule": decision.rule, "reason": decision.reason}
            row["dropped"] = judged.dropped and not self._dry_run
            row["locked_until"] = None if judged.locked is None else lock_end(judged.locked)
            print_lines([json.dumps(row)])
            return
        name = f"{about.sender}/{about.dataset}@{about.snapshot}"
        late = decision.action.value == "drop" and not judged.dropped
        reason = f"{decision.reason}, next time" if late else decision.reason
        print_lines([printable(f"{reason:{_REASON}}  {name}  {format_size(about.stored_bytes)}")])


def _named(sender: str, merge: Merge) -> str:
    """Return what a merge does, in one line."""
    first, last = merge.inputs[0], merge.target
    what = "merge and move the full" if merge.moves_full else "merge"
    count = plural(len(merge.inputs), "stream")
    return f"{what}: {sender}/{last.dataset}: {first.snapshot} to {last.snapshot}, {count}"


def _row(merge_is: str, sender: str, merge: Merge) -> dict[str, object]:
    shown = ("file", "snapshot", "guid", "base_guid", "stored_bytes")
    inputs = [{name: getattr(each, name) for name in shown} for each in merge.inputs]
    names = {"sender": sender, "dataset": merge.target.dataset, "snapshot": merge.target.snapshot}
    return {"merge": merge_is} | names | {"moves_full": merge.moves_full, "inputs": inputs}
