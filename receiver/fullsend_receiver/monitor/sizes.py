"""How full the disk was, and how much was stored of each dataset, day by day: the document sizes.json.

    {"format": 1, "disk": [[DAY, USED, SIZE], ...], "stored": {SENDER: {DATASET: [[DAY, BYTES], ...]}}}

The first look of a day is noted. From these follow what is gone since, and when the disk will be full. Of a dataset of
which nothing is stored any more the last size stays, until somebody has settled that.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Final, NamedTuple

from pydantic import Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel, leading
from fullsend_receiver.store.api import Documents, update

log: Final = logging.getLogger("fullsendd")

_DOCUMENT: Final = "sizes.json"
_DAY: Final = 86400.0
#: Days of the disk that are kept, and of each dataset.
_DISK_DAYS: Final = 60
_STORED_DAYS: Final = 8
#: The rate of late is that of so many days, and is not known with fewer than the least.
_RATE_DAYS: Final = 30
_RATE_LEAST: Final = 3
#: A forecast beyond this is none: seconds.
_FARTHEST: Final = 365 * _DAY


class Sizes(DiskModel):
    """The document. Days as in `Night.day`, the oldest first; sizes are bytes."""

    format: int = Field(default=1, ge=1, le=1)
    disk: list[Annotated[tuple[int, int, int], leading(3)]] = Field(default_factory=list)
    stored: dict[str, dict[str, list[Annotated[tuple[int, int], leading(2)]]]] = Field(default_factory=dict)

    def of(self, sender: str, dataset: str) -> list[tuple[int, int]]:
        """Return what was stored of a dataset, by day."""
        return self.stored.get(sender, {}).get(dataset, [])


class Sample(NamedTuple):
    """The disk on one day. `used`: of `size` bytes."""

    day: int
    used: int
    size: int


@dataclass(frozen=True, slots=True)
class Look:
    """What is there now. `used`: of the disk, of `size` bytes; `stored`: by sender and dataset; `settled`: pairs of
    these that may be forgotten once nothing is stored of them for days; `dropped`: those that are forgotten at once.
    """

    day: int
    used: int
    size: int
    stored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    settled: Collection[tuple[str, str]] = ()
    dropped: Collection[tuple[str, str]] = ()


def read(documents: Documents) -> Sizes:
    """Return the document; an empty one if it is missing, or cannot be read. Raises: OSError."""
    found = documents.get(_DOCUMENT)
    try:
        return Sizes() if found is None else Sizes.model_validate_json(found.data, strict=False)
    except ValidationError:
        log.warning(".state/%s: cannot be read, and is made anew", _DOCUMENT)
        return Sizes()


def write(documents: Documents, sizes: Sizes) -> None:
    """Replace the document. Only the daemon does. Raises: OSError."""
    data = sizes.model_dump_json().encode() + b"\n"
    update(documents, _DOCUMENT, lambda _before: data)


def latest(sizes: Sizes, sender: str) -> dict[str, int]:
    """Return what was stored of each dataset of a sender on the last day."""
    return {dataset: days[-1][1] for dataset, days in sizes.stored.get(sender, {}).items() if days}


def noted(sizes: Sizes, look: Look) -> Sizes:
    """Return the sizes with those of a day; the same object if that day is noted already.

    The days are those of the looks, in their order: a clock that was wrong for a day makes one wrong day, and takes
    none of the others away.
    """
    if sizes.disk and sizes.disk[-1][0] == look.day:
        return sizes
    disk = [each for each in sizes.disk if each[0] != look.day]
    stored: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for sender in sizes.stored.keys() | look.stored.keys():
        before, now = sizes.stored.get(sender, {}), look.stored.get(sender, {})
        found = {}
        for dataset in before.keys() | now.keys():
            if (sender, dataset) in look.dropped:
                continue
            known = [*before.get(dataset, []), (look.day, now.get(dataset, 0))]
            days = known[-_STORED_DAYS:]
            last = next((each for each in reversed(known) if each[1]), None)
            if last in days:
                found[dataset] = days
            elif last is not None and (sender, dataset) not in look.settled:
                found[dataset] = [last, *days[1:]]
        if found:
            stored[sender] = dict(sorted(found.items()))
    return Sizes(
        disk=[*disk, (look.day, look.used, look.size)][-_DISK_DAYS:],
        stored={name: stored[name] for name in sorted(stored)},
    )


def full_at(disk: Sequence[tuple[int, int, int]], *, now: float, today: int, used: int, limit: int) -> float | None:
    """Return when the disk will have no more room, at the rate of late, in seconds since the epoch; None: not within a
    year, or unknown.

    `disk`: see `Sizes`; `now`: seconds since the epoch; `today`: as in `Night.day`; `used`: bytes that are used now;
    `limit`: so many may be. The rate is the median of those from each day to now: one large full, or a prune, does not
    make it.
    """
    if used >= limit:
        return now
    size = disk[-1][2] if disk else 0
    days = [(day, was) for day, was, of in disk if today - _RATE_DAYS <= day < today and of == size]
    if not days or today - min(day for day, _was in days) < _RATE_LEAST:
        return None
    rate = median((used - was) / (today - day) for day, was in days)
    if rate <= 0:
        return None
    left = (limit - used) / rate * _DAY
    return now + left if left <= _FARTHEST else None
