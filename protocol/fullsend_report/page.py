"""The page: the verdict first, then the alarms, the room, and each host with its datasets, folded.

A dataset takes some 10 KiB, at most 80. Of at most `DRAWN_MAX` datasets there are drawings, of those with alarms first;
of the others there are the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from fullsend_protocol.shared.units import plural
from fullsend_report import dataset_card, nights
from fullsend_report.facts import AlarmLevel, DatasetFacts, HostFacts, ReportFacts, RoomFacts
from fullsend_report.figures import age, moment, ratio, size, span, text, zone_name
from fullsend_report.style import POLICY, STYLE

#: Datasets with drawings: of more, the page would be too large for a telephone.
DRAWN_MAX: Final = 1000
#: Alarms that are listed. A line says how many more there are.
ALARMS_MAX: Final = 200
#: So many hosts, and datasets in all, are unfolded; of more, those with alarms.
_HOSTS_OPEN: Final = 8
_DATASETS_OPEN: Final = 3
#: Datasets with alarms that are unfolded.
_ALARMED_OPEN: Final = 10

_COUNTED: Final[dict[AlarmLevel, str]] = {"critical": "critical alarm", "warning": "warning"}
_ICONS: Final[dict[AlarmLevel | None, str]] = {
    None: '<circle cx="18" cy="18" r="15"/><path d="M11 18.5l5 5 9-10"/>',
    "warning": '<path d="M18 4L33 31H3zM18 14v8M18 26.5v.1"/>',
    "critical": '<path d="M12 3h12l9 9v12l-9 9H12l-9-9V12zM13 13l10 10M23 13L13 23"/>',
}


def render(facts: ReportFacts) -> str:
    """Return the page: HTML, to be written as UTF-8."""
    title = text(facts.title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8"/>',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            '<meta name="color-scheme" content="light dark"/><meta name="referrer" content="no-referrer"/>',
            '<meta name="robots" content="noindex"/>',
            f"<title>{_mark(facts.level)}{title}</title>",
            f"<style>{STYLE}</style></head><body>",
            '<a class="skip" href="#hosts">To the hosts</a>',
            f"<header><h1>{title}</h1>{_made(facts)}</header><main>",
            *_verdict(facts),
            *_alarms(facts),
            _tiles(facts),
            *_room(facts.room),
            _legend(),
            '<div id="hosts">',
            *_hosts(facts),
            f"</div></main>{_footer(facts)}</body></html>",
            "",
        ]
    )


def _mark(level: AlarmLevel | None) -> str:
    """Return what a browser's tab says first."""
    return "" if level is None else f"{level}: "


def _made(facts: ReportFacts) -> str:
    at = f"{moment(facts.at, facts.zone)} {zone_name(facts.at, facts.zone)}"
    following = ""
    if facts.next_at is not None:
        due = moment(facts.next_at, facts.zone)
        following = f" The next page is due at {due}: if it is later than that, nobody watches these backups."
    return f'<p class="dim">As of <strong>{at}</strong>, {text(facts.program)}.{following}</p>'


# --- the verdict


def _verdict(facts: ReportFacts) -> Iterator[str]:
    datasets = [each for host in facts.hosts for each in host.datasets]
    counts = Counter(each.level for each in facts.alarms)
    unknown = sum(each.source == "unknown" for each in datasets)
    level: AlarmLevel | None = facts.level
    said = []
    if level is not None:
        found = ", ".join(plural(counts[each], noun) for each, noun in _COUNTED.items() if counts[each])
        head = f"{'Something is wrong' if level == 'critical' else 'Look at this'}: {found}"
        said.append("What is wrong, and what to do, is listed below.")
    elif not datasets:
        level, head = "warning", "Nothing is stored"
        said.append("No dataset has ever arrived here.")
    elif any(each.damaged or each.broken or each.late for each in datasets):
        level, head = "warning", "Look at this"
        said.append("There is no alarm, and yet a dataset is late, or not all of it can be restored: see below.")
    elif unknown:
        head = "All is well, as far as is known"
        said.append("There is no alarm.")
    else:
        head = "All is well"
        said.append("There is no alarm: everything came in time, and nothing is known to be damaged.")
    if unknown:
        which = "all datasets" if unknown == len(datasets) else plural(unknown, "dataset")
        said.append(
            f"Of {which} it is not known how often they should come, so nobody would soon notice if they stopped."
        )
    yield f'<section class="verdict {level or "ok"}"><svg viewBox="0 0 36 36" aria-hidden="true">{_ICONS[level]}</svg>'
    yield f"<div><h2>{head}</h2><p>{' '.join(said)}</p></div></section>"


