"""How a run of `push` ended, for hooks. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_duration, printable

if TYPE_CHECKING:
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_sender.push.job import PushSummary
    from fullsend_sender.transfer.send import Pushed

#: Failures that the text names; all are in the results.
_NAMED: Final = 3


@dataclass(slots=True)
class RunOutcome:
    """What a run has done so far. `results`: one for each dataset of each receiver; `lines`: for a person, one for each
    receiver; `failures`: in words.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add_pushed(self, receiver: str, pushed: Pushed) -> None:
        """A stream is stored, by this run or before."""
        receipt = pushed.receipt
        self.results.append(
            {
                "receiver": receiver,
                "dataset": receipt.dataset,
                "snapshot": receipt.snapshot,
                "result": "pushed",
                "kind": receipt.kind,
                "guid": receipt.guid,
                "raw_bytes": receipt.raw_bytes,
                "stored_bytes": receipt.stored_bytes,
                "wire_bytes": pushed.wire_bytes,
                "seconds": round(pushed.seconds, 3),
            }
        )

    def add_summary(self, receiver: str, summary: PushSummary) -> None:
        """The push to a receiver has ended. Its stored streams are added already."""
        self.lines.append(summary.line(receiver))
        self.results += [{"receiver": receiver, "dataset": name, "result": "unchanged"} for name in summary.still]
        for name, error in summary.failures:
            self.add_failure(receiver, name, error)

    def add_failure(self, receiver: str, dataset: str, error: FullsendError) -> None:
        """Something has failed. `dataset`: empty: all of this receiver; `receiver`: empty: all."""
        code = int(error.exit_code)
        said = {"receiver": receiver, "dataset": dataset, "result": "failed", "error": str(error), "exit_code": code}
        self.results.append(said)
        named = ": ".join(part for part in (receiver, dataset) if part)
        self.failures.append(f"{named}: {error}" if named else str(error))

    def facts(self, code: Exit, seconds: float) -> dict[str, Any]:
        """Return what a hook reads of it. `code`: the exit code; `seconds`: how long the run took."""
        event = "push-finished" if code is Exit.OK else "push-failed"
        text = "; ".join([*self.lines, *self.failures[:_NAMED]]) or "nothing was done"
        if len(self.failures) > _NAMED:
            text += f"; and {len(self.failures) - _NAMED} more"
        head = "push" if code is Exit.OK else f"push has failed (exit code {int(code)})"
        return {
            "event": event,
            "level": "info" if code is Exit.OK else "error",
            "text": printable(f"{head}: {text}; {format_duration(seconds)}"),
            "exit_code": int(code),
            "seconds": round(seconds, 3),
            "results": self.results,
        }
