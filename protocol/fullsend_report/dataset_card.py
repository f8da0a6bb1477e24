"""One dataset on the page: a line with its last nights; folded below it the drawings and the figures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from typing import Final

from fullsend_protocol.shared.units import plural
from fullsend_report import chain, nights, sizes
from fullsend_report.facts import AlarmLevel, DatasetFacts, Fate
from fullsend_report.figures import age, moment, ratio, seen, size, span, text

_FATES: Final[dict[Fate, str]] = {"drop": "drops", "merge": "merges away"}


def render(dataset: DatasetFacts, *, anchor: str, unfolded: bool, drawn: bool, now: float, zone: tzinfo | None) -> str:
    """Return the dataset's element. `drawn`: with drawings; `now`: seconds since the epoch."""
    calendar = nights.calendar_of(dataset, now, zone)
    came = seen(dataset.seen, dataset.age)
    return (
        f'<details class="ds" id="{anchor}"{" open" if unfolded else ""}><summary>'
        f'<span class="name">{text(dataset.name)}</span>{nights.draw_strip(calendar) if drawn else ""}'
        f'<span class="num">{came}</span><span class="num size">{size(dataset.stored_bytes)}</span>'
        f'<span class="state">{badge(dataset.level)}</span></summary><div>'
        f"{_panels(dataset, calendar, zone) if drawn else _undrawn()}"
        f'<dl class="facts">{"".join(_facts(dataset, now, zone))}</dl></div></details>'
    )


def badge(level: AlarmLevel | None) -> str:
    """Return the worst alarm level as a word in a frame."""
    return f'<span class="level {level or "ok"}">{level or "no alarm"}</span>'


def _undrawn() -> str:
    return '<p class="note">There are too many datasets on this page for drawings of this one.</p>'


def _panels(dataset: DatasetFacts, calendar: nights.Calendar, zone: tzinfo | None) -> str:
    bad = nights.bad_days(calendar)
    older = len(dataset.streams) - chain.DRAWN
    note = f"{plural(older, 'older stream')} not drawn; " if older > 0 else ""
    drawing = chain.draw(dataset.streams, zone) if dataset.streams else ""
    arrived = sizes.draw(dataset.days, calendar.first, calendar.today)
    none = '<p class="note">Nothing arrived in these weeks, as far as is known.</p>'
    named = f'<p class="bad-note">{bad}</p>' if bad else ""
    return (
        '<div class="panels">'
        f"<section><h3>Nights</h3>{nights.draw(calendar)}{named}</section>"
        f'<section><h3>Chain</h3>{drawing}<p class="note">{note}{chain.summary(dataset.streams)}</p></section>'
        f"<section><h3>Sizes, stored and raw</h3>{arrived or none}</section></div>"
    )


def _facts(dataset: DatasetFacts, now: float, zone: tzinfo | None) -> Iterator[str]:
    for term, value in _figures(dataset, now, zone):
        yield f"<div><dt>{term}</dt><dd>{value}</dd></div>"


def _figures(dataset: DatasetFacts, now: float, zone: tzinfo | None) -> Iterator[tuple[str, str]]:
    """Yield the figures, each with its name."""
    if dataset.snapshot is None:
        yield "Newest state", "nothing of it can be restored"
    else:
        received = f"received {moment(dataset.received, zone)}"
        taken = "" if dataset.created is None else f"taken {moment(dataset.created, zone)}, "
        yield "Newest state", f"{text('@' + dataset.snapshot)}: {taken}{received}"
    at = "" if dataset.seen is None else f", {moment(dataset.seen, zone)}"
    yield "Last seen", f"{seen(dataset.seen, dataset.age)}{at}"
    yield "Expected", f"{_expected(dataset)} ({text(dataset.expected)})"
    streams = f"{plural(dataset.stream_count, 'stream')}, {plural(dataset.fulls, 'full')}"
    yield "Stored", f"{streams}: {size(dataset.stored_bytes)} of {size(dataset.raw_bytes)} raw"
    yield "Compressed", ratio(dataset.raw_bytes, dataset.stored_bytes)
    if dataset.damaged or dataset.broken:
        unrestorable = f"{plural(dataset.broken, 'stream')} not restorable"
        yield "Damage", f"{plural(dataset.damaged, 'stream')} damaged, {unrestorable}"
    if dataset.chain_streams:
        read = "" if dataset.chain_stored_bytes is None else f", {size(dataset.chain_stored_bytes)} stored"
        raw = size(dataset.chain_raw_bytes)
        yield "To restore the newest", f"{plural(dataset.chain_streams, 'stream')}{read}, {raw} raw"
    yield "Time to restore the newest", _restore_time(dataset)
    yield "Oldest check", _checks(dataset, now)
    yield "Last restore drill", text(dataset.drill) or "none is known"
    fates = ", ".join(
        f"{verb} {plural(len(found), 'stream')} ({size(sum(each.stored_bytes for each in found))})"
        for fate, verb in _FATES.items()
        if (found := [each for each in dataset.streams if each.fate == fate])
    )
    if fates or dataset.prune:
        yield "Next prune", "; ".join(part for part in (fates, text(dataset.prune)) if part)


def _expected(dataset: DatasetFacts) -> str:
    if dataset.source != "unknown":
        return "never" if dataset.every is None else f"every {span(dataset.every)}"
    limit = dataset.every if dataset.limit is None else dataset.limit
    return "not known" if limit is None else f"not known, late after {span(limit)}"


def _restore_time(dataset: DatasetFacts) -> str:
    if dataset.speed is None or dataset.speed.rate <= 0:
        return "not measured"
    if not dataset.chain_streams:
        return "nothing can be restored"
    seconds = dataset.chain_raw_bytes / dataset.speed.rate
    return f"about {span(seconds)}, at {size(dataset.speed.rate)} a second ({text(dataset.speed.source)})"


def _checks(dataset: DatasetFacts, now: float) -> str:
    if dataset.oldest_check is None:
        return "unknown"
    unread = ""
    if dataset.unchecked:
        unread = f"; {plural(dataset.unchecked, 'stream')} never read since arrival"
    return f"{age(dataset.oldest_check, now)}{unread}"
