"""Decides which stored streams are checked next, and whether the scrub keeps up. Pure: no I/O, and the caller's clock.

The results of checks are all that this needs, so a restart changes nothing. A stream is due when its last check, or its
reception if there was none, is older than `every`. A time in the future is due, too: some clock was wrong. A stream
that could not be read is tried again later, at growing intervals.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.scrub_results import Scrubbed

#: Streams that a plan names; more are planned when these have been checked.
DUE_MAX: Final = 1000
#: The scrub is behind when a stream was not checked for so many times `every`.
BEHIND: Final = 1.5
#: More newly damaged streams than this are no rot: a disk, a controller or the memory fails.
DAMAGED_MAX: Final = 3
#: The same as a share of all streams, where more than one is damaged.
DAMAGED_SHARE: Final = 0.05
#: Seconds until a stream that could not be read is tried again: at first, and at most.
RETRY_FIRST: Final = 3600.0
RETRY_MAX: Final = 7 * 86400.0
#: Seconds by which a time may be in the future.
_AHEAD: Final = 3600.0
#: Damaged or unreadable streams that are named.
_NAMED: Final = 20


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """A stream to check. The least one comes first. `segmented`: 0: it arrived in several segments, and was not read
    since; `last`: of the last check, or of its reception, seconds since the epoch.
    """

    segmented: int
    last: float
    file: str
    stream: Summary = field(compare=False)


@dataclass(slots=True)
class Survey:
    """How the scrub stands. Add each stream once.

    `streams`: all; `current`: checked, or received, within `every`; `checked`: ever checked; `oldest`: the earliest
    time of last check or reception, None: there is no stream; `due_streams`, `due_bytes`: all that is due, stored
    bytes; `damaged`: known damaged streams; `unasked`: those of them for which no person has asked for a check since;
    `unreadable`: streams whose last check could not read them, some of them named, each with the reason;
    `unreadable_of`: how many these are, by sender.
    """

    now: float
    every: float
    streams: int = 0
    stored_bytes: int = 0
    current: int = 0
    checked: int = 0
    oldest: float | None = None
    due_streams: int = 0
    due_bytes: int = 0
    damaged: int = 0
    unasked: int = 0
    unreadable: int = 0
    unreadable_of: Counter[str] = field(default_factory=Counter)
    named_damaged: list[str] = field(default_factory=list)
    named_unreadable: list[tuple[str, str]] = field(default_factory=list)
    _due: list[Due] = field(default_factory=list)

    def add(self, stream: Summary, result: Scrubbed | None) -> None:
        """Add a stream. `result`: what checks of it have shown, None: there was none."""
        last = self._last(stream, result)
        self.streams += 1
        self.stored_bytes += stream.stored_bytes
        if last:  # a time in the future makes it due, and tells nothing of the oldest
            self.oldest = last if self.oldest is None else min(self.oldest, last)
        fresh = last <= self.now + _AHEAD and self.now - last < self.every
        self.current += fresh
        self.checked += result is not None and bool(result.at)
        if result is not None and result.damage:
            self.damaged += 1
            if not result.asked:
                self.unasked += 1
                if len(self.named_damaged) < _NAMED:
                    self.named_damaged.append(stream.path)
        if result is not None and result.unreadable is not None:
            self.unreadable += 1
            self.unreadable_of[stream.sender] += 1
            if len(self.named_unreadable) < _NAMED:
                self.named_unreadable.append((stream.path, result.unreadable))
        segmented = stream.sha256 is None and (result is None or not result.at)
        if (segmented or (self.every and not fresh)) and not is_too_early(result, self.now):
            self.due_streams += 1
            self.due_bytes += stream.stored_bytes
            self._push(Due(int(not segmented), last, stream.path, stream))

    @property
    def due(self) -> list[Due]:
        """The streams to check, the most urgent first, at most DUE_MAX."""
        return heapq.nsmallest(DUE_MAX, self._due)

    @property
    def next_due(self) -> float | None:
        """When the next stream is due, seconds since the epoch; None: one is due, nothing is stored, or unknown."""
        if not self.every or self.oldest is None or self.due_streams:
            return None
        found = self.oldest + self.every
        return found if found > self.now else None  # the oldest one may be waiting for its next try

    @property
    def behind(self) -> bool:
        """Whether a stream was not checked for far too long."""
        return bool(self.every) and self.oldest is not None and self.now - self.oldest > BEHIND * self.every

    @property
    def stopped(self) -> bool:
        """Whether so much is damaged that the scrub stops until a person asks for a check."""
        return self.unasked > DAMAGED_MAX or (self.unasked > 1 and self.unasked > DAMAGED_SHARE * self.streams)

    def _last(self, stream: Summary, result: Scrubbed | None) -> float:
        said = parse_time(result.at if result is not None and result.at else stream.received)
        if said is None or said > self.now + _AHEAD:
            received = parse_time(stream.received)
            return 0.0 if received is None or received > self.now + _AHEAD else received
        return said

    def _push(self, due: Due) -> None:
        self._due.append(due)
        if len(self._due) >= 2 * DUE_MAX:
            self._due = heapq.nsmallest(DUE_MAX, self._due)


def total(parts: Iterable[Survey], *, now: float, every: float) -> Survey:
    """Return how the scrub stands, of surveys that have no stream in common. `now`, `every`: as in `survey`."""
    found = Survey(now=now, every=every)
    for part in parts:
        for name in ("streams", "stored_bytes", "current", "checked", "due_streams", "due_bytes", "damaged", "unasked"):
            setattr(found, name, getattr(found, name) + getattr(part, name))
        found.unreadable += part.unreadable
        found.unreadable_of.update(part.unreadable_of)
        found.oldest = min((each for each in (found.oldest, part.oldest) if each is not None), default=None)
        found.named_damaged = [*found.named_damaged, *part.named_damaged][:_NAMED]
        found.named_unreadable = [*found.named_unreadable, *part.named_unreadable][:_NAMED]
    return found


def is_too_early(result: Scrubbed | None, now: float) -> bool:
    """Whether a stream could not be read so lately that it is not tried again yet. `now`: seconds since the epoch."""
    if result is None or result.unreadable is None:
        return False
    tried = parse_time(result.tried or "")
    wait = min(RETRY_MAX, RETRY_FIRST * 2 ** min(max(0, result.tries - 1), 16))
    return tried is not None and 0 <= now - tried < wait


def survey(streams: Iterable[tuple[Summary, Scrubbed | None]], *, now: float, every: float) -> Survey:
    """Return how the scrub stands. `now`: seconds since the epoch; `every`: seconds, 0: only streams that arrived in
    several segments are read.
    """
    found = Survey(now=now, every=every)
    for stream, result in streams:
        found.add(stream, result)
    return found
