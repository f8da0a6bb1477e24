"""Room on the store's disk: who may begin, and who has to end, so that `min-free` stays free while streams arrive.

A stream is **promised** what it will store: the raw bytes that its sender announced, times the ratio that is known. No
other stream is let in on that, and none that was promised less, or nothing, may write into it. What is compared is
always bytes that will be stored, never raw ones. Where no ratio is known, a stream is refused only if it would not fit
at a tenth of its raw size, or if it fits for certain as soon as others have ended.

Nothing is promised to a stream of unknown size, nor to one that may fit only if it compresses well. Such a stream, and
one that stores more than it was promised, may use what is promised to nobody. Where that is used up, the one that
holds the most beyond its promise ends, and what has arrived of it is thrown away (`Crossed`). A stream within its
promise ends only where something else has filled the disk; what has arrived of it stays, since throwing it away would
only make room for whatever filled the disk.

A partial on which nothing arrives is promised nothing: nobody knows whether it will be resumed. It counts as used.
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

#: errno values with which a write says that the disk, or its quota, is used up.
USED_UP: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Raw bytes after which a stream's own ratio tells what the rest of it will take.
TELLING: Final = 32 * limits.MIB
#: How far a stream may shrink of which no ratio is known: to a tenth of its raw bytes.
_BEST_RATIO: Final = 0.1
#: A promise is this much larger than what is expected (zstd frames of what does not compress, the index): a 64th.
_SLACK: Final = 64
#: A stream of unknown size that did not fit the last time must find this much more: an eighth.
_MORE: Final = 8
_TO_FREE: Final = "free space on the receiver"


class NoRoom(FullsendError):  # noqa: N818 - reads as a noun
    """The store is full, or the stream would fill it. What has arrived of the stream is kept."""

    code = ErrorCode.SPACE


class Crossed(NoRoom):
    """The stream has used more than there was for it. What has arrived of it goes."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How a stream's like has compressed. `whence`: for a message, such as "of its last streams"."""

    stored: int
    raw: int
    whence: str

    @property
    def value(self) -> float:
        """Stored bytes for one raw byte."""
        return self.stored / self.raw


@dataclass(frozen=True, slots=True)
class Wanted:
    """The room that a stream asks for. `name`: for messages; `raw`: raw bytes to come, None: not announced; `ratio`:
    None: nothing is known; `before`: bytes stored of it already; `failed_at`: bytes that were not enough the last
    time, and are of use only where `raw` is None.
    """

    name: str
    raw: int | None = None
    ratio: Ratio | None = None
    before: int = 0
    failed_at: int = 0


class Arrival:
    """A stream that is arriving, as `Room` sees it. `stored`, `raw`: bytes written since it was let in; `pending`:
    bytes that it may write and has not written yet; `promised`: bytes to store, None: nothing is promised; `refused`:
    stored and raw bytes of the chunk that did not fit. `ended` gets an exception when the stream has to end, `gone` a
    result when it has.
    """

    def __init__(self, wanted: Wanted, promised: int | None) -> None:
        """For Room alone."""
        loop = asyncio.get_running_loop()
        self.wanted = wanted
        self.promised = promised
        self.stored = 0
        self.raw = 0
        self.pending = 0
        self.refused = (0, 0)
        self.ended: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    def is_within(self, more: int = 0) -> bool:
        """Whether it stores no more than it was promised, with so many bytes more."""
        return self.promised is not None and self.stored + self.pending + more <= self.promised

    @property
    def reserved(self) -> int:
        """Bytes that no other stream may use."""
        left = 0 if self.promised is None else max(0, self.promised - self.stored)
        if self.wanted.raw is not None and self.raw >= TELLING:  # it may compress better than was expected
            left = min(left, round(max(0, self.wanted.raw - self.raw) * self.stored / self.raw))
        return max(left, self.pending)

    @property
    def excess(self) -> int:
        """Bytes that it holds beyond its promise."""
        held = self.stored + self.pending
        return held + self.wanted.before if self.promised is None else held - self.promised


