"""`top`, of both programs: the transfers that are under way, drawn anew each second, or printed.

TopView   looks at each transfer, and tells its rate and what limits it
run_top   the screen, lines, or JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fullsend_cli.output import write_line
from fullsend_cli.progress import format_rate
from fullsend_cli.screen import Screen, fit, has_screen
from fullsend_cli.tables import Cell, Colour, Painter, stdout_painter
from fullsend_protocol.shared.columns import width_of
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.stages import Recently
from fullsend_protocol.shared.units import format_duration, format_size, format_time, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fullsend_protocol.wire.live import LiveTransfer

#: Seconds between two looks.
EVERY: Final = 1.0
_UNKNOWN: Final = "unknown"
#: Columns of a stream's name, at least. Where a terminal has fewer, the columns on the right are left out.
_NAME_LEAST: Final = 16
_GAP: Final = 2
#: Lines above the first transfer: what is looked at, an empty one, and the heading.
_ABOVE: Final = 3


@dataclass(frozen=True, slots=True)
class LiveLook:
    """One look. `title`: one line, what is looked at; `facts`: the same for JSON; `trouble`: why nothing is known, "":
    it is.
    """

    title: str
    facts: dict[str, Any]
    transfers: Sequence[LiveTransfer] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class SeenTransfer:
    """A transfer, with what two looks tell. `rate`: raw bytes a second; `limit`: the stage that limits it; `left`:
    seconds; None: not known.
    """

    live: LiveTransfer
    rate: float | None
    limit: str | None
    left: float | None

    def to_dict(self, peer: str) -> dict[str, Any]:
        """Return the JSON object. `peer`: the key of the other side: "sender" or "receiver"."""
        live = self.live
        return {
            "id": live.id,
            "activity": live.activity,
            peer: live.peer or None,
            "stream": live.what,
            "raw_bytes": live.raw_bytes,
            "wire_bytes": live.wire_bytes,
            "size": live.size,
            "seconds": round(live.seconds, 3),
            "rate": None if self.rate is None else round(self.rate),
            "limit": self.limit or _UNKNOWN,
            "eta": None if self.left is None else round(self.left),
            "waited": {stage: round(seconds, 3) for stage, seconds in live.waited.items()},
            "away": live.away,
        }

    def cells(self) -> tuple[Cell, ...]:
        """Return the cells of its row."""
        live = self.live
        share = f"{min(99, 100 * live.raw_bytes // live.size)}%" if live.size else "-"
        limit = Cell("away", Colour.RED) if live.away else Cell(self.limit or _UNKNOWN)
        return (
            Cell(live.activity),
            Cell(printable(live.peer) or "-"),
            Cell(printable(live.what)),
            Cell(format_size(live.raw_bytes)),
            Cell("-" if self.rate is None else format_rate(self.rate)),
            limit,
            Cell(share),
            Cell("-" if self.left is None else format_duration(self.left)),
            Cell(format_duration(live.seconds)),
        )


@dataclass(slots=True)
class TopView:
    """What several looks tell of each transfer. `peer`: "sender" or "receiver", whichever is the other side."""

    peer: str
    _recently: dict[str, Recently] = field(default_factory=dict)

    def look(self, transfers: Sequence[LiveTransfer], now: float) -> list[SeenTransfer]:
        """Add a look at all transfers. `now`: seconds, of a monotonic clock."""
        self._recently = {
            each.id: self._recently.get(each.id) or Recently(now - each.seconds, each.before) for each in transfers
        }
        return [self._seen(each, now) for each in transfers]

    def _seen(self, live: LiveTransfer, now: float) -> SeenTransfer:
        recently = self._recently[live.id]
        recently.add(now, live.raw_bytes, live.waited)
        rate, left = recently.rate, None
        # At its average, as its own progress line says: the rate of some seconds says little of hours.
        average = (live.raw_bytes - live.before) / live.seconds if live.seconds else 0.0
        if live.size is not None and average > 0 and not live.away:
            left = max(0, live.size - live.raw_bytes) / average
        return SeenTransfer(live, rate, recently.limit, left)

    def table(self, seen: Sequence[SeenTransfer], painter: Painter, columns: int | None = None) -> Iterator[str]:
        """Yield the lines of the table, the heading first; nothing at all for no transfers. `columns`: of the
        terminal.
        """
        header = ["ACTIVITY", self.peer.upper(), "STREAM", "RAW", "RATE", "LIMIT", "%", "ETA", "TIME"]
        rows = [list(each.cells()) for each in seen]
        name = header.index("STREAM")
        if columns is not None and rows:
            while (room := columns - _without(header, rows, name)) < _NAME_LEAST and len(header) > name + 1:
                header.pop()
                for row in rows:
                    row.pop()
            for row in rows:
                row[name] = Cell(fit(row[name].text, max(0, room)))
        yield from painter.table(header, rows, right={"RAW", "RATE", "%", "ETA", "TIME"})


def _without(header: Sequence[str], rows: Sequence[Sequence[Cell]], but: int) -> int:
    """Return the columns that all but one take, with the gaps."""
    widths = [max(len(title), *(width_of(row[at].text) for row in rows)) for at, title in enumerate(header)]
    return sum(widths) - widths[but] + _GAP * (len(header) - 1)


def run_top(look: Callable[[], LiveLook], *, peer: str, once: bool, as_json: bool) -> int:
    """Show the transfers until the person leaves: on a terminal with a screen each second, otherwise once.

    `look`: is called for each picture; `peer`: as for TopView; `as_json`: one object a look. Returns: the exit code.
    Raises: OutputFailed, what `look` raises.
    """
    view = TopView(peer)
    if as_json:
        return _print_json(look, view, once=once)
    if once or not has_screen(sys.stdout):
        found = look()
        for line in _picture(view, found, stdout_painter(), None):
            write_line(line)
        return Exit.FAILED if found.trouble else Exit.OK
    painter = Painter(colours=not os.environ.get("NO_COLOR"))
    with contextlib.suppress(KeyboardInterrupt), Screen() as screen:
        while True:
            found = look()
            size = screen.size
            screen.draw(_cut(list(_picture(view, found, painter, size.columns)), size.lines))
            if screen.wait(EVERY):
                break
    return Exit.OK


def _print_json(look: Callable[[], LiveLook], view: TopView, *, once: bool) -> int:
    while True:
        found = look()
        seen = view.look(found.transfers, time.monotonic())
        transfers = [each.to_dict(view.peer) for each in seen]
        row = {"time": format_time(time.time()), **found.facts, "why": found.trouble or None, "transfers": transfers}
        write_line(json.dumps(row), flush=True)
        if once:
            return Exit.FAILED if found.trouble else Exit.OK
        time.sleep(EVERY)


def _picture(view: TopView, found: LiveLook, painter: Painter, columns: int | None) -> Iterator[str]:
    """Yield the lines. `columns`: of the terminal, None: no line is cut."""
    title = printable(found.title)
    yield painter.paint(title if columns is None else fit(title, columns), Colour.BOLD)
    yield ""
    seen = view.look(found.transfers, time.monotonic())
    if found.trouble:
        why = printable(found.trouble)
        yield painter.paint(why if columns is None else fit(why, columns), Colour.RED)
    elif not seen:
        yield "no transfer is under way"
    yield from view.table(seen, painter, columns)


def _cut(lines: list[str], most: int) -> list[str]:
    """Return as many lines as the terminal has; the last one says how many are left out."""
    if len(lines) <= most or most <= _ABOVE:
        return lines[:most]
    return [*lines[: most - 1], f"… {len(lines) - most + 1} more"]
