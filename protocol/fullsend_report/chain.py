"""The drawing of a dataset's chains: its stored streams in order of reception, and which builds on which.

A full is a large square with an F, a package one with a P, an increment a dot, a merged stream a diamond. A line leads
from each stream to the next one that builds on it. A damaged stream is crossed out in red. What the next prune drops
is hollow and dashed; what it merges is hollow, with an arrow to the stream that takes it in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from fullsend_protocol.shared.units import plural
from fullsend_report.facts import StreamFacts, StreamKind
from fullsend_report.figures import moment, number, size, text

#: Streams that are drawn, the newest ones; a line says how many more there are.
DRAWN: Final = 126
#: Streams of a row.
_COLUMNS: Final = 21
_PITCH: Final = 16
_ROW: Final = 26
_FULL: Final = 7  # half the side of a full
_DOT: Final = 3.5
_DIAMOND: Final = 5
_CROSS: Final = 4
#: Characters of a snapshot's name in the drawing.
_NAME: Final = 48
_KINDS: Final[dict[StreamKind, str]] = {"full": "full", "incremental": "increment", "package": "package"}


@dataclass(frozen=True, slots=True)
class _Placed:
    stream: StreamFacts
    x: float
    y: float


def draw(streams: Sequence[StreamFacts], zone: tzinfo | None) -> str:
    """Return the drawing of streams, in order of reception, as SVG. The newest `DRAWN` are in it."""
    placed = _place(streams[-DRAWN:])
    rows = max((each.y for each in placed), default=_ROW / 2) + _ROW / 2
    width = _COLUMNS * _PITCH
    return (
        f'<svg class="chain" viewBox="0 0 {width} {number(rows)}" width="{width}" height="{number(rows)}" role="img"'
        f' aria-label="{summary(streams)}">{_links(placed)}{_plain(placed)}'
        f"{''.join(_special(each, zone) for each in placed if _is_special(each.stream))}</svg>"
    )


def summary(streams: Sequence[StreamFacts]) -> str:
    """Return what is stored, and what becomes of it, in one line."""
    if not streams:
        return "no stream is stored"
    kinds = Counter(each.kind for each in streams)
    fates = Counter(each.fate for each in streams)
    said = [plural(kinds[kind], name) for kind, name in _KINDS.items() if kinds[kind]]
    said += [
        f"{count} {what}"
        for count, what in (
            (sum(each.merged for each in streams), "of them merged"),
            (sum(each.damaged for each in streams), "damaged"),
            (sum(not (each.damaged or each.restorable) for each in streams), "not restorable"),
            (fates["drop"], "dropped at the next prune"),
            (fates["merge"], "merged away at the next prune"),
        )
        if count
    ]
    return ", ".join(said)


def _place(streams: Sequence[StreamFacts]) -> list[_Placed]:
    placed = []
    row = column = 0
    for each in streams:
        # A full begins a chain: a gap before it, if there is room in the row.
        if each.kind != "incremental" and column:
            column += 1
        if column >= _COLUMNS:
            row, column = row + 1, 0
        placed.append(_Placed(each, column * _PITCH + _PITCH / 2, row * _ROW + _ROW / 2))
        column += 1
    return placed


def _links(placed: Sequence[_Placed]) -> str:
    """Return the lines: from each stream to its base, if that is drawn."""
    n = number
    by_guid: dict[str, _Placed] = {}
    lines, arrows = [], []
    for at, each in enumerate(placed):
        stream = each.stream
        base = by_guid.get(stream.base_guid) if stream.base_guid is not None else None
        if base is not None:
            if base.y != each.y:  # to the end of the row above, and from the beginning of this one
                last = at > 0 and placed[at - 1] is base
                lines.append(f"M{n(base.x)} {n(base.y)}h8" if last else "")
                lines.append(f"M{n(each.x - 8)} {n(each.y)}h8")
            elif at > 0 and placed[at - 1] is base:
                lines.append(f"M{n(base.x)} {n(base.y)}H{n(each.x)}")
            else:  # a branch: an arc over what lies between
                middle = (base.x + each.x) / 2
                top = each.y - _ROW + 2
                lines.append(f"M{n(base.x)} {n(base.y)}Q{n(middle)} {n(top)} {n(each.x)} {n(each.y)}")
            if base.stream.fate == "merge" and base.y == each.y:
                tip = base.x + _PITCH / 2 + 1.5
                arrows.append(f"M{n(tip - 3)} {n(each.y - 3)}l3 3l-3 3")
        if stream.guid is not None:
            by_guid[stream.guid] = each
    drawn = f'<path class="link" d="{"".join(lines)}"/>' if any(lines) else ""
    return drawn + (f'<path class="arrow" d="{"".join(arrows)}"/>' if arrows else "")


def _is_special(stream: StreamFacts) -> bool:
    """Whether a stream has a shape with a text of its own; all others are in one path."""
    return stream.kind != "incremental" or stream.damaged or not stream.restorable or stream.fate != "stay"


def _plain(placed: Sequence[_Placed]) -> str:
    increments = [each for each in placed if not _is_special(each.stream)]
    dots = "".join(_shape(each) for each in increments if not each.stream.merged)
    diamonds = "".join(_shape(each) for each in increments if each.stream.merged)
    return (f'<path class="inc" d="{dots}"/>' if dots else "") + (
        f'<path class="mrg" d="{diamonds}"/>' if diamonds else ""
    )


def _shape(placed: _Placed) -> str:
    """Return the path of a stream's shape."""
    n, x, y, stream = number, placed.x, placed.y, placed.stream
    if stream.kind != "incremental":
        side = 2 * _FULL
        return f"M{n(x - _FULL)} {n(y - _FULL)}h{side}v{side}h-{side}z"
    if stream.merged:
        d = _DIAMOND
        return f"M{n(x)} {n(y - d)}l{d} {d}l-{d} {d}l-{d}-{d}z"
    r = _DOT
    return f"M{n(x - r)} {n(y)}a{r} {r} 0 1 0 {n(2 * r)} 0a{r} {r} 0 1 0-{n(2 * r)} 0z"


