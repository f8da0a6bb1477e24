"""The last restore drill of each dataset, as its host has reported it: the document drills.SENDER.json.

    {DATASET: {"snapshot", "guid", "at", "ok", "compared", "text", "milliseconds", "raw_bytes", "files", "succeeded"}}

The keys are those of `drilled`; `at` and `succeeded` are times of reports, by the receiver's clock. The document has at
most one entry for each stored dataset, whatever a sender reports.
"""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

from pydantic import ValidationError

from fullsend_protocol.format.manifest import DiskModel, Guid, Name, Offset
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.wire.messages import Drilled, DrillEntry, DrillExtent, DrillText
from fullsend_receiver.catalogue.unchanged import CLOCK_ERROR
from fullsend_receiver.monitor.overview import Drill
from fullsend_receiver.store.api import Store, update
from fullsend_receiver.store.errors import StoreError


class StoredNames(Protocol):
    """What is stored of a sender."""

    @property
    def store(self) -> Store: ...

    def has_dataset(self, dataset: str) -> bool:
        """Whether a stream of this dataset is stored."""


class _DrillRecord(DiskModel):
    """An entry of the document."""

    snapshot: Name
    guid: Guid
    at: str
    ok: bool
    compared: DrillExtent
    text: DrillText
    milliseconds: Offset
    raw_bytes: Offset
    files: Offset
    succeeded: str | None


def note_drill(stock: StoredNames, sender: str, said: Drilled) -> None:
    """Record, durably, that a drill was reported now. `stock`: what is stored of the sender. Blocks. Raises: OSError.

    Ignores a dataset of which nothing is stored, and removes older entries of that kind.
    """
    now = format_time(time.time())

    def add(data: bytes | None) -> bytes:
        found = _records(data)
        before = found.get(said.dataset)
        succeeded = now if said.ok else before.succeeded if before is not None else None
        what = said.model_dump(exclude={"type", "dataset"})
        found[said.dataset] = _DrillRecord(**what, at=now, succeeded=succeeded)
        kept = {name: record.model_dump() for name, record in found.items() if stock.has_dataset(name)}
        return json.dumps(kept, indent=1).encode() + b"\n"

    update(stock.store.documents, _document(sender), add)


def drill_entries(store: Store, sender: str) -> list[DrillEntry]:
    """Return the last drill of each dataset, for the wire, in order of the datasets' names. Blocks. Raises: OSError.

    A spoilt document has none: a drill asks for this before it begins, and makes the document anew.
    """
    found = _past(_records(_data(store, sender)))
    return [DrillEntry(dataset=name, **record.model_dump()) for name, record in sorted(found.items())]


def read_drills(store: Store, sender: str) -> dict[str, Drill]:
    """Return the last drill of each dataset, by its name. Blocks. Raises: OSError; StoreError: it is spoilt."""
    try:
        found = _entries(_data(store, sender))
    except ValueError:
        msg = f".state/{_document(sender)} is spoilt, and is made anew by the next drill: run `fullsend drill` there"
        raise StoreError(msg) from None
    return {
        name: Drill(
            at=parse_time(record.at) or 0.0,
            snapshot=record.snapshot,
            ok=record.ok,
            compared=record.compared,
            text=record.text,
            seconds=record.milliseconds / 1000,
            raw_bytes=record.raw_bytes,
            succeeded=None if record.succeeded is None else parse_time(record.succeeded),
        )
        for name, record in _past(found).items()
    }


def _data(store: Store, sender: str) -> bytes | None:
    found = store.documents.get(_document(sender))
    return None if found is None else found.data


def _past(found: dict[str, _DrillRecord]) -> dict[str, _DrillRecord]:
    """Return records without a success of a time when this host's clock was ahead: it would stay young."""
    limit = time.time() + CLOCK_ERROR
    return {
        name: record.model_copy(update={"succeeded": None})
        if record.succeeded is not None and (parse_time(record.succeeded) or 0.0) > limit
        else record
        for name, record in found.items()
    }


def _records(data: bytes | None) -> dict[str, _DrillRecord]:
    """Read the document to add to it. One that is spoilt is empty: a drill may then look older than it is, never
    younger.
    """
    try:
        return _entries(data)
    except ValueError:
        return {}


def _entries(data: bytes | None) -> dict[str, _DrillRecord]:
    """Read the document. Ignores what is not an entry. Raises: ValueError if it is not an object at all."""
    said: Any = json.loads(data or b"{}")
    if not isinstance(said, dict):
        msg = "it is not an object"
        raise ValueError(msg)  # noqa: TRY004 - as for what is not JSON
    found = {}
    for dataset, record in said.items():
        try:
            found[dataset] = _DrillRecord.model_validate(record)
        except ValidationError:
            continue
    return found


def _document(sender: str) -> str:
    return f"drills.{sender}.json"
