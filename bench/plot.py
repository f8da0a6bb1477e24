"""Line charts as SVG: text as text, light and dark, no library.

A chart has a background of its own, so that it is readable wherever it is shown. Its colours follow the reader's
preference. Lines differ in their dashes too, for readers who do not see the colours, and each has its name at its end.
"""

from __future__ import annotations

import html
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH: Final = 760
_HEIGHT: Final = 400
#: The area of the lines. To its right are their names.
_LEFT: Final = 70
_RIGHT: Final = 590
_TOP: Final = 50
_BOTTOM: Final = 340
#: At most so many intervals on the vertical axis, and on the horizontal one.
_ROWS: Final = 6
_COLUMNS: Final = 14
#: Pixels between the names of two lines, at least.
_NAME_HEIGHT: Final = 16
#: The lines' looks, in their order: a colour on light, on dark, and a pattern of dashes.
_LOOKS: Final = (("#0b57b8", "#8ab8ff", "none"), ("#a8480a", "#ffb27d", "7 3"), ("#0b6b43", "#7ddcb0", "2 3"))
_STYLE: Final = (
    "text{font:13px sans-serif;fill:#1f2328}.title{font-size:16px;font-weight:bold}"
    ".paper{fill:#fff}.grid{stroke:#d0d7de}.axis{stroke:#59636e}polyline{fill:none;stroke-width:2}"
)
_DARK: Final = "text{fill:#e6edf3}.paper{fill:#0d1117}.grid{stroke:#30363d}.axis{stroke:#8b949e}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. `points`: x and y, in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. `x`, `y`: what the axes show, with the unit. The vertical axis begins at 0."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, with at most `most` intervals between them."""
    span = high - low or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            return [number * step for number in range(first, max(last, first + 1) + 1)]
    raise AssertionError(low, high, most)


def svg(chart: Chart) -> str:
    """Return the chart as an SVG document. Raises: ValueError if it has no point, or more lines than looks."""
    points = [point for line in chart.lines for point in line.points]
    if not points or len(chart.lines) > len(_LOOKS) or not all(line.points for line in chart.lines):
        msg = f"a chart has one to {len(_LOOKS)} lines, each with a point or more: {chart.title}"
        raise ValueError(msg)
    across = ticks(min(x for x, _ in points), max(x for x, _ in points), _COLUMNS)
    up = ticks(0, max(y for _, y in points), _ROWS)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - across[0]) / (across[-1] - across[0])
        return _LEFT + right * (_RIGHT - _LEFT), _BOTTOM - y / up[-1] * (_BOTTOM - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{html.escape(chart.title)}</title>",
        f"<style>{_style(len(chart.lines))}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        _text(_LEFT, 28, chart.title, "start", "title"),
        _text((_LEFT + _RIGHT) / 2, _BOTTOM + 42, chart.x),
        f'<g transform="translate(20 {(_TOP + _BOTTOM) / 2}) rotate(-90)">{_text(0, 0, chart.y)}</g>',
    ]
    for y in up:
        _, at = place(0, y)
        parts += [
            f'<path class="{"grid" if y else "axis"}" d="M{_LEFT} {at:.1f}H{_RIGHT}"/>',
            _text(_LEFT - 8, at + 4, _number(y), "end"),
        ]
    for x in across:
        at, _ = place(x, 0)
        parts += [f'<path class="axis" d="M{at:.1f} {_BOTTOM}v5"/>', _text(at, _BOTTOM + 20, _number(x))]
    for number, line in enumerate(chart.lines):
        drawn = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line.points)
        parts.append(f'<polyline class="line{number}" points="{drawn}"/>')
    ends = [place(*line.points[-1])[1] for line in chart.lines]
    for number, (line, at) in enumerate(zip(chart.lines, _apart(ends), strict=True)):
        parts.append(_text(_RIGHT + 10, at + 4, line.name, "start", f"name{number}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _style(lines: int) -> str:
    looks = list(enumerate(_LOOKS[:lines]))
    light = "".join(
        f".line{number}{{stroke:{colour};stroke-dasharray:{dashes}}}.name{number}{{fill:{colour}}}"
        for number, (colour, _, dashes) in looks
    )
    dark = "".join(
        f".line{number}{{stroke:{colour}}}.name{number}{{fill:{colour}}}" for number, (_, colour, _) in looks
    )
    return f"{_STYLE}{light}@media(prefers-color-scheme:dark){{{_DARK}{dark}}}"


def _apart(heights: Sequence[float]) -> list[float]:
    """Return these heights, moved down as far as is needed so that no name covers another."""
    moved = list(heights)
    order = sorted(range(len(heights)), key=lambda number: heights[number])
    for above, below in itertools.pairwise(order):
        moved[below] = max(moved[below], moved[above] + _NAME_HEIGHT)
    return moved


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    kind = kind and f' class="{kind}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{html.escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")  # noqa: RUF001 - the minus sign, which is as wide as a plus
