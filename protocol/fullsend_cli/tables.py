"""Tables and colours for a terminal.

Colour repeats what the text says, and is left out where no person sees it: in a pipe or a file, with TERM=dumb, and
where NO_COLOR is set (no-color.org).
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from fullsend_protocol.shared.columns import aligned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import TextIO


class Colour(Enum):
    """What text is shown in: the parameter of "select graphic rendition" (ECMA-48)."""

    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    BOLD = "1"
    DIM = "2"


class Cell(NamedTuple):
    """A cell of a table. `text`: safe for a terminal; `colour`: None: that of the terminal."""

    text: str
    colour: Colour | None = None


#: The columns are separated by so many spaces.
_GAP: Final = "  "


class Painter:
    """Colours text, or leaves it as it is."""

    def __init__(self, *, colours: bool) -> None:
        """`colours`: whether a person sees them."""
        self.colours: Final = colours

    def paint(self, text: str, colour: Colour | None) -> str:
        """Return the text in a colour. `colour`: None: that of the terminal."""
        return text if colour is None or not self.colours or not text else f"\033[{colour.value}m{text}\033[0m"

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: Collection[str] = ()
    ) -> Iterator[str]:
        """Yield the lines of a table, the heading first; nothing at all for no rows. `right`: the headings of the
        columns that are aligned to the right.
        """
        titles = [Cell(each, Colour.BOLD) for each in header]
        padded = aligned(header, [[cell.text for cell in row] for row in rows], right=right)
        for cells, texts in zip([titles, *rows], padded, strict=False):  # without rows there is no heading
            texts[-1] = texts[-1].rstrip()
            line = _GAP.join(self.paint(text, cell.colour) for text, cell in zip(texts, cells, strict=True))
            yield line.rstrip()


def wants_colour(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Whether a person who sees colours reads this. `stream`: None: it is closed."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return stream is not None and stream.isatty()


def stdout_painter() -> Painter:
    """Return what colours text for stdout."""
    return Painter(colours=wants_colour(sys.stdout, os.environ))
