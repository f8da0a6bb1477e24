"""Stored streams for a terminal: the tables of `list`, and the details of `show`, for both programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fullsend_protocol.format.lost_spills import restoring_loses
from fullsend_protocol.format.manifest import PartialEntry, StreamEntry
from fullsend_protocol.shared.columns import aligned
from fullsend_protocol.shared.units import format_size, printable

_HEADER: Final = ("STREAM", "KIND", "BASE", "FLAGS", "RECEIVED", "RAW", "STORED", "STATE")
_PARTIAL_HEADER: Final = ("STREAM", "KIND", "STARTED", "LAST", "RAW", "STORED", "STATE")
#: Columns of numbers, aligned to the right.
_RIGHT: Final = frozenset({"RAW", "STORED"})


def table(
    entries: Iterable[StreamEntry], *, with_sender: bool, marks: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yield the lines of an aligned table, with a heading; nothing at all for no entries.

    `with_sender`: names begin with SENDER/, as for `fullsendd`. `marks`: what is added to the state, by file. Texts
    from outside are made safe for a terminal.
    """
    return _aligned(_HEADER, [_row(entry, marks or {}, with_sender=with_sender) for entry in entries])


def partials_table(entries: Iterable[PartialEntry], *, with_sender: bool) -> Iterator[str]:
    """Yield the lines of a table of partial streams."""
    return _aligned(_PARTIAL_HEADER, [_partial_row(entry, with_sender=with_sender) for entry in entries])


def _aligned(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    return ("  ".join(cells).rstrip() for cells in aligned(header, rows, right=_RIGHT))


def details(facts: Mapping[str, object]) -> Iterator[str]:
    """Yield a line for each key and value of a stream's JSON object."""
    for name, value in facts.items():
        shown = json.dumps(value) if isinstance(value, list | dict | bool) else printable(str(value))
        if name.endswith("_bytes"):
            shown += f" ({format_size(int(str(value)))})"
        yield f"{name:18} {'-' if value is None else shown}"


def _row(entry: StreamEntry, marks: Mapping[str, str], *, with_sender: bool) -> tuple[str, ...]:
    sender = f"{entry.sender}/" if with_sender else ""
    return (
        printable(f"{sender}{entry.dataset}@{entry.snapshot}"),
        entry.kind,
        printable(_base(entry)),
        entry.flags or "-",
        entry.received,
        format_size(entry.raw_bytes),
        format_size(entry.stored_bytes),
        printable(", ".join([_state(entry), *([marks[entry.file]] if entry.file in marks else [])])),
    )


def _partial_row(entry: PartialEntry, *, with_sender: bool) -> tuple[str, ...]:
    sender = f"{entry.sender}/" if with_sender else ""
    return (
        printable(f"{sender}{entry.dataset}@{entry.snapshot}"),
        "package" if entry.guid is None else "full" if entry.base_guid is None else "incremental",
        entry.started,
        entry.last,
        format_size(entry.raw_bytes),
        format_size(entry.stored_bytes),
        "arriving" if entry.arriving else "waits for its sender",
    )


def _base(entry: StreamEntry) -> str:
    if entry.base_guid is None:
        return "-"
    if entry.base is None:
        return f"guid:{entry.base_guid}"
    dataset, at, snapshot = entry.base.partition("@")
    return at + snapshot if dataset == entry.dataset else entry.base


def _state(entry: StreamEntry) -> str:
    if entry.damaged is not None:
        return f"DAMAGED: {entry.damaged}"
    if not entry.restorable:
        return "not restorable: its file or a base is missing or damaged"
    state = f"verified {entry.verified}" if entry.verified else "ok"
    return f"{state}, but {restoring_loses(entry.lost_spill_count)}" if entry.lost_spill_count else state
