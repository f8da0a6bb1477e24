"""What `status` prints for a person and for Nagios: one line with the worst, a table, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_cli.tables import Cell, Colour
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_duration, format_size, printable
from fullsend_sender.monitor.all_receivers import headline, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fullsend_cli.tables import Painter
    from fullsend_sender.monitor.all_receivers import ReceiverPart
    from fullsend_sender.monitor.status import BackupState

_RECEIVER: Final = "RECEIVER"
_HEADER: Final = ("DATASET", "NEWEST", "AGE", "STREAMS", "STORED", "DRILL", "STATE")
_MORE: Final = ("CREATED", "RECEIVED", "UNCHANGED", "BROKEN", "GUID")
_RIGHT: Final = frozenset({"AGE", "STREAMS", "STORED", "BROKEN"})
_COLOURS: Final = {
    NagiosState.OK: Colour.GREEN,
    NagiosState.WARNING: Colour.YELLOW,
    NagiosState.CRITICAL: Colour.RED,
    NagiosState.UNKNOWN: Colour.YELLOW,
}


def lines(parts: Sequence[ReceiverPart], painter: Painter, *, more: bool) -> Iterator[str]:
    """Yield the lines. The first is that of a monitoring system. Where there are several receivers, all name theirs.
    `more`: more columns.
    """
    alone = len(parts) == 1
    yield _painted(headline(parts), worst(parts), painter)
    rows = [
        [*([] if alone else [Cell(printable(part.name))]), *_row(each, more=more)]
        for part in parts
        for each in part.judged
    ]
    heading = (*(() if alone else (_RECEIVER,)), *_HEADER, *(_MORE if more else ()))
    yield from painter.table(heading, rows, right=_RIGHT)
    for part in parts:
        for line in part.lines(alone=alone):
            yield _painted(line, NagiosState[line.partition(" ")[0]], painter)


def _painted(line: str, state: NagiosState, painter: Painter) -> str:
    """Return a line whose first word is the state, with that word in its colour."""
    return painter.paint(state.name, _COLOURS[state]) + line.removeprefix(state.name)


def _row(each: BackupState, *, more: bool) -> list[Cell]:
    about = each.about
    cells = [
        Cell(printable(each.dataset)),
        Cell(printable(f"@{about.snapshot}" if about is not None and about.snapshot is not None else "-")),
        Cell("never" if each.age is None else format_duration(each.age)),
        Cell("0" if about is None else str(about.streams)),
        Cell(format_size(0 if about is None else about.stored_bytes)),
        Cell(printable(each.last_drill or "-")),
        Cell(each.state.name, _COLOURS[each.state]),
    ]
    if more and about is None:
        cells += [Cell("-")] * len(_MORE)
    elif more and about is not None:
        texts = (about.created, about.received, about.unchanged, str(about.broken), about.guid)
        cells += [Cell(printable(text or "-")) for text in texts]
    return cells
