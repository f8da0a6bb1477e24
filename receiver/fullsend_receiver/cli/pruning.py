"""The output of `prune`: a line for each stream, and what keeps others from going."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.units import format_size, plural, printable
from fullsend_receiver.cli.results import complain, print_lines, print_note
from fullsend_receiver.maintenance.prune import ChainHeld, Judged, NothingGoes

if TYPE_CHECKING:
    from fullsend_receiver.maintenance.prune import PruneEvent

#: Characters of the column of reasons.
_REASON: Final = 40
_SHOWN: Final = ("sender", "dataset", "snapshot", "guid", "received", "file", "stored_bytes")


class Pruned:
    """Prints what a prune does, as it is done. `failed`: whether something keeps it from its work."""

    def __init__(self, *, as_json: bool, dry_run: bool) -> None:
        self.failed = False
        self._as_json = as_json
        self._dry_run = dry_run
        self._streams = self._dropped = self._freed = 0

    def add(self, event: PruneEvent) -> None:
        """Print one event."""
        match event:
            case Judged():
                self._add_stream(event)
            case NothingGoes():
                self.failed = True
                complain(printable(f"{event.sender}/{event.dataset}: nothing goes: {event.why}"))
            case ChainHeld():
                print_note(printable(f"{event.sender}/{event.chain.reason}"))

    def sum_up(self) -> None:
        """Print how much was dropped."""
        done = "would be dropped" if self._dry_run else "dropped"
        freed = "would be freed" if self._dry_run else "freed"
        print_note(f"{plural(self._streams, 'stream')}, {self._dropped} {done}, {format_size(self._freed)} {freed}")

    def _add_stream(self, judged: Judged) -> None:
        decision = judged.decision
        about = decision.stream
        self._streams += 1
        if judged.dropped:
            self._dropped += 1
            self._freed += about.stored_bytes
        if self._as_json:
            row = {name: getattr(about, name) for name in _SHOWN}
            row |= {"verdict": decision.action.value, "rule": decision.rule, "reason": decision.reason}
            row["dropped"] = judged.dropped and not self._dry_run
            print_lines([json.dumps(row)])
            return
        name = f"{about.sender}/{about.dataset}@{about.snapshot}"
        late = decision.action.value == "drop" and not judged.dropped
        reason = f"{decision.reason}, next time" if late else decision.reason
        print_lines([printable(f"{reason:{_REASON}}  {name}  {format_size(about.stored_bytes)}")])
