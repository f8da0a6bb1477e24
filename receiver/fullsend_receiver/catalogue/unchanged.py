"""When a dataset was last reported as unchanged since a stored snapshot: the document unchanged.SENDER.json.

    {DATASET: {"guid": of the snapshot, "at": time of the report, by the receiver's clock}}

A dataset without writes gets no new streams, and is backed up nevertheless: `status` uses this. The document has at
most one entry for each stored dataset, whatever a sender reports.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any, Final, Protocol

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.wire.messages import UnchangedDataset
from fullsend_receiver.store.api import Store, update

#: Seconds by which this host's clock may have been set back.
CLOCK_ERROR: Final = 86400.0


class StoredDatasets(Protocol):
    """What is stored of a sender."""

    @property
    def store(self) -> Store: ...

    def has(self, dataset: str, guid: str) -> bool:
        """Whether a snapshot of this GUID is stored of this dataset."""


def note(stock: StoredDatasets, sender: str, datasets: Collection[UnchangedDataset]) -> list[UnchangedDataset]:
    """Record, durably, that these datasets are unchanged now. `stock`: what is stored of the sender. Blocks.

    Ignores a dataset whose snapshot is not stored, and removes older entries of that kind. Returns: those that are
    recorded. Raises: OSError.
    """
    now = format_time(time.time())

    def add(data: bytes | None) -> bytes:
        found = _entries(data) | {each.dataset: {"guid": each.guid, "at": now} for each in datasets}
        kept = {dataset: entry for dataset, entry in found.items() if stock.has(dataset, entry["guid"])}
        return json.dumps(kept, indent=1).encode() + b"\n"

    update(stock.store.documents, _document(sender), add)
    return [each for each in datasets if stock.has(each.dataset, each.guid)]


def last_seen(store: Store, sender: str, now: float | None = None) -> dict[tuple[str, str], str]:
    """Return when datasets were last reported as unchanged, by dataset and the GUID of its newest snapshot then.
    `now`: seconds since the epoch, None: by this host's clock.

    Ignores what was recorded while this host's clock was ahead: it would be newer than everything that follows.
    """
    limit = (time.time() if now is None else now) + CLOCK_ERROR
    found = store.documents.get(_document(sender))
    return {
        (dataset, entry["guid"]): entry["at"]
        for dataset, entry in _entries(found.data if found else None).items()
        if (parse_time(entry["at"]) or 0.0) <= limit
    }


def _entries(data: bytes | None) -> dict[str, dict[str, str]]:
    """Read the document. Ignores what is not an entry: a backup may then look older than it is, never younger."""
    try:
        said: Any = json.loads(data or b"{}")
    except ValueError:
        return {}
    entries = said.items() if isinstance(said, dict) else ()
    return {
        dataset: {"guid": entry["guid"], "at": entry["at"]}
        for dataset, entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("guid"), str) and isinstance(entry.get("at"), str)
    }


def _document(sender: str) -> str:
    return f"unchanged.{sender}.json"
