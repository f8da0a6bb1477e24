"""What a report shows. Only data: times are seconds since the epoch, sizes bytes.

Both programs fill it in: fullsendd from its overview, fullsend from what its receiver tells. What a program does not
know is None, or absent; the page then says "unknown", never "missing".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from typing import Literal

#: As in the overview of the receiver.
AlarmLevel = Literal["warning", "critical"]
#: As in the manifests.
StreamKind = Literal["full", "incremental", "package"]
#: What happens to a stream at the next prune; "merge": its records go into the stream that builds on it.
Fate = Literal["stay", "drop", "merge"]
#: Where it is known from how often a dataset should come: a person has set it, or it was learnt. "unknown": too little
#: has come, or the receiver does not tell it.
RhythmSource = Literal["configured", "learnt", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedAlarm:
    """One thing that a person should look at. `host`, `dataset`: None: of the store, or of the whole host; `text`: what
    is wrong and what to do; `since`: None: unknown.
    """

    level: AlarmLevel
    code: str
    text: str
    host: str | None = None
    dataset: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """One stored stream. `guid`: None: a package has several; `fate`: at the next prune."""

    snapshot: str
    guid: str | None
    base_guid: str | None
    kind: StreamKind
    received: float | None
    raw_bytes: int
    stored_bytes: int
    merged: bool = False
    restorable: bool = True
    damaged: bool = False
    fate: Fate = "stay"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFacts:
    """What came of a dataset in one day of local time. `day`: as datetime.date.toordinal; `received`: streams;
    `unchanged`: reports that the dataset is unchanged.
    """

    day: int
    received: int = 0
    unchanged: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSpeed:
    """A speed that a restore has shown: raw bytes a second. `source`: which restore, for people."""

    rate: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """One dataset.

    `snapshot`, `created`, `received`: of the newest restorable state, None: there is none; `seen`: when it last came,
    or was last reported as unchanged, None: never; `age`: seconds since then, None: unknown; `streams`: the stored
    ones, in order of reception; `days`: those on which something came, the oldest first; `times`: when it came, or was
    reported as unchanged, of late, in order; `recorded_since`: from when on all that came is in `days`, None: unknown,
    so a day that is not there tells nothing.

    `every`: seconds within which it should come, None: nobody waits for it, or unknown; `limit`: seconds from which on
    it is late, None: `every`; `source`: where `every` is from. What was learnt holds from the last arrival on: other
    nights may have another rhythm. Of what is unknown, `every` is a generous limit, and no rhythm. `expected`: why that
    is so, for people; `late`: whether it is overdue now; `level`: the worst of its alarms, None: it has none.

    `chain_streams`, `chain_raw_bytes`, `chain_stored_bytes`: what a restore of the newest state reads; `speed`: None:
    not measured; `oldest_check`: the earliest last check, or reception, None: not known; `unchecked`: streams that were
    never read since they arrived, None: not known; `drill`: one line about the last restore drill, empty: none is
    known; `prune`: one line about the next prune, empty: nothing to say.
    """

    name: str
    snapshot: str | None = None
    created: float | None = None
    received: float | None = None
    seen: float | None = None
    age: float | None = None
    streams: tuple[StreamFacts, ...] = ()
    days: tuple[DayFacts, ...] = ()
    times: tuple[float, ...] = ()
    recorded_since: float | None = None
    every: float | None = None
    limit: float | None = None
    source: RhythmSource = "unknown"
    expected: str = "unknown"
    late: bool = False
    level: AlarmLevel | None = None
    stream_count: int = 0
    fulls: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    chain_streams: int = 0
    chain_raw_bytes: int = 0
    chain_stored_bytes: int | None = None
    broken: int = 0
    damaged: int = 0
    speed: RestoreSpeed | None = None
    oldest_check: float | None = None
    unchecked: int | None = None
    drill: str = ""
    prune: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """One ZFS host. `notes`: short facts, such as "may not connect"; `level`: the worst of its alarms and those of its
    datasets; `quota`: None: it has none, or it is not known.
    """

    name: str
    datasets: tuple[DatasetFacts, ...] = ()
    stored_bytes: int = 0
    used_bytes: int | None = None
    quota: int | None = None
    level: AlarmLevel | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFacts:
    """The disk of the store. `size`, `min_free`: None: not known; `forecast`: one line."""

    free: int
    size: int | None = None
    min_free: int | None = None
    forecast: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that one page shows. `at`: when this was found; `program`: name and version; `title`: whose backups; `room`:
    None: not known; `scrub`: one line about the checks of what is stored; `notes`: further lines; `next_at`: when the
    next page is due, None: it is not made on a schedule; `zone`: of the times on the page, None: that of this process.
    """

    at: float
    program: str
    title: str
    hosts: tuple[HostFacts, ...] = ()
    alarms: tuple[ReportedAlarm, ...] = ()
    room: RoomFacts | None = None
    scrub: str = ""
    notes: tuple[str, ...] = ()
    next_at: float | None = None
    zone: tzinfo | None = None

    @property
    def level(self) -> AlarmLevel | None:
        """The worst level of the alarms; None: there is none."""
        levels = {each.level for each in self.alarms}
        return "critical" if "critical" in levels else "warning" if levels else None