def _alarms(facts: ReportFacts) -> Iterator[str]:
    if not facts.alarms:
        return
    anchors = {
        (host.name, each.name): _anchor(at, number)
        for at, host in enumerate(facts.hosts)
        for number, each in enumerate(host.datasets)
    }
    anchors |= {(host.name, ""): f"h{at}" for at, host in enumerate(facts.hosts)}
    yield '<ul class="alarms" aria-label="Alarms">'
    for each in facts.alarms[:ALARMS_MAX]:
        who = text("/".join(part for part in (each.host, each.dataset) if part) or "the store")
        anchor = anchors.get((each.host or "", each.dataset or ""))
        named = f'<a href="#{anchor}">{who}</a>' if anchor else who
        since = "" if each.since is None else f'<span class="when">{_since(each.since, facts)}</span>'
        yield (
            f'<li><span class="level {each.level}">{each.level}</span><span class="who">{named}</span>'
            f"<p>{text(each.text)}</p>{since}</li>"
        )
    if len(facts.alarms) > ALARMS_MAX:
        yield f"<li><span></span><p>{len(facts.alarms) - ALARMS_MAX} more are not listed here.</p></li>"
    yield "</ul>"


def _since(since: float, facts: ReportFacts) -> str:
    return f"since {moment(since, facts.zone)}, {age(since, facts.at)}"


# --- the store


def _tiles(facts: ReportFacts) -> str:
    datasets = [each for host in facts.hosts for each in host.datasets]
    raw = sum(each.raw_bytes for each in datasets)
    stored = sum(each.stored_bytes for each in datasets)
    ages = [each.age for each in datasets if each.age is not None]
    checks = [each.oldest_check for each in datasets if each.oldest_check is not None]
    unread = [each.unchecked for each in datasets if each.unchecked is not None]
    tiles = [
        ("Datasets", f"{len(datasets):,}", f"of {plural(len(facts.hosts), 'host')}"),
        ("Streams", f"{sum(each.stream_count for each in datasets):,}", f"{size(stored)} stored"),
        ("Compressed", ratio(raw, stored), f"{size(raw)} raw"),
        ("Last arrival", f"{span(min(ages))} ago" if ages else "never", ""),
        (
            "Oldest check",
            age(min(checks), facts.at) if checks else "unknown",
            f"{sum(unread):,} never read again since arrival" if unread else "",
        ),
    ]
    if facts.room is not None:
        of = "" if facts.room.size is None else f"of {size(facts.room.size)}"
        tiles.append(("Free room", size(facts.room.free), of))
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{value}{f' <small>{more}</small>' if more else ''}</dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{rows}</dl>'


def _room(room: RoomFacts | None) -> Iterator[str]:
    if room is None or not room.size:
        return
    used = max(0.0, min(1.0, 1 - room.free / room.size))
    kept = "" if not room.min_free else f", {size(room.min_free)} are kept free"
    line = ""
    if room.min_free:
        at = max(0.0, min(1.0, 1 - room.min_free / room.size)) * 1000
        line = f'<path class="kept" d="M{at:.0f} 0v14" vector-effect="non-scaling-stroke"/>'
    yield '<section class="card room"><h2>Room</h2>'
    yield (
        f'<svg class="bar" viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label="{used:.0%} used">'
        f'<rect class="free" width="1000" height="14"/><rect class="used" width="{used * 1000:.0f}" height="14"/>'
        f"{line}</svg>"
    )
    yield f"<p>{used:.0%} of {size(room.size)} used, {size(room.free)} free{kept}. {text(room.forecast)}</p></section>"


def _legend() -> str:
    items = "".join(
        f'<li><svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true"><path class="{state}"'
        f' d="{nights.glyph(state, 2, 2, 10)}"/></svg>{name}</li>'
        for state, name in nights.STATES.items()
    )
    return f'<ul class="legend" aria-label="What the shapes of nights mean">{items}</ul>'


