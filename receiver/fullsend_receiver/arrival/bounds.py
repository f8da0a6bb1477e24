"""What bounds arriving streams: the free space of the disk, and the quota of a sender. free_space.py holds them.

What counts against a quota, all in stored bytes of stream files: the streams that are stored, those that are arriving,
the partials that wait, and what is set aside (the trash, and partials that are damaged). Manifests and other small
files do not count. All of it is known in memory: no stream is looked at for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, FullsendError
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_size
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.errors import StreamTooLarge

#: Raw bytes after which a stream's own ratio predicts the size of its rest.
TELLING: Final = 32 * limits.MIB

#: The best ratio that is assumed for a stream without a known one: a tenth of its raw bytes.
BEST_RATIO: Final = 0.1

#: Returns the bytes that are stored of a sender, behind a number: a result with a higher one is newer.
LookAtStored = Callable[[str], Awaitable[tuple[int, int]]]


class NoRoom(FullsendError):  # noqa: N818 - reads as a noun
    """The store has no room for a stream. What is durable of it is kept.

    `what`: the thing and the reason; `way_out`: what to do. `sender`: of whose streams `lacking` bytes must go to make
    room, None: of anyone's.
    """

    code = ErrorCode.SPACE

    def __init__(self, what: str, way_out: str, *, sender: str | None = None, lacking: int = 0) -> None:
        """The message has the reason before the way out."""
        super().__init__(f"{what}: {way_out}")
        self.what = what
        self.way_out = way_out
        self.sender = sender
        self.lacking = lacking

    def keeping(self, kept: str) -> NoRoom:
        """Return the same error, which also says what is kept of the stream."""
        return NoRoom(f"{self.what}; {kept}", f"{self.way_out}, then push again")


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
    stored of it; `failed_at`: bytes that were not enough the last time, used only if `raw` is None; `sender`, `key`:
    whose it is, and the key of its partial.
    """

    name: str
    raw: int | None = None
    ratio: Ratio | None = None
    before: int = 0
    failed_at: int = 0
    sender: str = ""
    key: str = ""

    def check_size(self, most: int) -> None:
        """Check that the whole stream may fit into `most` stored bytes, without a look at what else is stored.

        Raises: StreamTooLarge if it is not expected to.
        """
        if self.raw is None:
            return
        size = self.before + round(self.raw * (self.ratio.value if self.ratio is not None else BEST_RATIO))
        if size > most:
            whence = "at best" if self.ratio is None else f"at the ratio {self.ratio.whence}"
            about = f"about {format_size(self.raw)} raw to come, {format_size(size)} in all {whence}"
            way_out = "push it to a store in a folder, or with --no-size-check"
            msg = f"{self.name}: is too large: {about}, and a stream has {format_size(most)} here at most: {way_out}"
            raise StreamTooLarge(msg)


