"""What has come of each dataset, also of streams that were merged or dropped meanwhile: history.SENDER.zst in .state.

It follows from what is stored, and from the reports of unchanged datasets: `fold` adds what has come since the last
time. So a crash, or a time without a daemon, loses nothing but reports that later ones have replaced. Without the
document all of it is learnt again, from what is still stored.

The document is a file of zstd frames (docs/format.md). The first is a skippable one, with a JSON object: what was
folded, and the length of each frame behind it. Each of those has the JSON object of one dataset. So `zstdcat` prints
them, and what is not asked for stays compressed: in memory, too.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, overload

import zstandard
from pydantic import Field, ValidationError

from fullsend_protocol.format.chains import reception
from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.monitor.overview import History, Night, Reception
from fullsend_receiver.store.api import Documents, update

log: Final = logging.getLogger("fullsendd")

_T = TypeVar("_T")

#: Receptions and nights that are kept of a dataset: the newest. 64 tell a rhythm, and 400 nights are over a year.
RECEPTIONS_MAX: Final = 64
NIGHTS_MAX: Final = 400
#: Datasets of one sender. Beyond that, those of which nothing has come for the longest time are forgotten.
DATASETS_MAX: Final = 10_000
#: Seconds by which a time may be in the future, and still count as now.
AHEAD: Final = 3600.0
#: A stream without a higher sequence is new if it came so many seconds after all that is known of its dataset: somebody
#: has removed the newest stream by hand. A replacement of a damaged one comes seconds after it, and is not new.
_LATER: Final = 3600.0
#: Seconds between two writes: what is folded and not written is folded again after a crash.
_WRITE_EVERY: Final = 600.0
#: The first of the magic numbers of a skippable frame (RFC 8878), and the bytes of it and of the length.
_SKIPPABLE: Final = (0x184D2A50).to_bytes(4, "little")
_PREFIX: Final = 8
#: More would cost time for little: a few kilobytes each.
_LEVEL: Final = 6


class _Lazy(Sequence[_T]):
    """A sequence that is made for each look at it."""

    def __init__(self, count: int, make: Callable[[], tuple[_T, ...]]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:  # type: ignore[explicit-override]
        return self._count

    def __iter__(self) -> Iterator[_T]:  # type: ignore[explicit-override]
        return iter(self._make())

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...
    def __getitem__(  # type: ignore[explicit-override]
        self, index: int | slice
    ) -> _T | Sequence[_T]:
        return self._make()[index]

    def __eq__(self, other: object) -> bool:  # type: ignore[explicit-override]
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:  # type: ignore[explicit-override]
        return hash(self._make())


@dataclass(frozen=True, slots=True)
class PackedHistory:
    """The history of one dataset, compressed. `newest`: the latest time at which a stream of it was received, in
    seconds since the epoch, 0: none was; `unchanged`: the time of the last report that was folded, as in its document;
    `since`: when the dataset was first folded: all that came later is there; None: unknown; `full_before`: as in
    `History`.
    """

    receptions: int
    nights: int
    newest: float
    unchanged: str
    packed: bytes
    since: float | None = None
    full_before: int | None = None

    @classmethod
    def of(cls, dataset: str, history: History, *, newest: float, unchanged: str) -> PackedHistory:
        """Compress a history."""
        said = {
            "dataset": dataset,
            "receptions": [
                [each.at, each.kind, each.snapshot, each.raw_bytes, each.stored_bytes] for each in history.receptions
            ],
            "nights": [
                [each.day, each.received, each.unchanged, each.raw_bytes, each.stored_bytes] for each in history.nights
            ],
        }
        packed = _compress(json.dumps(said, separators=(",", ":")).encode() + b"\n")
        counts = len(history.receptions), len(history.nights)
        return cls(*counts, newest, unchanged, packed, history.since, history.full_before)

    def unpack(self) -> History:
        """Return what it has, compressed still: each look decompresses it."""
        return History(
            receptions=_Lazy(self.receptions, lambda: _receptions(self.packed)),
            nights=_Lazy(self.nights, lambda: _nights(self.packed)),
            since=self.since,
            full_before=self.full_before,
        )


@dataclass(frozen=True, slots=True)
class SenderHistory:
    """The histories of a sender's datasets. `sequence`: of the newest stream that was folded."""

    sequence: int = 0
    datasets: Mapping[str, PackedHistory] = field(default_factory=dict)

    def of(self, dataset: str) -> History:
        """Return the history of a dataset; an empty one if nothing is known of it."""
        found = self.datasets.get(dataset)
        return History() if found is None else found.unpack()

    def to_bytes(self) -> bytes:
        """Return the document."""
        frames = [
            _DatasetFrame(
                dataset=name,
                bytes=len(each.packed),
                receptions=each.receptions,
                nights=each.nights,
                newest=each.newest,
                unchanged=each.unchanged,
                since=each.since,
                full_before=each.full_before,
            )
            for name, each in self.datasets.items()
        ]
        body = b"".join(each.packed for each in self.datasets.values())
        head = _Head(sequence=self.sequence, crc=zlib.crc32(body), datasets=frames).model_dump_json().encode()
        return b"".join([_SKIPPABLE, len(head).to_bytes(4, "little"), head, body])

    @classmethod
    def from_bytes(cls, data: bytes) -> SenderHistory:
        """Read a document. Raises: ValueError if it is not one."""
        if not data.startswith(_SKIPPABLE):
            msg = "it does not begin as a history does"
            raise ValueError(msg)
        begin = _PREFIX + int.from_bytes(data[len(_SKIPPABLE) : _PREFIX], "little")
        head = _Head.model_validate_json(data[_PREFIX:begin])
        if zlib.crc32(data[begin:]) != head.crc:
            msg = "its checksum is wrong"
            raise ValueError(msg)
        found = {}
        for each in head.datasets:
            packed = data[begin : begin + each.bytes]
            found[each.dataset] = PackedHistory(
                *(each.receptions, each.nights, each.newest, each.unchanged),
                *(packed, each.since, each.full_before),
            )
            begin += each.bytes
        return cls(head.sequence, found)


