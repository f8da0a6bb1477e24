"""Disk space for arriving streams: which may begin, and which must end, so that `min-free` stays free.

A stream gets a **reservation** of what it will store: the raw bytes that its sender announced, times the known ratio.
No other stream is admitted on that space, or may write into it if it exceeds its own reservation. All comparisons are
of bytes that will be stored, never of raw bytes. Without a known ratio a stream is refused in two cases only: it would
not fit at a tenth of its raw size, or it is certain to fit once other streams have ended.

A stream of unknown size gets no reservation, nor does a stream that fits only if it compresses well. Such a stream, and
one that exceeds its reservation, may use what is not reserved. When that is used up, the stream that exceeds its
reservation the most ends, and what has arrived of it is deleted (`Overrun`). A stream within its reservation ends only
if something else has filled the disk. What has arrived of it stays, because deleting it would only make room for
whatever filled the disk.

A partial on which nothing arrives has no reservation: nobody knows whether it will be resumed. It counts as used.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, FullsendError
from fullsend_protocol.shared.units import format_size

#: errno values of a write that mean: the disk, or its quota, is used up.
USED_UP: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Raw bytes after which a stream's own ratio predicts the size of its rest.
TELLING: Final = 32 * limits.MIB
#: The best ratio that is assumed for a stream without a known one: a tenth of its raw bytes.
_BEST_RATIO: Final = 0.1
#: A reservation exceeds the expected size by this fraction (zstd frames of incompressible data, the index): a 64th.
_SLACK: Final = 64
#: A stream of unknown size that did not fit the last time needs this fraction more: an eighth.
_MORE: Final = 8
_TO_FREE: Final = "free space on the receiver"


class NoRoom(FullsendError):  # noqa: N818 - reads as a noun
    """The store is full, or the stream would fill it. What has arrived of the stream is kept."""

    code = ErrorCode.SPACE


class Overrun(NoRoom):
    """The stream has used more than its room. What has arrived of it is deleted."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The compression ratio of similar streams. `whence`: its source, for messages, such as "of its last streams"."""

    stored: int
    raw: int
    whence: str

    @property
    def value(self) -> float:
        """Stored bytes per raw byte."""
        return self.stored / self.raw


@dataclass(frozen=True, slots=True)
class RoomRequest:
    """The room that a stream needs.

    `name`: for messages; `raw`: raw bytes to come, None: not announced; `ratio`: None: unknown; `before`: bytes already
    stored of it; `failed_at`: bytes that were not enough the last time, used only if `raw` is None.
    """

    name: str
    raw: int | None = None
    ratio: Ratio | None = None
    before: int = 0
    failed_at: int = 0


class Arrival:
    """An arriving stream, for `Room`.

    `stored`, `raw`: bytes written since it was admitted; `pending`: bytes that it may write and has not written yet;
    `reservation`: bytes to store, None: it has none; `refused`: stored and raw bytes of the chunk that did not fit.
    `ended` gets an exception when the stream must end, `gone` a result when it has ended.
    """

    def __init__(self, wanted: RoomRequest, reservation: int | None) -> None:
        """Only Room calls this."""
        loop = asyncio.get_running_loop()
        self.wanted = wanted
        self.reservation = reservation
        self.stored = 0
        self.raw = 0
        self.pending = 0
        self.refused = (0, 0)
        self.ended: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    def is_within(self, more: int = 0) -> bool:
        """Whether it stores no more than its reservation, even with `more` bytes more."""
        return self.reservation is not None and self.stored + self.pending + more <= self.reservation

    @property
    def reserved(self) -> int:
        """Bytes that no other stream may use."""
        left = 0 if self.reservation is None else max(0, self.reservation - self.stored)
        if self.wanted.raw is not None and self.raw >= TELLING:  # it may compress better than expected
            left = min(left, round(max(0, self.wanted.raw - self.raw) * self.stored / self.raw))
        return max(left, self.pending)

    @property
    def excess(self) -> int:
        """Bytes that it stores beyond its reservation."""
        held = self.stored + self.pending
        return held + self.wanted.before if self.reservation is None else held - self.reservation


