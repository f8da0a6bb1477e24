"""What the restore drills of one host tell: one line about the last of each dataset, and how fast a restore is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo

from fullsend_report.facts import RestoreSpeed
from fullsend_report.figures import moment, span


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillFacts:
    """The last restore drill of a dataset. `at`, `succeeded`: seconds since the epoch; `succeeded`: when one was last
    ok, None: never; `seconds`, `raw_bytes`: of the restore; `text`: one line.
    """

    at: float
    snapshot: str
    ok: bool
    text: str
    seconds: float
    raw_bytes: int
    succeeded: float | None


class HostDrills:
    """The last drills of a host's datasets."""

    def __init__(self, drills: Mapping[str, DrillFacts], zone: tzinfo | None) -> None:
        """`drills`: by dataset; `zone`: of the times in texts."""
        self._drills = drills
        self._zone = zone
        measured = [(each.at, name) for name, each in drills.items() if _measures(each)]
        self._newest = max(measured)[1] if measured else None

    def line(self, dataset: str) -> str:
        """Return one line about the last drill of a dataset; empty: none is known."""
        drill = self._drills.get(dataset)
        if drill is None:
            return ""
        at = moment(drill.at, self._zone)
        if drill.ok:
            return f"{at}: @{drill.snapshot}, {drill.text}, in {span(drill.seconds)}"
        before = "none has ever succeeded"
        if drill.succeeded is not None:
            before = f"the last good one: {moment(drill.succeeded, self._zone)}"
        return f"FAILED {at}: @{drill.snapshot}, {drill.text}; {before}"

    def speed(self, dataset: str) -> RestoreSpeed | None:
        """Return the speed of the dataset's last drill, else of the host's last one; None: there was none. One that has
        failed may have ended early, and tells no speed.
        """
        own = self._drills.get(dataset)
        if own is not None and _measures(own):
            return self._speed(own, "its restore drill")
        if self._newest is None:
            return None
        return self._speed(self._drills[self._newest], f"the restore drill of {self._newest}")

    def _speed(self, drill: DrillFacts, source: str) -> RestoreSpeed:
        return RestoreSpeed(rate=drill.raw_bytes / drill.seconds, source=f"{source}, {moment(drill.at, self._zone)}")


def _measures(drill: DrillFacts) -> bool:
    return drill.ok and drill.seconds > 0 and drill.raw_bytes > 0
