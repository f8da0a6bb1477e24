"""Text in columns: each as wide as its widest cell. What a terminal shows in two columns counts twice."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


def aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> Iterator[list[str]]:
    """Yield the padded cells of the heading, and then of each row; nothing at all for no rows.

    `right`: the headings of the columns that are aligned to the right, such as numbers.
    """
    if not rows:
        return
    everything = [header, *rows]
    widths = [max(width_of(cells[column]) for cells in everything) for column in range(len(header))]
    for cells in everything:
        yield [
            _padded(cell, width, right=name in right) for cell, width, name in zip(cells, widths, header, strict=True)
        ]


def _padded(cell: str, width: int, *, right: bool) -> str:
    padding = " " * (width - width_of(cell))
    return padding + cell if right else cell + padding


def width_of(text: str) -> int:
    """Return the columns of a terminal that text takes. `text`: printable."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