class Room:
    """The room on one store's disk. For the event loop alone."""

    def __init__(self, min_free: int, look: Callable[[], Awaitable[int]]) -> None:
        """`look`: return what is free on the disk, in bytes."""
        self._min_free = min_free
        self._look = look
        self._free = 0  # as it was last seen
        self._arrivals: set[Arrival] = set()

    async def admit(self, wanted: Wanted) -> Arrival:
        """Let a stream begin. `leave` must follow. Raises: NoRoom, OSError."""
        self._free = await self._look()
        alone = self._free - self._min_free
        left = alone - sum(each.reserved for each in self._arrivals)
        arrival = Arrival(wanted, self._judge(wanted, alone, left))
        self._arrivals.add(arrival)
        return arrival

    def leave(self, arrival: Arrival) -> None:
        """The stream has arrived, or its partial is put away: it needs no more room. May be repeated."""
        self._arrivals.discard(arrival)
        if not arrival.gone.done():
            arrival.gone.set_result(None)
        if arrival.ended.done():
            arrival.ended.exception()  # it may have ended for another reason first

    async def claim(self, arrival: Arrival, stored: int, raw: int) -> None:
        """Make sure that a chunk of so many bytes may be written: `wrote` follows. Waits while streams end that hold
        what was promised to others. Raises: NoRoom, OSError.
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
        """A chunk that was claimed is on the disk, which has `free` bytes left."""
        arrival.pending -= stored
        arrival.stored += stored
        arrival.raw += raw
        self._free = free

    def used_up(self, arrival: Arrival, error: OSError) -> NoRoom:
        """Return what ends a stream of which the disk has taken no more. One that holds more than was promised to it
        ends, too, where this one does not.
        """
        full = f"the store is full ({error.strerror}); {arrival.wanted.name}: "
        if arrival.is_within():
            self._end_largest()
            return NoRoom(f"{full}what had arrived is kept: {_TO_FREE}, then push again")
        return Crossed(full + _thrown_away(arrival))

    def _fits(self, arrival: Arrival, more: int) -> bool:
        if arrival.ended.done():
            arrival.ended.result()  # raises
        within = arrival.is_within(more)
        taken = sum(each.pending if within else each.reserved for each in self._arrivals if each is not arrival)
        return self._free - taken - arrival.pending - more >= self._min_free

    async def _make_way(self, arrival: Arrival, more: int) -> None:
        """Have the stream end that has to, and wait until it has. Raises: NoRoom where it is `arrival` itself."""
        going = [each for each in self._arrivals if each.ended.done()]
        if not going and not arrival.is_within(more) and self._largest(arrival) is arrival:
            raise self._crossed(arrival)
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
        """Return the stream that holds the most beyond its promise; `asking` counts as such a stream."""
        beyond = [each for each in self._arrivals if each is asking or not each.is_within()]
        return max(beyond, key=lambda each: each.excess, default=None)

    def _end_largest(self) -> Arrival | None:
        """Have that stream end. Returns: it, None where each is within its promise."""
        victim = self._largest()
        if victim is not None and not victim.ended.done():
            victim.ended.set_exception(self._crossed(victim))
        return victim

    def _crossed(self, arrival: Arrival) -> Crossed:
        others = sum(each.reserved for each in self._arrivals if each is not arrival)
        return Crossed(
            f"{arrival.wanted.name}: ended, since the store has no more room for it: {self._numbers(others)};"
            f" {_thrown_away(arrival)}"
        )

    def _judge(self, wanted: Wanted, alone: int, left: int) -> int | None:
        """Return what a stream is to be promised. `alone`: bytes for it if it were the only one, `left`: as it is.

        Raises: NoRoom.
        """
        raw, ratio = wanted.raw, wanted.ratio
        promised: int | None
        if raw is None:
            least = wanted.failed_at + wanted.failed_at // _MORE - wanted.before if wanted.failed_at else 0
            promised = None
            about = f"more than {format_size(wanted.failed_at)} of it arrived the last time, and was not all"
        elif ratio is not None:
            least = promised = round(raw * ratio.value)
            about = f"about {format_size(raw)} raw, {format_size(least)} at the ratio {ratio.whence}"
            about += f" ({1 / ratio.value:.1f})" if ratio.stored else ""
        else:
            promised = raw if raw <= left else None
            # Where waiting makes certain that it fits, it waits; where that is uncertain all the same, it may try.
            least = raw if raw <= alone else round(raw * _BEST_RATIO)
            about = f"about {format_size(raw)} raw, and how it compresses is not known"
            about += "" if raw <= alone else f", {format_size(least)} at the best"
        if least > left or left < 0:
            raise NoRoom(_refusal(wanted, about if least else "", self._numbers(alone - left), soon=least <= alone))
        return None if promised is None else promised + promised // _SLACK

    def _numbers(self, reserved: int) -> str:
        others = f", and {format_size(reserved)} are promised to streams that are arriving" if reserved else ""
        free, kept = format_size(max(0, self._free)), format_size(self._min_free)
        return f"the store has {free} free, of which {kept} are to stay free (min-free){others}"


def _refusal(wanted: Wanted, about: str, numbers: str, *, soon: bool) -> str:
    if not about:
        way_out = _TO_FREE
    elif soon:
        way_out = "push it again when they have arrived"
    elif wanted.raw is None:
        way_out = f"{_TO_FREE}, or say how large it is (--size with --stdin; else without --no-size-check)"
    else:
        way_out = f"{_TO_FREE}, or push it with --no-size-check"
    return f"{wanted.name}: no room: {about}{'; ' * bool(about)}{numbers}: {way_out}"


def _thrown_away(arrival: Arrival) -> str:
    why = "was promised no room" if arrival.promised is None else f"was promised {format_size(arrival.promised)}"
    held = format_size(arrival.wanted.before + arrival.stored)
    return f"it {why}; {held} of it are thrown away: {_TO_FREE}"