# --- hosts


def _hosts(facts: ReportFacts) -> Iterator[str]:
    count = sum(len(host.datasets) for host in facts.hosts)
    drawn = _first(facts.hosts, DRAWN_MAX, alarmed=False)
    unfolded = _first(facts.hosts, _ALARMED_OPEN, alarmed=count > _DATASETS_OPEN)
    for at, host in enumerate(facts.hosts):
        is_open = " open" if len(facts.hosts) <= _HOSTS_OPEN or host.level is not None else ""
        name = f"<h2>{text(host.name)}</h2>{dataset_card.badge(host.level)}"
        yield f'<details class="host" id="h{at}"{is_open}><summary>{name}'
        yield f'<span class="dim">{_host_line(host)}</span></summary>'
        if host.notes:
            yield f'<p class="about dim">{text("; ".join(host.notes))}</p>'
        for number, each in enumerate(host.datasets):
            place = at, number
            yield dataset_card.render(
                each,
                anchor=_anchor(*place),
                unfolded=place in unfolded,
                drawn=place in drawn,
                now=facts.at,
                zone=facts.zone,
            )
        yield "</details>"


def _first(hosts: tuple[HostFacts, ...], count: int, *, alarmed: bool) -> set[tuple[int, int]]:
    """Return the places of so many datasets at most, those with alarms first. `alarmed`: only these."""
    places = [(at, number) for at, host in enumerate(hosts) for number in range(len(host.datasets))]
    wanted = [place for place in places if _dataset(hosts, place).level is not None]
    if not alarmed:
        wanted += [place for place in places if _dataset(hosts, place).level is None]
    return set(wanted[:count])


def _dataset(hosts: tuple[HostFacts, ...], place: tuple[int, int]) -> DatasetFacts:
    at, number = place
    return hosts[at].datasets[number]


def _anchor(host: int, dataset: int) -> str:
    return f"d{host}-{dataset}"


def _host_line(host: HostFacts) -> str:
    ages = [each.age for each in host.datasets if each.age is not None]
    came = f"last arrival {span(min(ages))} ago" if ages else "nothing has arrived"
    said = [plural(len(host.datasets), "dataset"), f"{size(host.stored_bytes)} stored"]
    if host.quota is not None and host.used_bytes is not None:
        said.append(f"{size(host.used_bytes)} of its quota of {size(host.quota)} used")
    return ", ".join([*said, came])


def _footer(facts: ReportFacts) -> str:
    lines = [each for each in (facts.scrub, *facts.notes) if each]
    return (
        f"<footer>{''.join(f'<p>{text(each)}</p>' for each in lines)}"
        f"<details><summary>How to read this page</summary><dl>{_TERMS}</dl></details></footer>"
    )


_CHAIN: Final = (
    "The stored streams in the order in which they arrived. F is a full, P a package, a dot an increment, a diamond the"
    " result of a merge. A line leads to the stream that builds on it. Dashed: the next prune drops it. Hollow, with an"
    " arrow: the next prune merges it into the following one. Crossed out: damaged."
)
_RESTORE: Final = (
    "The raw bytes of the newest state's chain, at the speed of a restore that was measured. Without one, none is"
    " estimated."
)
_TERMS: Final = "".join(
    f"<dt>{term}</dt><dd>{meaning}</dd>"
    for term, meaning in (
        ("received", "A stream arrived on this day, and is whole as far as is known."),
        ("unchanged", "The host reported that the dataset has not changed since its last stream."),
        ("damaged", "A stream that arrived on this day is damaged, or cannot be restored."),
        ("missing", "The dataset was due on this day, and nothing came."),
        ("late", "The dataset was overdue on this day, or is overdue today."),
        ("not expected", "Nothing came, and nothing was due."),
        ("unknown", "Nothing is known of this day, or it is not known how often the dataset should come."),
        ("Chain", _CHAIN),
        ("Sizes", "What arrived on each day, on a logarithmic scale: the bar is stored, the line across it is raw."),
        ("Time to restore", _RESTORE),
    )
)
