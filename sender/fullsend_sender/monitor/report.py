"""`fullsend report`: what the receiver has of this host, as the facts of a page.

The receiver tells what is stored and what has come. What it does not tell, the page calls unknown: what its next prune
does, and from an older receiver, the history.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, tzinfo
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import ErrorCode, PeerError
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_duration, parse_time
from fullsend_protocol.wire import messages
from fullsend_report.drills import DrillFacts, HostDrills
from fullsend_report.facts import (
    AlarmLevel,
    DatasetFacts,
    DayFacts,
    HostFacts,
    ReportedAlarm,
    ReportFacts,
    RhythmSource,
    RoomFacts,
    StreamFacts,
)
from fullsend_report.figures import day_of
from fullsend_sender.monitor.status import BackupState, ReceiverState, scrub_line
from fullsend_sender.transfer import listing
from fullsend_sender.transfer.link import PROGRAM, connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint

_SOURCES: Final[Mapping[RhythmSource, str]] = {
    "configured": "set at the receiver",
    "learnt": "the receiver has learnt it from its rhythm",
    "unknown": "the receiver has not learnt it yet",
}
_LEVELS: Final[dict[NagiosState, AlarmLevel | None]] = {
    NagiosState.OK: None,
    NagiosState.WARNING: "warning",
    NagiosState.CRITICAL: "critical",
    NagiosState.UNKNOWN: "warning",
}
_PRUNE: Final = "the receiver does not tell what it will drop or merge"


@dataclass(frozen=True, slots=True)
class ToldFacts:
    """What a receiver tells of this host. `sender`: the host's name there; `now`: its clock, in seconds since the
    epoch; `entries`: in any order; `bases`, `statuses`, `histories`: by GUID, and by dataset; `merged`: the files of
    merged streams. An older receiver tells no histories and no merged streams.
    """

    sender: str
    now: float
    entries: Sequence[StreamEntry]
    bases: Mapping[str, messages.Base]
    statuses: Mapping[str, messages.DatasetStatus]
    histories: Mapping[str, messages.DatasetHistory] = field(default_factory=dict)
    merged: frozenset[str] = frozenset()


async def ask(endpoint: Endpoint, identity: Identity) -> ToldFacts:
    """Ask the receiver. Raises: Unreachable, PeerError."""
    async with connect(endpoint, identity) as (link, name):
        now, statuses = await listing.statuses(link)
        entries = [each async for each in listing.entries(link, None)]
        bases = {each.guid: each for each in await listing.bases(link)}
    histories: dict[str, messages.DatasetHistory] = {}
    merged: set[str] = set()
    # Each on a connection of its own: an older receiver, which does not know the question, ends it.
    with _older_is_fine():
        async with connect(endpoint, identity) as (link, _name):
            async for page in link.pages(messages.HistoryWanted(), messages.HistoryPage):
                histories |= {each.dataset: each for each in page.datasets}
    with _older_is_fine():
        async with connect(endpoint, identity) as (link, _name):
            async for found in link.pages(messages.MergedWanted(dataset=None), messages.MergedStreams):
                merged.update(each.file for each in found.streams)
    return ToldFacts(name, parse_time(now) or 0.0, entries, bases, statuses, histories, frozenset(merged))


def report_facts(
    told: ToldFacts,
    judged: Sequence[BackupState],
    receiver: ReceiverState,
    *,
    zone: tzinfo | None = None,
) -> ReportFacts:
    """Return the facts of the page. `judged`: as `fullsend status` judges the datasets; `zone`: of the times on the
    page, None: that of this host.
    """
    alarms = list(_alarms(told, judged, receiver))
    levels: dict[str | None, AlarmLevel] = {}
    for each in alarms:
        if levels.get(each.dataset) != "critical":
            levels[each.dataset] = each.level
    names = sorted({each.dataset for each in told.entries} | told.statuses.keys() | {each.dataset for each in judged})
    streams: dict[str, list[StreamEntry]] = {}
    for entry in told.entries:
        streams.setdefault(entry.dataset, []).append(entry)
    drills = HostDrills({each.dataset: _drill(each.drill) for each in judged if each.drill is not None}, zone)
    datasets = tuple(
        replace(
            _dataset(name, streams.get(name, []), told, zone),
            level=levels.get(name),
            speed=drills.speed(name),
            drill=drills.line(name),
        )
        for name in names
    )
    host = HostFacts(
        name=told.sender,
        datasets=datasets,
        stored_bytes=sum(each.stored_bytes for each in datasets),
        level="critical" if "critical" in levels.values() else "warning" if levels else None,
    )
    scrub = receiver.health.scrub
    return ReportFacts(
        at=told.now,
        program=f"{PROGRAM}, {receiver.health.program}",
        title=f"Backups of {told.sender} on {receiver.name}",
        hosts=(host,),
        alarms=tuple(sorted(alarms, key=lambda each: each.level)),
        room=RoomFacts(free=receiver.health.free_bytes),
        scrub="" if scrub is None else f"The receiver's {scrub_line(scrub)}",
        notes=(f"Next prune: {_PRUNE}.", *_unknown_history(told)),
        zone=zone,
    )


def _unknown_history(told: ToldFacts) -> Iterable[str]:
    if not told.histories:
        yield (
            "The receiver tells no history: it is older, or has just started. So days on which nothing that is still"
            " stored arrived are unknown."
        )


def _alarms(told: ToldFacts, judged: Sequence[BackupState], receiver: ReceiverState) -> Iterable[ReportedAlarm]:
    """Yield what `fullsend status` complains of, what the receiver reports, and which datasets it misses."""
    for each in judged:
        level = _LEVELS[each.state]
        if level is not None:
            yield ReportedAlarm(level=level, code="status", text=each.why, host=told.sender, dataset=each.dataset)
    for name, history in told.histories.items():
        if history.late and history.every is not None and history.age is not None:
            every, age = format_duration(history.every), format_duration(history.age)
            what = f"last seen {age} ago, and expected every {every}: run `fullsend push`, and look at its timer"
            yield ReportedAlarm(level="critical", code="late", text=what, host=told.sender, dataset=name)
    for problem in receiver.findings:
        yield ReportedAlarm(level="warning", code="receiver", text=f"receiver {receiver.name}: {problem}")


def _drill(drill: messages.DrillEntry) -> DrillFacts:
    return DrillFacts(
        at=parse_time(drill.at) or 0.0,
        snapshot=drill.snapshot,
        ok=drill.ok,
        text=drill.text,
        seconds=drill.milliseconds / 1000,
        raw_bytes=drill.raw_bytes,
        succeeded=None if drill.succeeded is None else parse_time(drill.succeeded),
    )


def _dataset(name: str, found: list[StreamEntry], told: ToldFacts, zone: tzinfo | None) -> DatasetFacts:
    entries = sorted(found, key=lambda each: (each.sequence or 0, parse_time(each.received) or 0.0))
    about, history = told.statuses.get(name), told.histories.get(name)
    base = None if about is None or about.guid is None else told.bases.get(about.guid)
    times = [] if about is None else [parse_time(each) for each in (about.received, about.unchanged) if each]
    seen = max((each for each in times if each is not None), default=None)
    checks = [parse_time(each.verified or each.received) for each in entries]
    return DatasetFacts(
        name=name,
        snapshot=None if about is None else about.snapshot,
        created=None if about is None or about.created is None else parse_time(about.created),
        received=None if about is None or about.received is None else parse_time(about.received),
        seen=seen,
        age=_age(seen, told.now) if history is None else history.age,
        streams=tuple(_stream(each, told) for each in entries),
        days=tuple(_days(entries, zone) if history is None else map(_day, history.nights)),
        recorded_since=None if history is None or history.since is None else parse_time(history.since),
        every=None if history is None else history.every,
        limit=None if history is None else history.limit,
        source="unknown" if history is None else history.source,
        expected="the receiver tells nothing about it" if history is None else _SOURCES[history.source],
        late=history is not None and history.late,
        stream_count=len(entries),
        fulls=sum(each.kind == "full" for each in entries),
        raw_bytes=sum(each.raw_bytes for each in entries),
        stored_bytes=sum(each.stored_bytes for each in entries),
        chain_streams=0 if base is None else base.streams,
        chain_raw_bytes=0 if base is None else base.full_bytes + base.increment_bytes,
        broken=sum(not each.restorable for each in entries),
        damaged=sum(each.damaged is not None for each in entries),
        oldest_check=min((each for each in checks if each is not None), default=None),
        unchecked=sum(each.verified is None and each.damaged is None for each in entries),
    )


def _age(seen: float | None, now: float) -> float | None:
    """Return seconds; None: unknown. A time in the future tells no age."""
    return None if seen is None or seen > now else now - seen


def _stream(entry: StreamEntry, told: ToldFacts) -> StreamFacts:
    return StreamFacts(
        snapshot=entry.snapshot,
        guid=None if entry.kind == "package" else entry.guid,
        base_guid=entry.base_guid,
        kind=entry.kind,
        received=parse_time(entry.received),
        raw_bytes=entry.raw_bytes,
        stored_bytes=entry.stored_bytes,
        merged=entry.file in told.merged,
        restorable=entry.restorable,
        damaged=entry.damaged is not None,
    )


def _day(night: messages.NightEntry) -> DayFacts:
    try:
        day = date.fromisoformat(night.day).toordinal()
    except ValueError:  # such as a 31st of February
        day = 0
    return DayFacts(
        day=day,
        received=night.received,
        unchanged=night.unchanged,
        raw_bytes=night.raw_bytes,
        stored_bytes=night.stored_bytes,
    )


def _days(entries: Iterable[StreamEntry], zone: tzinfo | None) -> Iterable[DayFacts]:
    """Yield the days on which something arrived that is still stored."""
    days: dict[int, DayFacts] = {}
    for each in entries:
        at = parse_time(each.received)
        day = None if at is None else day_of(at, zone)
        if day is not None:
            before = days.get(day, DayFacts(day=day))
            days[day] = DayFacts(
                day=day,
                received=before.received + 1,
                raw_bytes=before.raw_bytes + each.raw_bytes,
                stored_bytes=before.stored_bytes + each.stored_bytes,
            )
    return [days[day] for day in sorted(days)]


@contextmanager
def _older_is_fine() -> Iterator[None]:
    """Ignore that an older receiver does not know a question. Raises: PeerError of any other code."""
    try:
        yield
    except PeerError as error:
        if error.code is not ErrorCode.PROTOCOL:
            raise
