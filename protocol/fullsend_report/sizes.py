"""The sizes of a dataset over time: of each day, what arrived, raw and as it was stored. The scale is logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from fullsend_report.facts import DayFacts
from fullsend_report.figures import day_name, number, size

_WIDTH: Final = 336
_HEIGHT: Final = 118
_LEFT: Final = 52
_TOP: Final = 8
_BOTTOM: Final = 98
#: Lines across the drawing, at most, each with a size.
_LINES: Final = 3
#: The least range of the scale: two powers of two above and below.
_RANGE: Final = 4


def draw(days: Sequence[DayFacts], first: int, today: int) -> str:
    """Return the drawing as SVG; empty, if nothing arrived on these days."""
    shown = [each for each in days if first <= each.day <= today and each.stored_bytes]
    if not shown:
        return ""
    sizes = [each.stored_bytes for each in shown] + [each.raw_bytes for each in shown if each.raw_bytes]
    low = math.floor(math.log2(min(sizes))) - 1
    high = max(math.ceil(math.log2(max(sizes))), low + _RANGE)
    step = math.ceil((high - low) / _LINES)

    def x(day: int) -> str:
        return number(_LEFT + 4 + (day - first) * (_WIDTH - _LEFT - 8) / max(1, today - first))

    def y(bytes_: int) -> str:
        return number(_BOTTOM - (math.log2(bytes_) - low) * (_BOTTOM - _TOP) / (high - low))

    lines, labels = [], []
    for power in range(low, high + 1, step):
        at = y(1 << power if power >= 0 else 1)
        lines.append(f"M{_LEFT} {at}H{_WIDTH}")
        labels.append(f'<text class="end" x="{_LEFT - 4}" y="{number(float(at) + 3.5)}">{size(2.0**power)}</text>')
    stems = "".join(f"M{x(each.day)} {_BOTTOM}V{y(each.stored_bytes)}" for each in shown)
    raws = "".join(f"M{number(float(x(each.day)) - 2)} {y(each.raw_bytes)}h4" for each in shown if each.raw_bytes)
    labels += [
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">{day_name(first)[4:]}</text>',
        f'<text class="end" x="{_WIDTH}" y="{_HEIGHT - 4}">{day_name(today)[4:]}</text>',
    ]
    return (
        f'<svg class="sizes" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img"'
        f' aria-label="{summary(shown)}"><path class="grid" d="{"".join(lines)}"/><path class="stem" d="{stems}"/>'
        f'<path class="raw" d="{raws}"/>{"".join(labels)}</svg>'
    )


def summary(shown: Sequence[DayFacts]) -> str:
    """Return the drawing in one line, for a screen reader."""
    largest = max(shown, key=lambda each: each.stored_bytes)
    newest = max(shown, key=lambda each: each.day)
    return (
        f"Stored per day, on {len(shown)} days: the most was {size(largest.stored_bytes)} on {day_name(largest.day)};"
        f" the last was {size(newest.stored_bytes)} on {day_name(newest.day)}"
    )
