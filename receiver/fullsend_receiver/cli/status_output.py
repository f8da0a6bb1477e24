"""What `status` prints of an overview: lines for a person and for Nagios, or one JSON object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fullsend_cli.tables import Cell, Colour
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_duration, format_size, format_time, plural, printable
from fullsend_receiver.access.patterns import matches
from fullsend_receiver.monitor.copy_text import copy_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fullsend_cli.tables import Painter
    from fullsend_protocol.wire.local import ScrubProgress
    from fullsend_receiver.monitor.overview import Alarm, CopyOverview, DatasetOverview, Drill, Overview, SenderOverview

#: The version of the JSON object. A key may be added to it; otherwise the number changes.
FORMAT: Final = 1
#: Alarms in the first line, which is all that many monitoring systems show.
_NAMED: Final = 3
_STATES: Final = {"warning": NagiosState.WARNING, "critical": NagiosState.CRITICAL}
_COLOURS: Final = {
    NagiosState.OK: Colour.GREEN,
    NagiosState.WARNING: Colour.YELLOW,
    NagiosState.CRITICAL: Colour.RED,
    NagiosState.UNKNOWN: Colour.YELLOW,
}
_HEADER: Final = ("DATASET", "NEWEST", "AGE", "EXPECTED", "STREAMS", "STORED", "OLDEST CHECK", "STATE")
_MORE: Final = ("CREATED", "RECEIVED", "UNCHANGED", "FULLS", "CHAIN", "RAW", "UNCHECKED", "DRILL")
_RIGHT: Final = frozenset({"AGE", "STREAMS", "STORED", "OLDEST CHECK", "FULLS", "RAW", "UNCHECKED"})


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The daemon. `program`: name and version, None: it does not answer, for the reason `why`."""

    program: str | None
    why: str = ""


def chosen(overview: Overview, patterns: Sequence[str]) -> Overview:
    """Return the part that SENDER or SENDER/PATTERN names; without one all of it. What is of the whole store stays."""
    if not patterns:
        return overview

    def wanted(sender: str, dataset: str | None) -> bool:
        return any(_fits(pattern, sender, dataset) for pattern in patterns)

    def is_named(sender: str) -> bool:
        return any("/" not in pattern and _fits(pattern, sender, None) for pattern in patterns)

    senders = [
        replace(one, datasets=tuple(each for each in one.datasets if wanted(one.name, each.dataset)))
        for one in overview.senders
    ]
    return replace(
        overview,
        senders=tuple(one for one in senders if one.datasets or is_named(one.name)),
        alarms=tuple(each for each in overview.alarms if each.sender is None or wanted(each.sender, each.dataset)),
    )


def _fits(pattern: str, sender: str, dataset: str | None) -> bool:
    """Whether a pattern means a dataset of a sender; `dataset` None: anything of it."""
    name, _, rest = pattern.partition("/")
    if dataset is None or not rest:
        return matches(f"{name}/*", sender, "x")
    return matches(pattern, sender, dataset)


def state_of(overview: Overview, service: ServiceState) -> NagiosState:
    """Return the worst state. Without a daemon nothing can be received; without a dataset nothing is known."""
    states = [_STATES[each.level] for each in overview.alarms]
    if service.program is None:
        states.append(NagiosState.CRITICAL)
    if states:
        return max(states)
    return NagiosState.OK if any(one.datasets for one in overview.senders) else NagiosState.UNKNOWN


def headline(overview: Overview, service: ServiceState) -> str:
    """Return the one line that a monitoring system shows: the state, and the worst alarms."""
    said = [service.why] if service.program is None else []
    said += [each.text for each in overview.alarms[:_NAMED]]
    if len(overview.alarms) > _NAMED:
        said.append(f"{len(overview.alarms) - _NAMED} more")
    datasets = [each for one in overview.senders for each in one.datasets]
    if not datasets:
        said.append("nothing is stored")
    elif not said:
        oldest = max(datasets, key=lambda each: each.age or 0.0)
        said.append(
            f"{plural(len(datasets), 'dataset')} of {plural(len(overview.senders), 'sender')}, the oldest came"
            f" {format_duration(oldest.age or 0.0)} ago ({oldest.sender}/{oldest.dataset})"
        )
    return printable(f"{state_of(overview, service).name}: {'; '.join(said)}")


