"""What is known of the store, of each sender and of each dataset at one moment. Only data: no I/O, no clock.

`status`, the metrics, the report and the hooks all show an `Overview`, so that none of them says what another denies.
All times are seconds since the epoch, all sizes bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from fullsend_protocol.wire.messages import DrillExtent

AlarmCode = Literal[
    "late",  # a dataset was neither received nor reported as unchanged in time
    "gone",  # a dataset that used to come is missing from the reports of a sender that still comes
    "shrunk",  # what is stored, or what arrives, is less by an order of magnitude
    "grown",  # an increment is larger than usual by an order of magnitude
    "damage",  # a stored stream is damaged, or cannot be restored
    "unread",  # what is stored cannot be read, or cannot be checked
    "scrub-behind",
    "scrub-stopped",
    "low-space",  # the disk, or a quota, is nearly full, or will be within `warn-days`
    "refusing",  # pushes are refused for want of space, or because the store cannot be written
    "prune",  # a prune did not do what it should
    "drill",  # the last restore drill has failed
    "copy",  # no copy in the other store was complete for long, or the last one was not
    "clock",  # a time that is stored lies in the future: this host's clock, or the sender's, is or was wrong
]

#: A learnt interval may be exceeded by this share of it, in seconds at least and at most so much: a push may be large,
#: or its host may start late.
_SLACK: Final = 0.5
_SLACK_LEAST: Final = 3600.0
_SLACK_MOST: Final = 7 * 86400.0

#: Nagios: 1 and 2.
Level = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One thing that a person should look at. `sender`, `dataset`: None: of the store, or of the whole sender; `text`:
    one line, what is wrong and what to do; `since`: when it began, None: unknown; `count`: of how many streams it
    tells that are damaged or cannot be read, 0: it tells of none. It is told again when that has grown.
    """

    code: AlarmCode
    level: Level
    text: str
    sender: str | None = None
    dataset: str | None = None
    since: float | None = None
    count: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells this alarm from others; it stays the same as long as the alarm lasts."""
        return self.code, self.sender or "", self.dataset or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """A stream of a dataset that arrived, or a report that the dataset is unchanged (`kind` "unchanged", sizes 0).

    The sizes of a stream that was merged before anybody looked are not known, and 0.
    """

    at: float
    kind: Literal["full", "incremental", "package", "unchanged"]
    snapshot: str = ""
    raw_bytes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What came of a dataset in one day of local time. `day`: proleptic Gregorian ordinal, as in datetime.date."""

    day: int
    received: int = 0  # streams
    unchanged: int = 0  # reports
    raw_bytes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What has come of a dataset, also of streams that were merged or dropped meanwhile.

    `receptions`: the newest ones, in the order in which they came; `nights`: one for each day on which something came,
    the oldest first; `since`: from when on all that came has a night, None: unknown, so a day without one tells
    nothing; `full_before`: raw bytes of the last full before the receptions, None: unknown. Each look at the first two
    may unpack all of it: loop over it, and do not index in a loop.
    """

    receptions: Sequence[Reception] = ()
    nights: Sequence[Night] = ()
    since: float | None = None
    full_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """How often a dataset should come. `every`: seconds, None: there is no alarm: receiver.toml says "never"; `source`:
    from receiver.toml, learnt from its rhythm, or not known yet because too little has come: then `every` is generous.
    """

    every: float | None
    source: Literal["configured", "learnt", "unknown"]

    @property
    def limit(self) -> float | None:
        """The age, in seconds, from which on it is late; None: it is never late. A person says what is too much; what
        is learnt needs some slack.
        """
        if self.every is None or self.source != "learnt":
            return self.every
        return self.every + min(max(_SLACK * self.every, _SLACK_LEAST), _SLACK_MOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """The last restore drill of a dataset that its host has reported. `ok`: whether nothing was wrong; `compared`: with
    the snapshot there, "guid": no content, because that is gone; `text`: one line; `seconds`: what the restore took;
    `raw_bytes`: what was restored; `succeeded`: when one was last ok, None: never.
    """

    at: float
    snapshot: str
    ok: bool
    compared: DrillExtent
    text: str
    seconds: float
    raw_bytes: int
    succeeded: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamNote:
    """One stored stream, for the drawing of the chain."""

    file: str
    snapshot: str
    guid: str
    base_guid: str | None
    kind: Literal["full", "incremental", "package"]
    created: float
    received: float
    raw_bytes: int
    stored_bytes: int
    merged: bool  # made by a merge
    restorable: bool
    damaged: bool
    checked: float | None  # when it was last read and found whole, None: never


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOverview:
    """One dataset of one sender.

    `snapshot`, `guid`, `created`, `received`: of the newest restorable state, None: there is none; `unchanged`: when
    its host last reported that it is unchanged since; `chain_streams`, `chain_raw_bytes`, `chain_stored_bytes`: what a
    restore of the newest state reads; `broken`: streams that cannot be restored; `oldest_check`: the earliest last
    check, or reception, of its streams; `unchecked`: streams that were never read since they arrived; `age`: seconds
    since it last came, or was reported as unchanged, None: unknown. A clock that was wrong makes no age: so take this
    one, and do not subtract times.
    """

    sender: str
    dataset: str
    snapshot: str | None = None
    guid: str | None = None
    created: float | None = None
    received: float | None = None
    unchanged: float | None = None
    streams: int = 0
    fulls: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    chain_streams: int = 0
    chain_raw_bytes: int = 0
    chain_stored_bytes: int = 0
    broken: int = 0
    damaged: int = 0
    lost_spill_count: int = 0
    oldest_check: float | None = None
    unchecked: int = 0
    expectation: Expectation = Expectation(every=None, source="unknown")
    history: History = field(default_factory=History)
    drill: Drill | None = None
    age: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether it should have come by now. One whose age nobody can tell is late, too. One of which nothing can be
        restored has no age: it is damaged.
        """
        limit = self.expectation.limit
        if limit is None or self.age is None:
            return limit is not None and self.guid is not None
        return self.age > limit

    @property
    def seen(self) -> float | None:
        """When the dataset last came, or was reported as unchanged; None: never."""
        times = [each for each in (self.received, self.unchanged) if each is not None]
        return max(times, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderOverview:
    """One sender. `enrolled`: whether it may connect; `enrolled_at`: since when, None: it may not, or unknown;
    `used_bytes`: what counts for its quota; `quota`: None: none; `pruned`: when a prune of all of it was last done,
    None: never; `pruned_bytes`: stored bytes of what all prunes have dropped; `merged_bytes`: raw bytes of the streams
    that all merges have made.
    """

    name: str
    enrolled: bool
    datasets: tuple[DatasetOverview, ...] = ()
    stored_bytes: int = 0
    used_bytes: int = 0
    quota: int | None = None
    partials: int = 0
    partial_bytes: int = 0
    enrolled_at: float | None = None
    pruned: float | None = None
    pruned_bytes: int = 0
    merged_bytes: int = 0

    @property
    def seen(self) -> float | None:
        """When anything of it last came; None: never."""
        return max((each.seen for each in self.datasets if each.seen is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubOverview:
    """How the checks of all stored streams stand. `every`: seconds, 0: off; `oldest`: the earliest last check, or
    reception, of a stream, None: nothing is stored.
    """

    every: float
    streams: int = 0
    current: int = 0
    checked: int = 0
    oldest: float | None = None
    due_streams: int = 0
    due_bytes: int = 0
    damaged: int = 0
    unreadable: int = 0
    behind: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOverview:
    """How the copies in another store stand, of what receiver.toml wants there. See `CopyRecord`.

    `to`: that store; `fault`: why nobody can tell, None: all is known; `limit`: seconds without a complete copy from
    which on there is an alarm, None: never; `since`: when they were first wanted, None: unknown; `complete`: all that
    was stored then is there; `age`: seconds since then, or since `since` if none was complete, None: unknown. A clock
    that was wrong makes no age. `began`, `ended`: of the last run, which runs, or was killed, if it has not ended;
    `ok`: whether the last run that has ended left nothing behind, None: there was none; `why`: what has ended it before
    its time; `left`: what it left behind, and `named` some of it, with the reasons; `older`: what it did not copy,
    because the newest copy is newer; `streams`, `stored_bytes`: what it has copied; `bytes_ever`: what all have.
    """

    to: str
    fault: str | None = None
    limit: float | None = None
    since: float | None = None
    complete: float | None = None
    age: float | None = None
    began: float | None = None
    ended: float | None = None
    host: str = ""
    ok: bool | None = None
    why: str | None = None
    left: int = 0
    named: tuple[tuple[str, str], ...] = ()
    older: int = 0
    streams: int = 0
    stored_bytes: int = 0
    bytes_ever: int = 0

    @property
    def runs(self) -> bool:
        """Whether a run has begun, and not said that it has ended."""
        return self.began is not None and self.ended is None

    @property
    def is_late(self) -> bool:
        """Whether no copy was complete for too long. One whose age nobody can tell is late, too."""
        if self.limit is None:
            return False
        if self.age is None:
            return self.complete is not None
        return self.age > self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All of the store. `at`: when this was found; `program`: name and version; `free`, `size`: of the disk;
    `min_free`: what stays free; `full_at`: when the disk will have no more room, at the rate of late, None: not
    within a year, or unknown; `aside_bytes`: set aside as damaged; `trash_bytes`: what can be undeleted; `copy`: how
    the copies in another store stand, None: receiver.toml wants none; `alarms`: the critical ones first.
    """

    at: float
    program: str
    store: str
    free: int
    size: int
    min_free: int
    full_at: float | None = None
    senders: tuple[SenderOverview, ...] = ()
    scrub: ScrubOverview
    aside_bytes: int = 0
    trash_bytes: int = 0
    copy: CopyOverview | None = None
    alarms: tuple[Alarm, ...] = ()

    @property
    def level(self) -> Level | None:
        """The worst level of the alarms; None: there is none."""
        levels = {each.level for each in self.alarms}
        return "critical" if "critical" in levels else "warning" if levels else None
