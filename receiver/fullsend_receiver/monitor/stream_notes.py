"""Notes of the stored streams of each dataset, for the drawing of its chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
from fullsend_receiver.monitor.overview import StreamNote

#: The notes of each dataset, in order of reception, by sender and dataset.
StreamNotes = Mapping[tuple[str, str], Sequence[StreamNote]]

#: A time that cannot be read: no drawing has it.
_UNKNOWN: Final = -1.0


def stream_notes(catalogue: Catalogue) -> dict[tuple[str, str], list[StreamNote]]:
    """Return the notes of all streams of a catalogue. Blocks: the first question for a file examines all of them."""
    found: dict[tuple[str, str], list[StreamNote]] = {}
    for stored in catalogue.streams:
        about = stored.summary
        found.setdefault((about.sender, about.dataset), []).append(_note(catalogue, stored))
    return found


def _note(catalogue: Catalogue, stored: StoredStream) -> StreamNote:
    about = stored.summary
    checked = catalogue.checked(stored)
    return StreamNote(
        file=about.path,
        snapshot=about.snapshot,
        guid=about.guid,
        base_guid=about.base_guid,
        kind=about.kind,
        created=_time(about.created),
        received=_time(about.received),
        raw_bytes=about.raw_bytes,
        stored_bytes=about.stored_bytes,
        merged=about.proven_by == "merge",
        restorable=catalogue.restorable(stored),
        damaged=not catalogue.whole(stored),
        checked=parse_time(checked.at) if checked is not None and checked.at and not checked.damage else None,
    )


def _time(text: str) -> float:
    found = parse_time(text)
    return _UNKNOWN if found is None else found
