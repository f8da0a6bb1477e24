"""The report of a store: an overview, with what is stored and what the next prune does, as the facts of a page.

Only data: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Final

from fullsend_protocol.shared.units import format_size, format_time, plural
from fullsend_receiver.monitor.copy_text import copy_line
from fullsend_receiver.monitor.next_prune import NextPrune
from fullsend_receiver.monitor.overview import (
    Alarm,
    DatasetOverview,
    Drill,
    Level,
    Overview,
    ScrubOverview,
    SenderOverview,
    StreamNote,
)
from fullsend_receiver.monitor.stream_notes import StreamNotes
from fullsend_report.drills import DrillFacts, HostDrills
from fullsend_report.facts import (
    DatasetFacts,
    DayFacts,
    HostFacts,
    ReportedAlarm,
    ReportFacts,
    RhythmSource,
    RoomFacts,
    StreamFacts,
)
from fullsend_report.figures import moment, span

_EXPECTED: Final[Mapping[RhythmSource, str]] = {
    "configured": "set in receiver.toml",
    "learnt": "learnt from its rhythm",
    "unknown": "too little has come to learn it",
}
#: The alarms of a dataset that is overdue.
_LATE: Final = {"late", "gone"}


def report_facts(
    overview: Overview,
    notes: StreamNotes,
    prune: NextPrune,
    *,
    next_at: float | None = None,
    zone: tzinfo | None = None,
) -> ReportFacts:
    """Return the facts of the page. `notes`: of all streams; `next_at`: when the next page is due, None: never;
    `zone`: of the times on the page, None: that of this host.
    """
    found = _Alarmed(overview)
    return ReportFacts(
        at=overview.at,
        program=overview.program,
        title=f"Backups in {overview.store}",
        hosts=tuple(_host(each, found, notes, prune, zone) for each in overview.senders),
        alarms=tuple(map(_alarm, overview.alarms)),
        room=RoomFacts(
            free=overview.free, size=overview.size, min_free=overview.min_free, forecast=_forecast(overview, zone)
        ),
        scrub=_scrub(overview.scrub, overview.at),
        notes=tuple(_notes(overview, prune)),
        next_at=next_at,
        zone=zone,
    )


class _Alarmed:
    """The alarms of each sender and dataset."""

    def __init__(self, overview: Overview) -> None:
        self._levels: dict[tuple[str | None, str | None], Level] = {}
        self._gone: set[tuple[str | None, str | None]] = set()
        for each in overview.alarms:
            for key in {(each.sender, each.dataset), (each.sender, None)}:
                if self._levels.get(key) != "critical":
                    self._levels[key] = each.level
            if each.code in _LATE:
                self._gone.add((each.sender, each.dataset))

    def level(self, sender: str, dataset: str | None = None) -> Level | None:
        """Return the worst level of a dataset's alarms; of a sender's, with those of its datasets; None: no alarm."""
        return self._levels.get((sender, dataset))

    def is_gone(self, sender: str, dataset: str) -> bool:
        """Whether there is an alarm that a dataset, or all of its sender, comes no more."""
        return not self._gone.isdisjoint({(sender, dataset), (sender, None)})


def _alarm(alarm: Alarm) -> ReportedAlarm:
    """Return an alarm. The page names its dataset before the text, which need not do it again."""
    named = "/".join(each for each in (alarm.sender, alarm.dataset) if each is not None)
    return ReportedAlarm(
        level=alarm.level,
        code=alarm.code,
        text=alarm.text.removeprefix(f"{named}: "),
        host=alarm.sender,
        dataset=alarm.dataset,
        since=alarm.since,
    )


def _host(
    sender: SenderOverview, alarmed: _Alarmed, notes: StreamNotes, prune: NextPrune, zone: tzinfo | None
) -> HostFacts:
    said = [] if sender.enrolled else ["it may not connect any more"]
    if sender.partials:
        said.append(f"{plural(sender.partials, 'stream')} arrived in part ({format_size(sender.partial_bytes)})")
    drills = HostDrills({each.dataset: _drill(each.drill) for each in sender.datasets if each.drill}, zone)
    datasets = [
        replace(
            _dataset(each),
            streams=tuple(_stream(note, prune) for note in notes.get((sender.name, each.dataset), ())),
            late=each.is_late or alarmed.is_gone(sender.name, each.dataset),
            level=alarmed.level(sender.name, each.dataset),
            speed=drills.speed(each.dataset),
            drill=drills.line(each.dataset),
            prune=prune.notes.get((sender.name, each.dataset), ""),
        )
        for each in sender.datasets
    ]
    return HostFacts(
        name=sender.name,
        datasets=tuple(datasets),
        stored_bytes=sender.stored_bytes,
        used_bytes=sender.used_bytes,
        quota=sender.quota,
        level=alarmed.level(sender.name),
        notes=tuple(said),
    )


def _dataset(about: DatasetOverview) -> DatasetFacts:
    """Return what the overview says of a dataset by itself."""
    return DatasetFacts(
        name=about.dataset,
        snapshot=about.snapshot,
        created=about.created,
        received=about.received,
        seen=about.seen,
        age=about.age,
        days=tuple(
            DayFacts(
                day=each.day,
                received=each.received,
                unchanged=each.unchanged,
                raw_bytes=each.raw_bytes,
                stored_bytes=each.stored_bytes,
            )
            for each in about.history.nights
        ),
        times=tuple(sorted(each.at for each in about.history.receptions)),
        recorded_since=about.history.since,
        every=about.expectation.every,
        limit=about.expectation.limit,
        source=about.expectation.source,
        expected=_EXPECTED[about.expectation.source],
        stream_count=about.streams,
        fulls=about.fulls,
        raw_bytes=about.raw_bytes,
        stored_bytes=about.stored_bytes,
        chain_streams=about.chain_streams,
        chain_raw_bytes=about.chain_raw_bytes,
        chain_stored_bytes=about.chain_stored_bytes,
        broken=about.broken,
        damaged=about.damaged,
        oldest_check=about.oldest_check,
        unchecked=about.unchecked,
    )


def _stream(note: StreamNote, prune: NextPrune) -> StreamFacts:
    return StreamFacts(
        snapshot=note.snapshot,
        guid=None if note.kind == "package" else note.guid,
        base_guid=note.base_guid,
        kind=note.kind,
        received=note.received if note.received >= 0 else None,
        raw_bytes=note.raw_bytes,
        stored_bytes=note.stored_bytes,
        merged=note.merged,
        restorable=note.restorable,
        damaged=note.damaged,
        fate=prune.fates.get(note.file, "stay"),
    )


def _drill(drill: Drill) -> DrillFacts:
    return DrillFacts(
        at=drill.at,
        snapshot=drill.snapshot,
        ok=drill.ok,
        text=drill.text,
        seconds=drill.seconds,
        raw_bytes=drill.raw_bytes,
        succeeded=drill.succeeded,
    )


def _forecast(overview: Overview, zone: tzinfo | None) -> str:
    if overview.full_at is None:
        return "It will not be full within a year at the rate of late, or the rate is not known."
    day = moment(overview.full_at, zone)[:10]
    return f"At the rate of late it is full in {span(overview.full_at - overview.at)}, on {day}."


def _scrub(scrub: ScrubOverview, now: float) -> str:
    if not scrub.streams:
        return ""
    streams = plural(scrub.streams, "stream")
    said = (
        f"{scrub.current} of {streams} were checked or received within {span(scrub.every)}"
        if scrub.every
        else f"{scrub.checked} of {streams} were ever checked; the daemon checks none by itself (scrub-every = 0)"
    )
    if scrub.due_streams:
        said += f", {scrub.due_streams} are due ({format_size(scrub.due_bytes)})"
    if scrub.oldest is not None:
        said += f"; the oldest check was {span(now - scrub.oldest)} ago, {format_time(scrub.oldest)}"
    return f"Checks of what is stored: {said}."


def _notes(overview: Overview, prune: NextPrune) -> Sequence[str]:
    aside, trash = format_size(overview.aside_bytes), format_size(overview.trash_bytes)
    said = [f"{aside} are set aside as damaged, {trash} can be undeleted."]
    if prune.note:
        said.append(f"Next prune: {prune.note}.")
    if overview.copy is not None:
        said.append(f"Copies in {copy_line(overview.copy)}.")
    return said
