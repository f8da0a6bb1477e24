"""Finds, among the streams that came since the last prune, what a person should look at before anything is deleted.

Any of these may be the trace of a host that was taken over or encrypted, or of a wrong dataset under a known name:

- an increment that is several times as large as usual;
- a stream that does not compress, where those before it did;
- a stream that builds on an older full than the newest one: two chains grow at the same time.

A stream is compared with those that arrived before it, as they arrived: what is stored of them may have been dropped,
or merged with others since.

A person who knows the reason says so (`fullsendd accept`): the document accepted.json.

    {"format": 1, "datasets": {"SENDER/DATASET": {"sequence": the sender's newest stream then, "at": when}}}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from fullsend_protocol.format.chains import reception
from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.units import format_size, format_time, parse_time
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.store.api import Documents, update

_DOCUMENT: Final = "accepted.json"
#: With so many streams before it a stream is compared, and with the newest of so many.
_LEAST: Final = 7
_MOST: Final = 30
#: An increment is large with so many times the median of those before it.
_TIMES: Final = 5
#: Raw bytes of a stream that is too small to be compared.
SMALL: Final = 64 << 20
#: Stored bytes per raw byte: of what does not compress, and of what does.
_DENSE: Final = 0.95
_USUAL: Final = 0.8


class _Accepted(DiskModel):
    model_config = ConfigDict(extra="allow")

    sequence: int
    at: str


class _Document(DiskModel):
    model_config = ConfigDict(extra="allow")

    format: Literal[1] = 1
    datasets: dict[str, _Accepted] = Field(default_factory=dict)


class ArrivalSize(NamedTuple):
    """What is remembered of a stream that has arrived, since it may be merged with others later."""

    kind: str
    stream_class: str
    raw_bytes: int
    stored_bytes: int


def arrived(history: Iterable[Summary], since: int, before: Sequence[ArrivalSize]) -> list[ArrivalSize]:
    """Return the sizes of the streams of a dataset that have arrived, the oldest first: those `before`, and behind them
    those with a `sequence` above `since`. Of each kind and class the newest stay.
    """
    new = [each for each in sorted(history, key=reception) if (each.sequence or 0) > since]
    found = [*before, *(copied_size(each) for each in new)]
    kept: list[ArrivalSize] = []
    counts: Counter[tuple[str, str]] = Counter()
    for each in reversed(found):
        counts[each.kind, each.stream_class] += 1
        if counts[each.kind, each.stream_class] <= _MOST:
            kept.append(each)
    return kept[::-1]


def copied_size(about: Summary) -> ArrivalSize:
    """Return what is remembered of a stream."""
    return ArrivalSize(about.kind, about.stream_class, about.raw_bytes, about.stored_bytes)


def suspicion(history: Sequence[Summary], since: int, before: Sequence[ArrivalSize] = ()) -> str | None:
    """Return what is suspicious about the streams of a dataset with a `sequence` above `since`; None: nothing.

    `before`: the sizes of those that arrived earlier, see `arrived`; without them the stored ones stand for it.
    """
    ordered = sorted(history, key=reception)
    roots: dict[tuple[str, str], set[str]] = {}  # by class and GUID: the files of the fulls that a snapshot is built on
    newest_full: dict[str, str] = {}  # by class
    for number, each in enumerate(ordered):
        kind = each.stream_class
        mine = {each.path} if each.base_guid is None else roots.get((kind, each.base_guid), set())
        if (each.sequence or 0) > since and each.kind != "package":
            earlier = [copied_size(one) for one in ordered[:number] if not before or (one.sequence or 0) > since]
            why = _compared(each, [*before, *earlier])
            if why is None and mine and each.base_guid is not None and newest_full.get(kind) not in {None, *mine}:
                why = "builds on an older full than the newest one: two chains grow at the same time"
            if why is not None:
                return f"@{each.snapshot}, received {each.received}, {why}"
        roots.setdefault((kind, each.guid), set()).update(mine)
        if each.base_guid is None and each.kind != "package":
            newest_full[kind] = each.path
    return None


def usual_size(before: Sequence[ArrivalSize], about: ArrivalSize) -> float | None:
    """Return the raw bytes that streams like this one, among those before it, usually have; None: this one is too small
    to be compared, or too few are like it.
    """
    alike = _alike(before, about)
    if about.raw_bytes < SMALL or len(alike) < _LEAST:
        return None
    return median(each.raw_bytes for each in alike)


def _alike(before: Sequence[ArrivalSize], about: ArrivalSize) -> list[ArrivalSize]:
    return [each for each in before if each.stream_class == about.stream_class and each.kind == about.kind][-_MOST:]


def read_accepted_times(documents: Documents) -> dict[str, float]:
    """Return when datasets were accepted, in seconds since the epoch, by SENDER/DATASET. Raises: OSError."""
    found = documents.get(_DOCUMENT)
    said = _parse(found.data if found else None).datasets
    return {name: at for name, each in said.items() if (at := parse_time(each.at)) is not None}


def read_accepted(documents: Documents) -> dict[str, int]:
    """Return up to which `sequence` datasets were accepted, by SENDER/DATASET. If the document cannot be read, nothing
    is accepted. Raises: OSError.
    """
    found = documents.get(_DOCUMENT)
    return {name: each.sequence for name, each in _parse(found.data if found else None).datasets.items()}


def accept(documents: Documents, name: str, sequence: int, now: float) -> None:
    """Accept the streams of a dataset. `name`: SENDER/DATASET; `sequence`: the sender's newest stream; `now`: seconds
    since the epoch. Raises: OSError.
    """

    def add(data: bytes | None) -> bytes:
        before = _parse(data)
        datasets = before.datasets | {name: _Accepted(sequence=sequence, at=format_time(now))}
        return before.model_copy(update={"datasets": datasets}).model_dump_json(indent=1).encode() + b"\n"

    update(documents, _DOCUMENT, add)


def _compared(about: Summary, before: Sequence[ArrivalSize]) -> str | None:
    """Compare a stream with those before it. Returns: what is suspicious, None: nothing."""
    usual = usual_size(before, copied_size(about))
    if usual is None:
        return None
    alike = _alike(before, copied_size(about))
    if about.base_guid is not None and about.raw_bytes > _TIMES * usual:
        return f"has {format_size(about.raw_bytes)}, where such increments had {format_size(usual)}"
    ratios = [each.stored_bytes / each.raw_bytes for each in alike if each.raw_bytes]
    if about.stored_bytes > _DENSE * about.raw_bytes and ratios and median(ratios) < _USUAL:
        return f"does not compress, where those before it were stored in {median(ratios):.0%} of their size"
    return None


def _parse(data: bytes | None) -> _Document:
    try:
        return _Document() if data is None else _Document.model_validate_json(data)
    except ValidationError:
        return _Document()
