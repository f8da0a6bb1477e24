"""Stored streams as a table for a terminal; both programs' `list` print it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fullsend_protocol.manifest import StreamEntry
from fullsend_protocol.units import format_size, printable


def table(entries: Iterable[StreamEntry], *, with_sender: bool) -> Iterator[str]:
    """Yield the lines of an aligned table, a heading first; nothing at all for no entries.

    `with_sender`: names begin with SENDER/, as `fullsendd` wants them.
    """
    rows = []
    for entry in entries:
        name = f"{entry.dataset}@{entry.snapshot}"
        if with_sender:
            name = f"{entry.sender}/{name}"
        rows.append(
            (
                printable(name),
                entry.kind + (f" {entry.flags}" if entry.flags else ""),
                entry.created,
                format_size(entry.raw_bytes),
                format_size(entry.stored_bytes),
                _state(entry),
            )
        )
    if not rows:
        return
    rows.insert(0, ("STREAM", "KIND", "CREATED", "RAW", "STORED", "STATE"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, kind, created, raw, stored, state in rows:
        cells = [
            name.ljust(widths[0]),
            kind.ljust(widths[1]),
            created.ljust(widths[2]),
            raw.rjust(widths[3]),
            stored.rjust(widths[4]),
            state,
        ]
        yield "  ".join(cells).rstrip()


def _state(entry: StreamEntry) -> str:
    if entry.damaged is not None:
        return f"DAMAGED: {printable(entry.damaged)}"
    if not entry.restorable:
        return "not restorable: a base is missing or damaged"
    return f"verified {entry.verified}" if entry.verified else "ok"
