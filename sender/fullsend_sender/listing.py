"""`fullsend list`: what is stored of this sender, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol import messages
from fullsend_protocol.units import format_size, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fullsend_protocol.manifest import StreamEntry
    from fullsend_sender.link import Link

_HEADER: Final = ("STREAM", "KIND", "BASE", "FLAGS", "RECEIVED", "RAW", "STORED", "STATE")
#: Columns of numbers stand to the right.
_RIGHT: Final = frozenset({"RAW", "STORED"})


async def entries(link: Link, dataset: str | None) -> AsyncIterator[StreamEntry]:
    """Yield what is stored, of one dataset if it is named. Raises: as Link.receive."""
    await link.send(messages.List(dataset=dataset))
    while True:
        match await link.receive():
            case messages.Entries(entries=page):
                for entry in page:
                    yield entry
            case messages.Done():
                return
            case other:
                raise link.unexpected(other)


def row(entry: StreamEntry) -> tuple[str, ...]:
    """Return an entry as the cells of a row. Names from outside are made safe for a terminal."""
    if entry.damaged is not None:
        state = f"damaged: {entry.damaged}"
    elif not entry.restorable:
        state = "not restorable: a base is missing or damaged"
    else:
        state = "ok"
    return (
        printable(f"{entry.dataset}@{entry.snapshot}"),
        entry.kind,
        printable(_base(entry)),
        entry.flags or "-",
        entry.received,
        format_size(entry.raw_bytes),
        format_size(entry.stored_bytes),
        printable(state),
    )


def table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of an aligned table with a header."""
    everything = [_HEADER, *rows]
    widths = [max(len(cells[column]) for cells in everything) for column in range(len(_HEADER))]
    for cells in everything:
        aligned = (
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for cell, width, name in zip(cells, widths, _HEADER, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def _base(entry: StreamEntry) -> str:
    if entry.base_guid is None:
        return "-"
    if entry.base is None:
        return f"guid:{entry.base_guid}"
    dataset, at, snapshot = entry.base.partition("@")
    return at + snapshot if dataset == entry.dataset else entry.base
