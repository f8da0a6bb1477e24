"""Room for arriving streams: which may begin, and which must end, so that `min-free` stays free and quotas hold.

Two **bounds** apply to each stream: the store's disk, which all share, and the quota of its sender, if it has one
(bounds.py). Both are held by the same rules.

A stream gets a **reservation** of what it will store: the raw bytes that its sender announced, times the known ratio.
No other stream is admitted on that space, or may write into it if it exceeds its own reservation. All comparisons are
of bytes that will be stored, never of raw bytes. Without a known ratio a stream is refused in two cases only: it would
not fit at a tenth of its raw size, or it is certain to fit once other streams have ended.

A stream of unknown size gets no reservation, nor does a stream that fits only if it compresses well. Such a stream, and
one that exceeds its reservation, may use what is not reserved. When that is used up, the stream that exceeds its
reservation the most ends, and what has arrived of it is deleted (`Overrun`). A stream within its reservation ends only
if something else has used the room. What has arrived of it stays, because deleting it would only make room for
whatever used it.

A partial on which nothing arrives has no reservation: nobody knows whether it will be resumed. It counts as used.

Where the policy allows it (`when-full`), old streams are removed before a stream is refused or ended (`MakeRoom`).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping
from typing import Final

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_size
from fullsend_receiver.arrival.bounds import (
    BEST_RATIO,
    Account,
    Arrival,
    Bound,
    DiskBound,
    Fill,
    LookAtStored,
    NoRoom,
    Overrun,
    QuotaBound,
    RoomRequest,
)
from fullsend_receiver.store.api import DiskSpace

#: errno values of a write that mean: the disk, or its quota, is used up.
USED_UP: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: A reservation exceeds the expected size by this fraction (zstd frames of incompressible data, the index): a 64th.
_SLACK: Final = 64
#: A stream of unknown size that did not fit the last time needs this fraction more: an eighth.
_MORE: Final = 8

#: Removes old streams, if the policy allows it: at least so many bytes, of this sender (None: of any). Returns: the
#: removed bytes, 0: none may be removed.
MakeRoom = Callable[[int, str | None], Awaitable[int]]


async def remove_nothing(_wanted: int, _sender: str | None) -> int:
    """Remove nothing: the policy does not allow it."""
    return 0


class Room:
    """The room in one store. Not thread-safe: for the event loop."""

    def __init__(
        self,
        min_free: SizeOrShare,
        look: Callable[[], Awaitable[DiskSpace]],
        *,
        quota_of: Callable[[str], int | None] = lambda _sender: None,
        stored_of: LookAtStored | None = None,
        make_room: MakeRoom = remove_nothing,
    ) -> None:
        """`look`: returns what the disk has; `quota_of`: the quota of a sender, None: it has none; `stored_of`: as in
        Account, needed where a sender has a quota.
        """
        self._disk = DiskBound(min_free, look)
        self._quota_of = quota_of
        self._stored_of = stored_of
        self._make_room = make_room
        self._removing = asyncio.Lock()
        self._removals = 0  # how often old streams were removed
        self._accounts: dict[str, Account] = {}
        self._arrivals: set[Arrival] = set()

    def keep_free(self, min_free: SizeOrShare) -> None:
        """Keep so much of the disk free from now on. A stream that arrives may have to end for it."""
        self._disk.min_free = min_free

    async def admit(self, wanted: RoomRequest) -> Arrival:
        """Admit a stream. The caller must call `leave` later. Raises: NoRoom, StoreError, OSError."""
        bounds = self._bounds(wanted.sender)
        while True:
            for bound in bounds:
                await bound.look()
            try:
                found = [self._judge(bound, wanted) for bound in bounds]
            except NoRoom as refusal:
                if await self._wait_for_commits(wanted.sender) or await self._removed(refusal):
                    continue
                raise
            arrival = Arrival(wanted, None if None in found else found[0])
            self._account(wanted.sender).partials.pop(wanted.key, None)
            self._arrivals.add(arrival)
            return arrival

    def arrived(self, arrival: Arrival) -> None:
        """All of the stream is written: it needs no more room, and is not ended any more. What it has stored counts
        until it leaves.
        """
        arrival.whole = True
        _write_no_more(arrival)

    async def stored(self, arrival: Arrival) -> None:
        """The stream is stored under its name. `leave` must follow. Raises: StoreError, OSError."""
        for bound in self._bounds(arrival.wanted.sender)[1:]:
            await bound.look()

    def leave(self, arrival: Arrival, kept: int = 0) -> None:
        """The stream needs no more room. `kept`: bytes that stay of it as a partial. May be repeated."""
        self._arrivals.discard(arrival)
        self.keep(arrival.wanted.sender, arrival.wanted.key, kept)
        _write_no_more(arrival)
        if not arrival.left.done():
            arrival.left.set_result(None)

    def keep(self, sender: str, key: str, kept: int) -> None:
        """So many bytes of the partial with this key stay, and are not arriving; 0: none."""
        partials = self._account(sender).partials
        if kept:
            partials[key] = kept
        else:
            partials.pop(key, None)

    def count(
        self, partials: Mapping[str, Mapping[str, int]], aside: Mapping[str, int], *, but: Container[str] = ()
    ) -> None:
        """Take over what was found in the store: by sender the bytes of its partials by key, and of what is set aside.
        `but`: keys of which this object knows better, since their streams were arriving meanwhile.
        """
        for sender in {*self._accounts, *partials, *aside}:
            account = self._account(sender)
            known = {key: size for key, size in account.partials.items() if key in but}
            found = {key: size for key, size in partials.get(sender, {}).items() if key not in but}
            account.partials = known | found
            account.aside = aside.get(sender, 0)

    async def fills(self, sender: str | None = None) -> list[Fill]:
        """Return how full the disk is, and the quota of this sender (None: of each sender that has pushed), if it has
        one. Raises: StoreError, OSError.
        """
        await self._disk.look()
        quotas = [
            bound for each in ([sender] if sender else sorted(self._accounts)) for bound in self._bounds(each)[1:]
        ]
        for bound in quotas:
            await bound.look()
        return [self._disk.fill(), *(bound.fill() for bound in quotas)]

    async def claim(self, arrival: Arrival, stored: int, raw: int) -> None:
        """Make sure that a chunk of so many bytes may be written; `wrote` must follow. If streams use what is reserved
        for others, have them end, and wait for it. Raises: NoRoom, StoreError, OSError.
        """
        bounds = self._bounds(arrival.wanted.sender)
        try:
            while (bound := self._first_without_room(bounds, arrival, stored)) is not None:
                await bound.look()
                if self._lacking(bound, arrival, stored) > 0:
                    await self._make_way(bound, arrival, stored)
        except NoRoom:
            arrival.refused = (stored, raw)
            raise
        arrival.pending += stored

    def wrote(self, arrival: Arrival, stored: int, raw: int, free: int) -> None:
        """A claimed chunk is on the disk, which has `free` bytes left."""
        arrival.pending -= stored
        arrival.stored += stored
        arrival.raw += raw
        self._disk.free = free

    def used_up(self, arrival: Arrival, error: OSError) -> NoRoom:
        """Return the error for a stream that the disk has no room for. A stream that exceeds its reservation ends, too,
        if this one does not exceed its own.
        """
        full = self.full(arrival, error)
        if arrival.is_within():
            self._end_largest(self._disk)
            return full
        return Overrun(f"{full.what}; {_deletion(arrival)}", full.way_out)

    def full(self, arrival: Arrival, error: OSError) -> NoRoom:
        """Return the error for a stream for which the disk has no room, but which has not used more than its own."""
        return NoRoom(f"{arrival.wanted.name}: the store is full ({error.strerror})", self._disk.way_out)

    # --- bounds

    def _account(self, sender: str) -> Account:
        if sender not in self._accounts:
            self._accounts[sender] = Account(sender, self._stored_of)
        return self._accounts[sender]

    def _bounds(self, sender: str) -> list[Bound]:
        quota = self._quota_of(sender)
        if quota is None:
            return [self._disk]
        return [self._disk, QuotaBound(quota, self._account(sender), lambda: self._of(sender))]

    def _of(self, sender: str) -> Iterator[Arrival]:
        return (each for each in self._arrivals if each.wanted.sender == sender)

    def _sharing(self, bound: Bound) -> list[Arrival]:
        """Return the arrivals to which a bound applies."""
        return list(self._arrivals if bound.sender is None else self._of(bound.sender))

    async def _wait_for_commits(self, sender: str) -> bool:
        """Wait until a stream of this sender that is being committed has left: it may count twice until then. Returns:
        whether there was one.
        """
        going = [each.left for each in self._of(sender) if each.committing]
        if going:
            await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        return bool(going)

    async def _removed(self, refusal: NoRoom) -> bool:
        """Remove old streams for what was refused, if the policy allows it. Returns: whether any were removed, for this
        stream or for another one meanwhile.
        """
        before = self._removals
        async with self._removing:
            if self._removals == before:  # otherwise this stream may fit by now, and nothing more may be left to go
                self._removals += await self._make_room(refusal.lacking, refusal.sender) > 0
        return self._removals != before

    # --- while streams arrive

    def _first_without_room(self, bounds: Iterable[Bound], arrival: Arrival, more: int) -> Bound | None:
        """Return the first bound that `more` bytes of a stream would exceed."""
        return next((bound for bound in bounds if self._lacking(bound, arrival, more) > 0), None)

    def _lacking(self, bound: Bound, arrival: Arrival, more: int) -> int:
        """Return how many bytes lack for `more` bytes of a stream; 0 or less: none. Raises: what has ended it."""
        if arrival.ended.done():
            arrival.ended.result()  # raises
        within = arrival.is_within(more)
        others = [each for each in self._sharing(bound) if each is not arrival]
        taken = sum(each.pending if within else each.reserved for each in others)
        return bound.kept + taken + arrival.pending + more - bound.free

    async def _make_way(self, bound: Bound, arrival: Arrival, more: int) -> None:
        """Have a stream end, and wait until it has. Raises: NoRoom if it is `arrival` itself."""
        if not self._going(bound) and await self._removed(self._refusal(bound, arrival, more)):
            return
        going = self._going(bound)
        if not going:
            refusal = self._refusal(bound, arrival, more)
            victim = None if isinstance(refusal, Overrun) else self._end_largest(bound)
            if victim is None:
                raise refusal
            going = [victim.gone]
        await asyncio.wait([arrival.ended, *going], return_when=asyncio.FIRST_COMPLETED)

    def _going(self, bound: Bound) -> list[asyncio.Future[None]]:
        """Return the ends of the streams that are about to end; and of those that are being put in place, which may
        count twice until then.
        """
        sharing = self._sharing(bound)
        ending = [each.gone for each in sharing if each.ended.done() and not each.whole]
        return ending + [each.left for each in sharing if each.committing]

    def _refusal(self, bound: Bound, arrival: Arrival, more: int) -> NoRoom:
        """Return the error with which a stream ends if nothing makes room for `more` bytes of it."""
        if not arrival.is_within(more) and self._largest(bound, arrival) is arrival:
            return self._overrun(bound, arrival, more)
        what = f"{arrival.wanted.name}: ended, since {bound.used_by_others}: {bound.numbers(0)}"
        return NoRoom(what, bound.way_out, sender=bound.sender, lacking=self._lacking(bound, arrival, more))

    def _largest(self, bound: Bound, asking: Arrival | None = None) -> Arrival | None:
        """Return the stream that exceeds its reservation the most; `asking` counts as exceeding its own."""
        sharing = [each for each in self._sharing(bound) if not each.whole]
        beyond = [each for each in sharing if each is asking or not each.is_within()]
        return max(beyond, key=lambda each: each.excess, default=None)

    def _end_largest(self, bound: Bound) -> Arrival | None:
        """Have that stream end. Returns: it, None if each is within its reservation."""
        victim = self._largest(bound)
        if victim is not None and not victim.ended.done():
            victim.ended.set_exception(self._overrun(bound, victim))
        return victim

    def _overrun(self, bound: Bound, arrival: Arrival, more: int = 0) -> Overrun:
        others = sum(each.reserved for each in self._sharing(bound) if each is not arrival)
        what = f"{arrival.wanted.name}: ended, since {bound.no_more}: {bound.numbers(others)}; {_deletion(arrival)}"
        lacking = self._lacking(bound, arrival, more) if more else 0
        return Overrun(what, bound.way_out, sender=bound.sender, lacking=lacking)

    # --- when a stream is offered

    def _judge(self, bound: Bound, wanted: RoomRequest) -> int | None:
        """Return the reservation for a stream, by one bound. Raises: NoRoom."""
        alone = bound.room_for(wanted)  # if no other stream were arriving
        left = alone - sum(each.reserved for each in self._sharing(bound))
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
            least = raw if raw <= alone else round(raw * BEST_RATIO)
            about = f"about {format_size(raw)} raw, and its compression ratio is unknown"
            about += "" if raw <= alone else f", {format_size(least)} at best"
        if least > left or left < 0:
            what = f"{wanted.name}: no room: {about + '; ' if least else ''}{bound.numbers(alone - left)}"
            way_out = _way_out(bound, wanted, known=bool(least), soon=least <= alone)
            raise NoRoom(what, way_out, sender=bound.sender, lacking=least - left)
        return None if reservation is None else reservation + reservation // _SLACK


def _write_no_more(arrival: Arrival) -> None:
    if not arrival.gone.done():
        arrival.gone.set_result(None)
    if arrival.ended.done():
        arrival.ended.exception()  # retrieved, not raised: it may have ended for another reason first


def _way_out(bound: Bound, wanted: RoomRequest, *, known: bool, soon: bool) -> str:
    if not known:
        return bound.way_out
    if soon:
        return "push it again when they have arrived"
    if wanted.raw is None:
        return f"{bound.way_out}, or say how large it is (--size with --stdin; else without --no-size-check)"
    return f"{bound.way_out}, or push it with --no-size-check"


def _deletion(arrival: Arrival) -> str:
    why = (
        "had no reservation"
        if arrival.reservation is None
        else f"had a reservation of {format_size(arrival.reservation)}"
    )
    held = format_size(arrival.held)
    return f"it {why}; {held} of it are deleted"
