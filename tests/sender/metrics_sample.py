"""What the file of a sender has after a few runs: every metric has a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.sender.command import RAW
from tests.sender.peer import receipt_of

from fullsend_protocol.shared.errors import ErrorCode as Code
from fullsend_protocol.shared.errors import PeerError, Unreachable
from fullsend_sender.monitor.metrics import RunMetrics
from fullsend_sender.push.job import PushSummary
from fullsend_sender.transfer.send import Pushed

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = 1_790_000_000.0
NAS: Final = "nas"


def pushed(dataset: str = "tank/data") -> Pushed:
    """A stream that is stored."""
    return Pushed(
        receipt_of(RAW).model_copy(update={"dataset": dataset}), 700, 2.5, waited={"source": 1.5, "wire": 1.0}
    )


def run(now: float = NOW, seconds: float = 30.0) -> RunMetrics:
    """A run of `push` that took so long, until `now`."""
    times = iter([now - seconds])
    return RunMetrics("push", lambda: next(times, now))


def write_sample(path: Path) -> None:
    """Write the file, as two runs do: a good one, and one of which a part fails."""
    first = run()
    with first.part(NAS):
        first.sent(NAS, pushed())
        first.pushed(NAS, PushSummary(chosen={"tank/data", "tank/still"}, current={"tank/data", "tank/still"}))
    first.write(str(path), receivers=[NAS], retired=[])
    second = run(NOW + 86400)
    with second.part(NAS) as codes:
        refused = PeerError(Code.SPACE, "the store is full")
        second.pushed(
            NAS, PushSummary(chosen={"tank/data"}, failures=[("tank/data@tonight", refused)]), Unreachable("lost")
        )
        codes.append(refused.exit_code)
    second.write(str(path), receivers=[NAS], retired=[])