def lines(
    overview: Overview, service: ServiceState, scrub: Sequence[str], painter: Painter, *, more: bool
) -> Iterator[str]:
    """Yield the lines for a person. The first is `headline`. `scrub`: what the daemon checks now; `more`: more columns,
    and each sender.
    """
    state = state_of(overview, service)
    word, rest = headline(overview, service).split(":", 1)
    yield f"{painter.paint(word, _COLOURS[state])}:{rest}"
    yield from painter.table(
        (*_HEADER, *(_MORE if more else ())),
        [_row(each, overview, more=more) for one in overview.senders for each in one.datasets],
        right=_RIGHT,
    )
    for each in overview.alarms:
        level = _STATES[each.level]
        since = "" if each.since is None else f" (since {format_time(each.since)})"
        yield f"{painter.paint(f'{level.name:<8}', _COLOURS[level])}  {each.code}: {printable(each.text)}{since}"
    for one in overview.senders:
        if more or one.quota is not None or one.partials or not one.enrolled:
            yield f"sender   {_sender(one)}"
    yield f"disk     {_disk(overview)}"
    if overview.copy is not None:
        yield f"copy     {copy_line(overview.copy)}"
    yield from scrub


def _row(each: DatasetOverview, overview: Overview, *, more: bool) -> list[Cell]:
    state = _state(each, overview)
    oldest = "-" if each.oldest_check is None else _ago(overview.at - each.oldest_check)
    cells = [
        Cell(printable(f"{each.sender}/{each.dataset}")),
        Cell(printable("-" if each.snapshot is None else f"@{each.snapshot}")),
        Cell(_ago(each.age), _COLOURS[NagiosState.CRITICAL] if each.is_late else None),
        Cell(_expected(each), Colour.DIM if each.expectation.source != "configured" else None),
        Cell(str(each.streams)),
        Cell(format_size(each.stored_bytes)),
        Cell(oldest),
        Cell(", ".join(state.words), _COLOURS[state.level]),
    ]
    if not more:
        return cells
    drill = "-" if each.drill is None else f"{_drill_result(each.drill)} {format_time(each.drill.at)}"
    chain = f"{plural(each.chain_streams, 'stream')}, {format_size(each.chain_stored_bytes)}"
    texts = [
        *(_time(at) for at in (each.created, each.received, each.unchanged)),
        *(str(each.fulls), chain, format_size(each.raw_bytes), str(each.unchecked), drill),
    ]
    return [*cells, *map(Cell, texts)]


@dataclass(frozen=True, slots=True)
class _DatasetState:
    level: NagiosState
    words: list[str]


def _state(each: DatasetOverview, overview: Overview) -> _DatasetState:
    """Return the state of a dataset: that of its alarms, and of those of all of its sender that say it is late."""
    found = [alarm for alarm in overview.alarms if alarm.sender == each.sender and _concerns(alarm, each)]
    level = max((_STATES[alarm.level] for alarm in found), default=NagiosState.OK)
    return _DatasetState(level, sorted({alarm.code for alarm in found}) or ["ok"])


def _concerns(alarm: Alarm, each: DatasetOverview) -> bool:
    return alarm.dataset == each.dataset or (alarm.dataset is None and alarm.code == "late" and each.is_late)


def _expected(each: DatasetOverview) -> str:
    found = each.expectation
    if found.source == "unknown":
        return "not known yet"
    if found.every is None:
        return "never"
    return f"{_ago(found.every)}{' (learnt)' if found.source == 'learnt' else ''}"


def _sender(one: SenderOverview) -> str:
    said = [f"{printable(one.name)}: {format_size(one.stored_bytes)} stored"]
    if one.quota is not None:
        said.append(f"{format_size(one.used_bytes)} of its quota of {format_size(one.quota)} used")
    if one.partials:
        said.append(f"{plural(one.partials, 'partial stream')}, {format_size(one.partial_bytes)}")
    if not one.enrolled:
        said.append("it is not enrolled: its certificate was revoked, or its table is lost")
    return ", ".join(said)


def _disk(overview: Overview) -> str:
    free = f"{format_size(overview.free)} of {format_size(overview.size)} free"
    full = "" if overview.full_at is None else f", full at about {format_time(overview.full_at)} at the present rate"
    return f"{free}{full}"


def _ago(seconds: float | None) -> str:
    """Return a duration in few characters: two units at most."""
    if seconds is None:
        return "?"
    minutes = int(max(0.0, seconds)) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days}d" + (f" {hours}h" if hours else "")
    return f"{hours}h" + (f" {minutes % 60}m" if minutes % 60 else "") if hours else f"{minutes}m"


def _time(at: float | None) -> str:
    return "-" if at is None else format_time(at)


# --- for a program


