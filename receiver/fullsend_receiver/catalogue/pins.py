"""The streams that a person wants to keep whatever the policy says: the document pins.json.

    {"format": 1, "pins": [{"file", "at", "until", "note"}, ...]}

A pin holds its stream and all streams that it builds on. It ends at `until`, by the receiver's clock; null: never. A
pin that has ended stays in the document until the next change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.store.api import Documents, update
from fullsend_receiver.store.errors import StoreError

_DOCUMENT: Final = "pins.json"
#: Pins of one store: some 200 bytes each, which are read for each batch of a prune.
PINS_MAX: Final = 10_000
#: Characters of a note.
NOTE_MAX: Final = 1000


class PinEntry(DiskModel):
    """One pin. `file`: of the stream, relative to the store; `at`, `until`: times of the receiver, `until` None: it
    does not end. Unknown keys are kept.
    """

    model_config = ConfigDict(extra="allow")

    file: str
    at: str
    until: str | None = None
    note: Annotated[str, Field(max_length=NOTE_MAX)] = ""

    def counts(self, now: float) -> bool:
        """Whether it has not ended. `now`: seconds since the epoch. An end that cannot be read never comes."""
        end = None if self.until is None else parse_time(self.until)
        return end is None or now < end


class _Pins(DiskModel):
    model_config = ConfigDict(extra="allow")

    format: Literal[1] = 1
    pins: list[PinEntry]


def read_pins(documents: Documents) -> dict[PurePosixPath, PinEntry]:
    """Return all pins by file, also those that have ended.

    Raises: StoreError if the document cannot be read: nothing may be deleted then; OSError.
    """
    found = documents.get(_DOCUMENT)
    return {PurePosixPath(pin.file): pin for pin in _parse(found.data if found else None).pins}


def pins_in_force(documents: Documents, now: float) -> dict[PurePosixPath, PinEntry]:
    """Return the pins that count at this moment. `now`: seconds since the epoch. Raises: as `read_pins`."""
    return {file: pin for file, pin in read_pins(documents).items() if pin.counts(now)}


def pin(
    documents: Documents, files: Iterable[PurePosixPath], *, now: float, until: float | None = None, note: str = ""
) -> None:
    """Pin streams; a pin that a stream has is replaced. `until`: seconds since the epoch, None: without end.

    Raises: UsageError if there are too many, or the note is too long; StoreError, OSError.
    """
    if len(note) > NOTE_MAX:
        msg = f"the note has {len(note)} characters; a pin has room for {NOTE_MAX}"
        raise UsageError(msg)
    end = None if until is None else format_time(until)
    new = [PinEntry(file=str(file), at=format_time(now), until=end, note=note) for file in files]
    names = {each.file for each in new}

    def change(pins: list[PinEntry]) -> list[PinEntry]:
        kept = [each for each in pins if each.counts(now) and each.file not in names]
        if len(kept) + len(new) > PINS_MAX:
            msg = f"{len(kept)} streams are pinned, and a store has room for {PINS_MAX} pins: unpin some"
            raise UsageError(msg)
        return kept + new

    _change(documents, change)


def unpin(documents: Documents, file: PurePosixPath) -> bool:
    """Remove the pin of a stream. Returns: whether it had one. Raises: StoreError, OSError."""
    had = False

    def change(pins: list[PinEntry]) -> list[PinEntry]:
        nonlocal had
        kept = [each for each in pins if each.file != str(file)]
        had = len(kept) < len(pins)
        return kept

    _change(documents, change)
    return had


def _change(documents: Documents, change: Callable[[list[PinEntry]], list[PinEntry]]) -> None:
    def rewritten(data: bytes | None) -> bytes:
        before = _parse(data)
        after = before.model_copy(update={"pins": change(before.pins)})
        return after.model_dump_json(indent=1).encode() + b"\n"

    update(documents, _DOCUMENT, rewritten)


def _parse(data: bytes | None) -> _Pins:
    if data is None:
        return _Pins(pins=[])
    try:
        return _Pins.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        msg = f".state/{_DOCUMENT}: cannot be read, so nothing is deleted: {first['msg']}"
        raise StoreError(msg) from None
