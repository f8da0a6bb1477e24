"""When a dataset was last seen to be as it was at a stored snapshot: STORE/.state/unchanged.SENDER.json.

    {DATASET: {"guid": of the snapshot, "at": when the sender said so, by our clock}}

A dataset that nothing is written to gets no new streams, and is backed up all the same: `status` goes by this. The file
has at most one entry for each dataset of which something is stored, whatever a sender says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.wire.messages import UnchangedDataset
from fullsend_receiver.store.durable import locked, replace_file
from fullsend_receiver.store.local import LocalStore

#: Seconds by which our clock may have been put back without a word.
_CLOCK_ERROR: Final = 86400.0


class Stock(Protocol):
    """What is stored of a sender."""

    @property
    def store(self) -> LocalStore: ...

    def has(self, dataset: str, guid: str) -> bool:
        """Whether a snapshot of this GUID is stored of this dataset."""


def note(stock: Stock, sender: str, datasets: Iterable[UnchangedDataset]) -> None:
    """Write down, for good, that these are unchanged now. `stock`: the sender's. Blocks. Raises: OSError.

    Passes over what names a snapshot that is not stored of its dataset, and forgets what does so by now.
    """
    store = stock.store
    now = format_time(time.time())
    with locked(store.lock):
        found = _read(store, sender) | {each.dataset: {"guid": each.guid, "at": now} for each in datasets}
        kept = {dataset: entry for dataset, entry in found.items() if stock.has(dataset, entry["guid"])}
        replace_file(_file(store, sender), json.dumps(kept, indent=1).encode() + b"\n")


def last_seen(store: LocalStore, sender: str) -> dict[tuple[str, str], str]:
    """Return when datasets were last seen unchanged, by dataset and the GUID that was its newest snapshot's then.

    What was noted while our clock was ahead counts for nothing: it would be newer than all that comes.
    """
    limit = time.time() + _CLOCK_ERROR
    return {
        (dataset, entry["guid"]): entry["at"]
        for dataset, entry in _read(store, sender).items()
        if (parse_time(entry["at"]) or 0.0) <= limit
    }


def _read(store: LocalStore, sender: str) -> dict[str, dict[str, str]]:
    """Read the file. What is no entry counts for nothing: then a backup looks older than it is, never younger."""
    try:
        said: Any = json.loads(_file(store, sender).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    entries = said.items() if isinstance(said, dict) else ()
    return {
        dataset: {"guid": entry["guid"], "at": entry["at"]}
        for dataset, entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("guid"), str) and isinstance(entry.get("at"), str)
    }


def _file(store: LocalStore, sender: str) -> Path:
    return store.state / f"unchanged.{sender}.json"