def facts(overview: Overview, service: ServiceState, scrub: ScrubProgress | None) -> dict[str, Any]:
    """Return the JSON object (docs/operations.md). Times are ISO 8601 in UTC, durations seconds, sizes bytes."""
    state = state_of(overview, service)
    return {
        "format": FORMAT,
        "state": state.name,
        "why": headline(overview, service).partition(": ")[2],
        "at": format_time(overview.at),
        "program": overview.program,
        "daemon": service.program,
        "store": overview.store,
        "disk": {
            "free_bytes": overview.free,
            "size_bytes": overview.size,
            "min_free_bytes": overview.min_free,
            "full_at": _iso(overview.full_at),
        },
        "aside_bytes": overview.aside_bytes,
        "trash_bytes": overview.trash_bytes,
        "scrub": None if scrub is None else scrub.model_dump(exclude={"type", "program"}),
        "checks": {
            "every": overview.scrub.every,
            "streams": overview.scrub.streams,
            "current": overview.scrub.current,
            "checked": overview.scrub.checked,
            "oldest": _iso(overview.scrub.oldest),
            "due_streams": overview.scrub.due_streams,
            "due_bytes": overview.scrub.due_bytes,
            "damaged": overview.scrub.damaged,
            "unreadable": overview.scrub.unreadable,
            "behind": overview.scrub.behind,
            "stopped": overview.scrub.stopped,
        },
        "copy": None if overview.copy is None else _copy_facts(overview.copy),
        "alarms": [
            {
                "code": each.code,
                "level": each.level,
                "sender": each.sender,
                "dataset": each.dataset,
                "since": _iso(each.since),
                "text": each.text,
            }
            for each in overview.alarms
        ],
        "senders": [_sender_facts(one, overview) for one in overview.senders],
    }


def _copy_facts(copy: CopyOverview) -> dict[str, Any]:
    return {
        "to": copy.to,
        "fault": copy.fault,
        "complete": _iso(copy.complete),
        "age": None if copy.age is None else round(copy.age),
        "late_after": copy.limit,
        "late": copy.is_late,
        "wanted": _iso(copy.since),
        "began": _iso(copy.began),
        "ended": _iso(copy.ended),
        "ok": copy.ok,
        "why": copy.why,
        "left": copy.left,
        "named": [{"file": file, "why": why} for file, why in copy.named],
        "older": copy.older,
        "streams": copy.streams,
        "stored_bytes": copy.stored_bytes,
    }


def _sender_facts(one: SenderOverview, overview: Overview) -> dict[str, Any]:
    return {
        "sender": one.name,
        "enrolled": one.enrolled,
        "stored_bytes": one.stored_bytes,
        "used_bytes": one.used_bytes,
        "quota_bytes": one.quota,
        "partials": one.partials,
        "partial_bytes": one.partial_bytes,
        "datasets": [_dataset_facts(each, overview) for each in one.datasets],
    }


def _drill_result(drill: Drill) -> str:
    if not drill.ok:
        return "FAILED"
    return "ok (no content compared)" if drill.compared == "guid" else "ok"


def _dataset_facts(each: DatasetOverview, overview: Overview) -> dict[str, Any]:
    drill = each.drill
    return {
        "dataset": each.dataset,
        "state": _state(each, overview).level.name,
        "snapshot": each.snapshot,
        "guid": each.guid,
        "created": _iso(each.created),
        "received": _iso(each.received),
        "unchanged": _iso(each.unchanged),
        "age": None if each.age is None else round(each.age),
        "expected_every": each.expectation.every,
        "late_after": each.expectation.limit,
        "expected_by": each.expectation.source,
        "late": each.is_late,
        "streams": each.streams,
        "fulls": each.fulls,
        "raw_bytes": each.raw_bytes,
        "stored_bytes": each.stored_bytes,
        "chain_streams": each.chain_streams,
        "chain_raw_bytes": each.chain_raw_bytes,
        "chain_stored_bytes": each.chain_stored_bytes,
        "broken": each.broken,
        "damaged": each.damaged,
        "lost_spill_count": each.lost_spill_count,
        "oldest_check": _iso(each.oldest_check),
        "unchecked": each.unchecked,
        "drill": None
        if drill is None
        else {
            "at": _iso(drill.at),
            "snapshot": drill.snapshot,
            "ok": drill.ok,
            "compared": drill.compared,
            "text": drill.text,
            "seconds": drill.seconds,
            "raw_bytes": drill.raw_bytes,
            "succeeded": _iso(drill.succeeded),
        },
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else format_time(at)