class Room:
    """The room on one store's disk. Not thread-safe: for the event loop."""

    def __init__(self, min_free: int, look: Callable[[], Awaitable[int]]) -> None:
        """`look`: returns the free bytes of the disk."""
        self._min_free = min_free
        self._look = look
        self._free = 0  # the last known value
        self._arrivals: set[Arrival] = set()

    async def admit(self, wanted: RoomRequest) -> Arrival:
        """Admit a stream. The caller must call `leave` later. Raises: NoRoom, OSError."""
        self._free = await self._look()
        alone = self._free - self._min_free
        left = alone - sum(each.reserved for each in self._arrivals)
        arrival = Arrival(wanted, self._judge(wanted, alone, left))
        self._arrivals.add(arrival)
        return arrival

    def leave(self, arrival: Arrival) -> None:
        """The stream has arrived, or its partial is closed: it needs no more room. May be repeated."""
        self._arrivals.discard(arrival)
        if not arrival.gone.done():
            arrival.gone.set_result(None)
        if arrival.ended.done():
            arrival.ended.exception()  # retrieved, not raised: it may have ended for another reason first

    async def claim(self, arrival: Arrival, stored: int, raw: int) -> None:
        """Make sure that a chunk of so many bytes may be written; `wrote` must follow. If streams use what is reserved
        for others, have them end, and wait for it. Raises: NoRoom, OSError.
        """
        try:
            while not self._fits(arrival, stored):
                self._free = await self._look()
                if not self._fits(arrival, stored):
                    await self._make_way(arrival, stored)
        except NoRoom:
            arrival.refused = (stored, raw)
            raise
        arrival.pending += stored

    def wrote(self, arrival: Arrival, stored: int, raw: int, free: int) -> None:
        """A claimed chunk is on the disk, which has `free` bytes left."""
        arrival.pending -= stored
        arrival.stored += stored
        arrival.raw += raw
        self._free = free

    def used_up(self, arrival: Arrival, error: OSError) -> NoRoom:
        """Return the error for a stream that the disk has no room for. A stream that exceeds its reservation ends, too,
        if this one does not exceed its own.
        """
        full = f"the store is full ({error.strerror}); {arrival.wanted.name}: "
        if arrival.is_within():
            self._end_largest()
            return NoRoom(f"{full}what had arrived is kept: {_TO_FREE}, then push again")
        return Overrun(full + _deletion(arrival))

    def _fits(self, arrival: Arrival, more: int) -> bool:
        if arrival.ended.done():
            arrival.ended.result()  # raises
        within = arrival.is_within(more)
        taken = sum(each.pending if within else each.reserved for each in self._arrivals if each is not arrival)
        return self._free - taken - arrival.pending - more >= self._min_free

    async def _make_way(self, arrival: Arrival, more: int) -> None:
        """Have a stream end, and wait until it has. Raises: NoRoom if it is `arrival` itself."""
        going = [each for each in self._arrivals if each.ended.done()]
        if not going and not arrival.is_within(more) and self._largest(arrival) is arrival:
            raise self._overrun(arrival)
        if not going and (victim := self._end_largest()) is not None:
            going = [victim]
        if not going:
            msg = (
                f"{arrival.wanted.name}: ended, since something else has filled the store's disk: {self._numbers(0)};"
                f" what had arrived is kept: {_TO_FREE}, then push again"
            )
            raise NoRoom(msg)
        await asyncio.wait([arrival.ended, *(each.gone for each in going)], return_when=asyncio.FIRST_COMPLETED)

    def _largest(self, asking: Arrival | None = None) -> Arrival | None:
        """Return the stream that exceeds its reservation the most; `asking` counts as exceeding its own."""
        beyond = [each for each in self._arrivals if each is asking or not each.is_within()]
        return max(beyond, key=lambda each: each.excess, default=None)

    def _end_largest(self) -> Arrival | None:
        """Have that stream end. Returns: it, None if each is within its reservation."""
        victim = self._largest()
        if victim is not None and not victim.ended.done():
            victim.ended.set_exception(self._overrun(victim))
        return victim

    def _overrun(self, arrival: Arrival) -> Overrun:
        others = sum(each.reserved for each in self._arrivals if each is not arrival)
        return Overrun(
            f"{arrival.wanted.name}: ended, since the store has no more room for it: {self._numbers(others)};"
            f" {_deletion(arrival)}"
        )

    def _judge(self, wanted: RoomRequest, alone: int, left: int) -> int | None:
        """Return the reservation for a stream. `alone`: bytes for it if no other were arriving, `left`: as it is.

        Raises: NoRoom.
        """
        raw, ratio = wanted.raw, wanted.ratio
        reservation: int | None
        if raw is None:
            least = wanted.failed_at + wanted.failed_at // _MORE - wanted.before if wanted.failed_at else 0
            reservation = None
            about = f"more than {format_size(wanted.failed_at)} of it arrived the last time, and was not all"
        elif ratio is not None:
            least = reservation = round(raw * ratio.value)
            about = f"about {format_size(raw)} raw, {format_size(least)} at the ratio {ratio.whence}"
            about += f" ({1 / ratio.value:.1f})" if ratio.stored else ""
        else:
            reservation = raw if raw <= left else None
            # If it is certain to fit after waiting, it waits; if it is uncertain even then, it may try.
            least = raw if raw <= alone else round(raw * _BEST_RATIO)
            about = f"about {format_size(raw)} raw, and its compression ratio is unknown"
            about += "" if raw <= alone else f", {format_size(least)} at best"
        if least > left or left < 0:
            raise NoRoom(_refusal(wanted, about if least else "", self._numbers(alone - left), soon=least <= alone))
        return None if reservation is None else reservation + reservation // _SLACK

    def _numbers(self, reserved: int) -> str:
        others = f", and {format_size(reserved)} are reserved for arriving streams" if reserved else ""
        free, kept = format_size(max(0, self._free)), format_size(self._min_free)
        return f"the store has {free} free, of which {kept} are to stay free (min-free){others}"


def _refusal(wanted: RoomRequest, about: str, numbers: str, *, soon: bool) -> str:
    if not about:
        way_out = _TO_FREE
    elif soon:
        way_out = "push it again when they have arrived"
    elif wanted.raw is None:
        way_out = f"{_TO_FREE}, or say how large it is (--size with --stdin; else without --no-size-check)"
    else:
        way_out = f"{_TO_FREE}, or push it with --no-size-check"
    return f"{wanted.name}: no room: {about}{'; ' * bool(about)}{numbers}: {way_out}"


def _deletion(arrival: Arrival) -> str:
    why = (
        "had no reservation"
        if arrival.reservation is None
        else f"had a reservation of {format_size(arrival.reservation)}"
    )
    held = format_size(arrival.wanted.before + arrival.stored)
    return f"it {why}; {held} of it are deleted: {_TO_FREE}"