class Arrival:
    """An arriving stream, for `Room`.

    `stored`, `raw`: bytes written since it was admitted; `pending`: bytes that it may write and has not written yet;
    `reservation`: bytes to store, None: it has none; `refused`: stored and raw bytes of the chunk that did not fit;
    `whole`: all of it is written; `committing`: it is being put in place. `ended` gets an exception when the stream
    must end, `gone` a result when it writes no more, `left` when it does not count as arriving any more.
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
        self.whole = False
        self.committing = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.left: asyncio.Future[None] = loop.create_future()

    def is_within(self, more: int = 0) -> bool:
        """Whether it stores no more than its reservation, even with `more` bytes more."""
        return self.reservation is not None and self.stored + self.pending + more <= self.reservation

    @property
    def held(self) -> int:
        """Bytes that are stored of it, also from before it was admitted."""
        return self.wanted.before + self.stored

    @property
    def reserved(self) -> int:
        """Bytes that no other stream may use."""
        if self.whole:
            return 0
        left = 0 if self.reservation is None else max(0, self.reservation - self.stored)
        if self.wanted.raw is not None and self.raw >= TELLING:  # it may compress better than expected
            left = min(left, round(max(0, self.wanted.raw - self.raw) * self.stored / self.raw))
        return max(left, self.pending)

    @property
    def excess(self) -> int:
        """Bytes that it stores beyond its reservation."""
        held = self.stored + self.pending
        return held + self.wanted.before if self.reservation is None else held - self.reservation


@dataclass(slots=True)
class Account:
    """What is in the store of one sender, except what is arriving, in bytes.

    `partials`: by key; `aside`: the trash, and what is damaged; `stored_of`: as LookAtStored, None: nothing counts.
    """

    sender: str
    stored_of: LookAtStored | None = None
    partials: dict[str, int] = field(default_factory=dict)
    aside: int = 0
    stored: int = 0
    _moment: int = -1

    async def look(self) -> None:
        """Learn what is stored now. Raises: StoreError, OSError."""
        if self.stored_of is not None:
            moment, stored = await self.stored_of(self.sender)
            if moment > self._moment:  # otherwise another look, which began later, has ended before this one
                self._moment, self.stored = moment, stored


@dataclass(frozen=True, slots=True)
class Fill:
    """How full something is: `used` of `total` bytes, of which `kept` must stay free. `what`: for messages."""

    what: str
    used: int
    total: int
    kept: int = 0

    @property
    def free(self) -> int:
        """Bytes that are left; may be negative."""
        return self.total - self.used

    @property
    def refuses(self) -> bool:
        """Whether every push is refused."""
        return self.free < self.kept or (self.free <= 0 and self.used > 0)

    def is_above(self, share: float) -> bool:
        """Whether more than this share is used."""
        return self.used > share * self.total

    def __str__(self) -> str:  # type: ignore[explicit-override]
        """Return the numbers for a person."""
        share = f"{self.used / self.total:.0%}" if self.total else "all"
        return f"{self.what}: {share} used ({format_size(self.used)} of {format_size(self.total)})"


class Bound(Protocol):
    """Something that bounds what arrives."""

    @property
    def sender(self) -> str | None:
        """To whose streams it applies; None: to all."""

    @property
    def free(self) -> int:
        """Bytes that are left as of the last look; may be negative."""

    @property
    def kept(self) -> int:
        """Bytes of these that must stay free."""

    @property
    def way_out(self) -> str:
        """What to do if it has no more room; a part of messages, as are the next two."""

    @property
    def no_more(self) -> str:
        """Why a stream that uses more than its reservation ends."""

    @property
    def used_by_others(self) -> str:
        """Why a stream ends that uses no more than its reservation."""

    async def look(self) -> None:
        """Learn what is used now. Raises: StoreError, OSError."""

    def room_for(self, wanted: RoomRequest) -> int:
        """Return the bytes for a stream that is offered, if no other were arriving."""

    def numbers(self, reserved: int) -> str:
        """Return what was compared. `reserved`: bytes for arriving streams."""

    def fill(self) -> Fill:
        """Return how full it is, as of the last look."""


class DiskBound:
    """The store's disk. A `Bound`."""

    sender = None
    way_out = "free space on the receiver"
    no_more = "the store has no more room for it"
    used_by_others = "something else has filled the store's disk"

    def __init__(self, min_free: SizeOrShare, look: Callable[[], Awaitable[DiskSpace]]) -> None:
        """`look`: returns what the disk has."""
        self.free = 0  # the last known value
        self.min_free = min_free
        self._total = 0
        self._look = look

    @property
    def kept(self) -> int:
        """Bytes that must stay free."""
        return self.min_free.of(self._total)

    async def look(self) -> None:
        """See `Bound`."""
        self.free, self._total = await self._look()

    def room_for(self, _wanted: RoomRequest) -> int:
        """See `Bound`."""
        return self.free - self.kept

    def numbers(self, reserved: int) -> str:
        """See `Bound`."""
        free, kept = format_size(max(0, self.free)), format_size(self.kept)
        return f"the store has {free} free, of which {kept} are to stay free (min-free){_others(reserved)}"

    def fill(self) -> Fill:
        """See `Bound`."""
        return Fill("the store's disk", self._total - self.free, self._total, self.kept)


class QuotaBound:
    """The quota of one sender. A `Bound`."""

    kept = 0

    def __init__(self, quota: int, account: Account, arrivals: Callable[[], Iterable[Arrival]]) -> None:
        """`arrivals`: returns the arriving streams of the sender."""
        self._quota = quota
        self._account = account
        self._arrivals = arrivals
        self.sender = account.sender
        self.way_out = f"on the receiver, raise the quota of {self.sender}, or remove old streams of it"
        self.no_more = f"the quota of {self.sender} has no more room for it"
        self.used_by_others = f"other streams of {self.sender} have used its quota"

    @property
    def free(self) -> int:
        """Bytes that are left of the quota."""
        return self._quota - self._account.stored - self._in_part() - self._account.aside

    async def look(self) -> None:
        """See `Bound`."""
        await self._account.look()

    def room_for(self, wanted: RoomRequest) -> int:
        """See `Bound`: what has arrived of the stream may count by its old size, as a partial."""
        return self.free + self._account.partials.get(wanted.key, 0) - wanted.before

    def numbers(self, reserved: int) -> str:
        """See `Bound`."""
        account = self._account
        parts = [f"{format_size(account.stored)} stored"]
        parts += [f"{format_size(size)} in partial streams"] if (size := self._in_part()) else []
        parts += [f"{format_size(account.aside)} set aside"] if account.aside else []
        used = f"{self.sender} has used {format_size(self._quota - self.free)} of its quota of"
        return f"{used} {format_size(self._quota)} ({', '.join(parts)}){_others(reserved)}"

    def fill(self) -> Fill:
        """See `Bound`."""
        return Fill(f"the quota of {self.sender}", self._quota - self.free, self._quota)

    def _in_part(self) -> int:
        return sum(self._account.partials.values()) + sum(each.held for each in self._arrivals())


def _others(reserved: int) -> str:
    return f", and {format_size(reserved)} are reserved for arriving streams" if reserved else ""