class _DatasetFrame(DiskModel):
    dataset: str
    bytes: int = Field(ge=0)
    receptions: int = Field(ge=0)
    nights: int = Field(ge=0)
    newest: float = Field(allow_inf_nan=False)
    unchanged: str = ""
    since: float | None = Field(default=None, allow_inf_nan=False)
    full_before: int | None = Field(default=None, ge=0)


class _Head(DiskModel):
    format: int = Field(default=1, ge=1, le=1)
    sequence: int = Field(ge=0)
    crc: int
    datasets: list[_DatasetFrame] = Field(default_factory=list)


def fold(
    history: SenderHistory, summaries: Iterable[Summary], unchanged: Mapping[str, str], now: float
) -> SenderHistory:
    """Return the history with what has come since; the same object if nothing has.

    `summaries`: of the sender's streams, at least those that have come since; `unchanged`: by dataset, when it was last
    reported as unchanged, as in its document; `now`: seconds since the epoch.
    """
    arrived: dict[str, list[Summary]] = {}
    highest = history.sequence
    for each in summaries:
        if is_new(each, history):
            arrived.setdefault(each.dataset, []).append(each)
            highest = max(highest, each.sequence or 0)
    reported = {
        dataset: at
        for dataset, at in unchanged.items()
        if (known := history.datasets.get(dataset)) is None or known.unchanged != at
    }
    if not arrived and not reported:
        return history
    found = dict(history.datasets)
    for dataset in arrived.keys() | reported.keys():
        found[dataset] = _added(
            dataset,
            found.get(dataset),
            sorted(arrived.get(dataset, ()), key=reception),
            reported.get(dataset),
            now=now,
            is_first=not history.datasets,
        )
    if len(found) > DATASETS_MAX:
        newest = sorted(found, key=lambda name: found[name].newest)[-DATASETS_MAX:]
        found = {name: found[name] for name in sorted(newest)}
    return SenderHistory(highest, found)