def _special(placed: _Placed, zone: tzinfo | None) -> str:
    stream = placed.stream
    classes = "mrg" if stream.merged else {"full": "full", "package": "full", "incremental": "inc"}[stream.kind]
    if stream.fate != "stay":
        classes += f" {stream.fate}"
    if stream.damaged or not stream.restorable:
        classes += " bad"
    letter = ""
    if stream.kind != "incremental":
        hollow = "" if stream.fate == "stay" and not stream.damaged and stream.restorable else ' class="hollow"'
        letter = (
            f'<text x="{number(placed.x)}" y="{number(placed.y + 3.5)}"{hollow}>'
            f"{'F' if stream.kind == 'full' else 'P'}</text>"
        )
    cross = ""
    if stream.damaged:
        d = _CROSS + (4 if stream.kind != "incremental" else 2)
        cross = (
            f'<path class="cross" d="M{number(placed.x - d)} {number(placed.y - d)}l{2 * d} {2 * d}'
            f'm0-{2 * d}l-{2 * d} {2 * d}"/>'
        )
    return f'<g><title>{_about(stream, zone)}</title><path class="{classes}" d="{_shape(placed)}"/>{letter}{cross}</g>'


def _about(stream: StreamFacts, zone: tzinfo | None) -> str:
    state = (
        "damaged"
        if stream.damaged
        else "cannot be restored"
        if not stream.restorable
        else {"stay": "", "drop": "the next prune drops it", "merge": "the next prune merges it into the next one"}[
            stream.fate
        ]
    )
    said = ["merged" if stream.merged else "", stream.kind, size(stream.stored_bytes), state]
    when = "" if stream.received is None else f"received {moment(stream.received, zone)}"
    name = f"@{stream.snapshot}"
    short = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    return f"{text(short)}: " + ", ".join(each for each in [*said, when] if each)