class Histories:
    """The histories of all senders, for one thread: in memory, and in the store's documents."""

    def __init__(self, documents: Documents, *, keeps: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """`keeps`: whether what is folded is written, which only the daemon does; `clock`: seconds."""
        self._documents = documents
        self._keeps = keeps
        self._clock = clock
        self._known: dict[str, SenderHistory] = {}
        self._written: dict[str, tuple[SenderHistory, float]] = {}  # and when

    def read(self, sender: str) -> SenderHistory:
        """Return what is known of a sender. A document that cannot be read is made anew. Blocks. Raises: OSError."""
        if sender not in self._known:
            data = self._documents.get(_document(sender))
            self._known[sender] = found = _parse(sender, None if data is None else data.data)
            self._written[sender] = found, -_WRITE_EVERY
        return self._known[sender]

    def fold(self, sender: str, summaries: Iterable[Summary], unchanged: Mapping[str, str], now: float) -> None:
        """Add what has come, see `fold`, and write it if it is time. A disk that cannot be written costs nothing: it is
        tried again. Blocks. Raises: OSError if the document cannot be read.
        """
        self._known[sender] = fold(self.read(sender), summaries, unchanged, now)
        if self._clock() - self._written[sender][1] >= _WRITE_EVERY:
            self._write(sender)

    def write(self) -> None:
        """Write what is not written yet. Blocks."""
        for sender in self._known:
            self._write(sender)

    def _write(self, sender: str) -> None:
        known = self._known[sender]
        if not self._keeps or self._written[sender][0] is known:
            return
        try:
            update(self._documents, _document(sender), lambda _before: known.to_bytes())
        except OSError as error:
            log.debug("the history of %s cannot be written: %s", sender, error)
            return
        self._written[sender] = known, self._clock()


def local_day(at: float) -> int | None:
    """Return the day of a moment in local time, as in `Night.day`; None: beyond the calendar."""
    try:
        return datetime.fromtimestamp(at, UTC).astimezone().toordinal()
    except (OverflowError, ValueError, OSError):
        return None


def is_new(about: Summary, history: SenderHistory) -> bool:
    """Whether a stream has come since the last time. What a merge has made takes the place of its last input, and what
    is brought back from the trash has its old place.
    """
    if (about.sequence or 0) > history.sequence:
        return True
    known = history.datasets.get(about.dataset)
    if known is None:
        return True
    at = parse_time(about.received)
    return about.proven_by != "merge" and at is not None and at > known.newest + _LATER


def _added(
    dataset: str,
    known: PackedHistory | None,
    arrived: Sequence[Summary],
    reported: str | None,
    *,
    now: float,
    is_first: bool,
) -> PackedHistory:
    """Return the history of a dataset with these streams, in the order of reception, and this report."""
    before = History(since=now) if known is None else known.unpack()
    new = [each for each in map(_reception, arrived) if each is not None]
    newest = max([0.0 if known is None else known.newest, *(each.at for each in new)])
    at = None if reported is None else parse_time(reported)
    if at is not None:
        insort(new, Reception(at=at, kind="unchanged"), key=lambda each: each.at)
    nights = {each.day: each for each in before.nights}
    for each in new:
        # A clock that was ahead tells no day; but it came since the last time.
        day = local_day(each.at) if each.at <= now + AHEAD else None if is_first else local_day(now)
        if day is not None:
            nights[day] = _with(nights.get(day) or Night(day=day), each)
    days = sorted(nights)[-NIGHTS_MAX:]
    receptions = [*before.receptions, *new]
    fulls = [each.raw_bytes for each in receptions[:-RECEPTIONS_MAX] if each.kind == "full" and each.raw_bytes]
    history = History(
        receptions=receptions[-RECEPTIONS_MAX:],
        nights=tuple(nights[day] for day in days),
        since=before.since,
        full_before=fulls[-1] if fulls else before.full_before,
    )
    unchanged = reported or ("" if known is None else known.unchanged)
    return PackedHistory.of(dataset, history, newest=newest, unchanged=unchanged)


def _reception(about: Summary) -> Reception | None:
    at = parse_time(about.received)
    if at is None:
        return None
    if about.proven_by == "merge":  # it was an increment, of unknown size
        return Reception(at=at, kind="incremental", snapshot=about.snapshot)
    return Reception(
        at=at,
        kind=about.kind,
        snapshot=about.snapshot,
        raw_bytes=about.raw_bytes,
        stored_bytes=about.stored_bytes,
    )


def _with(night: Night, new: Reception) -> Night:
    is_report = new.kind == "unchanged"
    return Night(
        day=night.day,
        received=night.received + (not is_report),
        unchanged=night.unchanged + is_report,
        raw_bytes=night.raw_bytes + new.raw_bytes,
        stored_bytes=night.stored_bytes + new.stored_bytes,
    )


def _compress(data: bytes) -> bytes:
    return bytes(memoryview(zstandard.ZstdCompressor(_LEVEL, write_checksum=True).compress(data)))


def _said(packed: bytes, key: str) -> list[Any]:
    found: list[Any] = json.loads(zstandard.decompress(packed))[key]
    return found


def _receptions(packed: bytes) -> tuple[Reception, ...]:
    return tuple(
        Reception(at=at, kind=kind, snapshot=snapshot, raw_bytes=raw, stored_bytes=stored)
        for at, kind, snapshot, raw, stored, *_later in _said(packed, "receptions")
    )


def _nights(packed: bytes) -> tuple[Night, ...]:
    return tuple(
        Night(day=day, received=received, unchanged=unchanged, raw_bytes=raw, stored_bytes=stored)
        for day, received, unchanged, raw, stored, *_later in _said(packed, "nights")
    )


def _parse(sender: str, data: bytes | None) -> SenderHistory:
    try:
        return SenderHistory() if data is None else SenderHistory.from_bytes(data)
    except (ValueError, ValidationError):
        log.warning(".state/%s: cannot be read, and is made anew from what is stored", _document(sender))
        return SenderHistory()


def _document(sender: str) -> str:
    return f"history.{sender}.zst"
