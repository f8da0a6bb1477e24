"""`fullsend prove`: compares stored streams with what `zfs send` gives on this host. Only hashes travel.

    what the receiver has merged, or all streams of a dataset
    -> for each: its snapshot, and its base, by GUID, in the pool
    -> `zfs send` with the flags of the stored stream, hashed here
    -> the receiver compares

A merged full has exactly these bytes. A merged increment may have FREE records more, of what is free already. So where
an increment has other bytes, both sides hash it without these. What is found then is said, and proves nothing: a FREE
that is missing would not show. The state decides: a full `zfs send` is compared with the full that the receiver makes
of the chain. The first comparison and the last one are exact, and only they count.

What `zfs send -p` puts first are the properties of now; it is replaced by what the stored stream has.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from fullsend_protocol.format.manifest import StreamEntry
from fullsend_protocol.shared.errors import (
    ErrorCode,
    FullsendError,
    PeerError,
    RemoteProtocolError,
    StreamError,
    UsageError,
)
from fullsend_protocol.shared.units import printable
from fullsend_protocol.stream.opening import Opening, opening_of
from fullsend_protocol.stream.without_frees import HashWithoutFrees
from fullsend_protocol.wire import messages
from fullsend_sender.transfer.link import DEFAULT_TIMEOUTS, Timeouts, connect
from fullsend_sender.transfer.listing import entries
from fullsend_sender.transfer.pipes import Source
from fullsend_sender.transfer.retry import RetryTimer
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.pools import PoolError, look, while_usable
from fullsend_sender.zfs.selection import pool_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from fullsend_protocol.stream.checksums import Piece
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.zfs.commands import Zfs
    from fullsend_sender.zfs.inventory import Dataset, Snapshot

_log: Final = logging.getLogger("fullsend.prove")

#: Datasets that are listed by one command.
_LISTED: Final = 500
#: Bytes that are read at a time.
_PIECE: Final = 1 << 20
#: Options of `zfs send`, by the letter in a stream's flags. A raw stream shows `c` by itself.
_OPTIONS: Final = {"L": "-L", "e": "-e", "c": "-c", "w": "-w", "p": "-p"}

_T = TypeVar("_T")
_M = TypeVar("_M", bound=messages.ReceiverMessage)

#: "same": byte for byte. "state": it has other bytes, and the state that it restores is the same. "differs": an
#: increment with other bytes, whose state could not be compared. "different": it is not what this host sends.
#: "impossible": this host cannot send it. "failed": it could not be compared.
Result = Literal["same", "state", "differs", "different", "impossible", "failed"]


class OlderReceiver(FullsendError):  # noqa: N818 - reads as what it says
    """The receiver does not know the questions."""


class _NotComparable(Exception):  # noqa: N818 - never leaves this module
    """This host cannot make the same bytes. The message says why."""


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """A stored stream that is to be proven. The fields are those of `merged` and `list`. `package`: it has several
    snapshots.
    """

    dataset: str
    snapshot: str
    guid: str
    base_guid: str | None
    flags: str
    file: str
    package: bool

    @property
    def name(self) -> str:
        return f"{self.dataset}@{self.snapshot}"


@dataclass(frozen=True, slots=True)
class ProofOutcome:
    """What was found of one stream. `why`: with "impossible", "failed" and "differs"; `properties`: the properties of
    the dataset have changed since, and were not compared; `but_for_frees`: of an increment with other bytes, whether
    they are the same without FREE records that may be redundant; None: it is not known.
    """

    copy: StoredCopy
    result: Result
    why: str = ""
    properties: bool = False
    but_for_frees: bool | None = None

    @property
    def is_proven(self) -> bool:
        """Whether the stream restores what this host has."""
        return self.result in {"same", "state"}

    @property
    def is_wrong(self) -> bool:
        """Whether a person should look at it."""
        return self.result in {"differs", "different", "failed"}

    def line(self) -> str:
        """Return the line for a person."""
        copy = self.copy
        match self.result:
            case "same":
                said = "is the same as `zfs send`"
            case "state":
                said = f"restores the same state as `zfs send`; its own bytes {self._bytes}"
            case "differs":
                said = (
                    f"is not proven: its bytes {self._bytes}, as those of a merged increment may, and the state that it"
                    f" restores was not compared: {self.why}"
                )
            case "different":
                said = (
                    f"is DIFFERENT from `zfs send`{', in FREE records' if self.but_for_frees else ''}:"
                    " run `fullsendd verify` at the receiver, and send a new full with"
                    f" `fullsend push --full {copy.dataset}`"
                )
            case "impossible":
                said = f"cannot be proven: {self.why}"
            case "failed":
                said = f"was not compared: {self.why}"
        more = "; its properties (-p) have changed since" if self.properties and self.is_proven else ""
        return printable(f"{copy.name}: {said}{more}")

    @property
    def _bytes(self) -> str:
        """How the bytes of an increment differ."""
        if self.but_for_frees:
            return "are equal but for FREE records"
        return "differ" if self.but_for_frees is None else "differ in more than FREE records"

    def to_dict(self) -> dict[str, Any]:
        """Return what --json prints."""
        copy = self.copy
        return {
            "dataset": copy.dataset,
            "snapshot": copy.snapshot,
            "guid": copy.guid,
            "base_guid": copy.base_guid,
            "file": copy.file,
            "result": self.result,
            "why": self.why or None,
            "properties_changed": self.properties,
            "but_for_frees": self.but_for_frees,
        }


class Prover:
    """Proves streams of one receiver, one after another."""

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Identity,
        zfs: Zfs,
        *,
        retry_for: float,
        without_base: bool = False,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        """`retry_for`: seconds for which a receiver that is lost is waited for. `without_base`: compare the state of an
        increment also where the pool no longer has its base.
        """
        self._endpoint = endpoint
        self._identity = identity
        self._zfs = zfs
        self._retry_for = retry_for
        self._without_base = without_base
        self._timeouts = timeouts
        self._datasets: dict[str, Dataset] = {}
        self._unusable: dict[str, PoolError] = {}

    async def merged(self, *, again: bool = False) -> list[StoredCopy]:
        """Return what the receiver has merged and nobody has proven; `again`: also what was proven before.

        Raises: OlderReceiver, and as Link.receive.
        """
        found: list[StoredCopy] = []
        async with connect(self._endpoint, self._identity, timeouts=self._timeouts) as (link, _name):
            try:
                async for page in link.pages(messages.MergedWanted(dataset=None), messages.MergedStreams):
                    found += [_copy(each) for each in page.streams if again or each.proven is None]
            except PeerError as error:
                raise self._older(error) from None
        return found

    async def stored(self, name: str) -> list[StoredCopy]:
        """Return all stored streams of a dataset, or of a snapshot (DATASET@SNAPSHOT).

        Raises: UsageError if there is none, and as Link.receive.
        """
        dataset, at, snapshot = name.partition("@")
        if not dataset or (at and not snapshot) or "@" in snapshot or "#" in name:
            raise UsageError(f"{name!r} is not DATASET or DATASET@SNAPSHOT")
        async with connect(self._endpoint, self._identity, timeouts=self._timeouts) as (link, _name):
            found = [each async for each in entries(link, dataset) if not at or each.snapshot == snapshot]
        if not found:
            raise UsageError(f"no stream of {printable(name)} is stored, so none was compared (see `fullsend list`)")
        return [_copy(each) for each in found]

    async def prove(self, copies: Sequence[StoredCopy]) -> AsyncIterator[ProofOutcome]:
        """Yield what is found of each stream, which may take as long as a push of it. What is of a pool that cannot be
        used has failed, and delays the others by a minute at most.

        Raises: OlderReceiver, Unreachable, WrongReceiver, PeerError of the receiver as a whole, ZfsError, UsageError
        if the datasets cannot be listed.
        """
        await self._list(sorted({each.dataset for each in copies}))
        for each in copies:
            yield await self._prove(each)

    # --- this host

    async def _list(self, names: Sequence[str]) -> None:
        if not names:
            return
        pools = await look(self._zfs)
        obstacles = {pool: pools.obstacle(pool) for pool in pools.health}
        self._unusable = {pool: error for pool, error in obstacles.items() if error is not None}
        # One unusable pool among the names would fail the listing of all.
        usable = [name for name in names if pool_of(name) not in self._unusable]
        for start in range(0, len(usable), _LISTED):
            part = usable[start : start + _LISTED]
            listing, _unknown = await self._zfs.listing(part, recursive=False)
            datasets = inventory.parse(listing)
            self._datasets |= {name: datasets[name] for name in part if name in datasets}

    def _snapshot(self, copy: StoredCopy) -> Snapshot | None:
        dataset = self._datasets.get(copy.dataset)
        found = () if dataset is None else dataset.snapshots
        return next((each for each in found if each.guid == copy.guid), None)

    def _base(self, copy: StoredCopy) -> str | None:
        """Return the base as `zfs send -i` takes it: a snapshot, else a bookmark; None: the pool does not have it."""
        dataset = self._datasets[copy.dataset]
        for mark, points in (("@", dataset.snapshots), ("#", dataset.bookmarks)):
            for each in points:
                if each.guid == copy.base_guid:
                    return f"{dataset.name}{mark}{each.name}"
        return None

    async def _hash(
        self, arguments: Sequence[str], stored: Opening | None, *, whole: bool = False, without_frees: bool = False
    ) -> tuple[str, bool]:
        """Hash what `zfs send ARGUMENTS` gives. `whole`: which is a full, whatever is stored; `without_frees`: without
        FREE records that may be redundant. Returns: SHA-256 in hex, and whether the properties differ.

        Raises: _NotComparable, ZfsError, StreamError.
        """
        form = HashWithoutFrees("the output of `zfs send`") if without_frees else _AllBytes()
        async with self._zfs.send(*arguments) as send:
            source = Source(send.fd)
            try:
                result = await _in_thread(source, lambda: _hash(source, stored, form, whole=whole))
            except StreamError:
                if source.at_end:
                    await send.succeeded()  # it says why
                raise
            finally:
                source.close()
            await send.succeeded()
            return result

    # --- one stream

    async def _prove(self, copy: StoredCopy) -> ProofOutcome:
        """Compare a stream, as long as its pool can be used. Raises: as `prove`."""
        pool = pool_of(copy.dataset)
        if pool not in self._unusable:
            try:
                return await while_usable(self._zfs, pool, self._kept(copy, lambda: self._compare(copy)))
            except PoolError as error:
                self._unusable[pool] = error
        return ProofOutcome(copy, "failed", str(self._unusable[pool]))

    async def _kept(self, copy: StoredCopy, compare: Callable[[], Awaitable[ProofOutcome]]) -> ProofOutcome:
        """Return what a comparison has found, or what was in its way and is of this stream alone."""
        try:
            return await compare()
        except _NotComparable as error:
            return ProofOutcome(copy, "impossible", str(error))
        except (ZfsError, StreamError) as error:
            return ProofOutcome(copy, "failed", str(error))
        except PeerError as error:
            if error.code not in {ErrorCode.DAMAGED, ErrorCode.SPACE, ErrorCode.STORE, ErrorCode.INTERNAL}:
                raise
            return ProofOutcome(copy, "failed", str(error))

    async def _compare(self, copy: StoredCopy) -> ProofOutcome:
        """Raises: _NotComparable, and as `prove`."""
        if copy.package or "r" in copy.flags:
            raise _NotComparable("it is a package of several snapshots" if copy.package else "it is a redacted stream")
        snapshot = self._snapshot(copy)
        if snapshot is None:
            raise _NotComparable("the pool has no such snapshot")
        target = f"{copy.dataset}@{snapshot.name}"
        base = None if copy.base_guid is None else self._base(copy)
        by_state = copy.base_guid is not None and base is None
        if by_state and not self._without_base:
            raise _NotComparable("the pool no longer has its base; --whole compares the state that it restores")
        stored = await self._opening(copy)
        options = [option for letter, option in _OPTIONS.items() if letter in copy.flags]
        if by_state:
            return await self._compare_state(copy, [*options, target], stored)
        arguments = [*options, *(() if base is None else ("-i", base)), target]
        sha256, properties = await self._hash(arguments, stored)
        outcome = await self._ask_whether_same(copy, sha256, whole=False)
        if outcome.result != "different" or copy.base_guid is None:
            return replace(outcome, properties=properties)
        alike = await self._is_same_but_for_frees(copy, arguments, stored)
        outcome = await self._kept(copy, lambda: self._compare_state(copy, [*options, target], stored))
        if outcome.result in {"impossible", "failed"}:  # that its bytes differ must be said
            outcome = replace(outcome, result="differs")
        return replace(outcome, but_for_frees=alike)

    async def _compare_state(self, copy: StoredCopy, arguments: Sequence[str], stored: Opening | None) -> ProofOutcome:
        """Compare the state that a stream restores with a full. Raises: as `_compare`."""
        sha256, properties = await self._hash(arguments, stored, whole=True)
        return replace(await self._ask_whether_same(copy, sha256, whole=True), properties=properties)

    async def _is_same_but_for_frees(
        self, copy: StoredCopy, arguments: Sequence[str], stored: Opening | None
    ) -> bool | None:
        """Return whether an increment is the same without FREE records that may be redundant; None: the receiver is
        older, or does not know. Raises: ZfsError, StreamError, and as Link.receive.
        """
        try:
            answer = await self._ask(messages.FormWanted(file=copy.file), messages.Form)
        except OlderReceiver:
            return None
        if answer.sha256 is None:
            _log.info("%s: without FREE records: %s", printable(copy.name), printable(answer.why))
            return None
        sha256, _properties = await self._hash(arguments, stored, without_frees=True)
        return sha256 == answer.sha256

    async def _ask_whether_same(self, copy: StoredCopy, sha256: str, *, whole: bool) -> ProofOutcome:
        answer = await self._ask(messages.Prove(file=copy.file, sha256=sha256, whole=whole), messages.Proven)
        match answer.result:
            case "same":
                return ProofOutcome(copy, "state" if whole else "same")
            case "different":
                return ProofOutcome(copy, "different")
            case "gone":
                raise _NotComparable(_GONE)
            case "unknown":
                return ProofOutcome(copy, "failed", answer.why)

    async def _opening(self, copy: StoredCopy) -> Opening | None:
        """Return how the stored stream begins; None: unlike a single snapshot. Raises: _NotComparable."""
        try:
            raw = (await self._ask(messages.HeadWanted(file=copy.file), messages.Head)).raw
        except PeerError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            raise _NotComparable(_GONE) from None
        if raw is None:
            if "p" in copy.flags:
                raise _NotComparable("it has properties (-p), and they are too long to be compared")
            return None
        try:
            return opening_of(copy.file, [base64.b64decode(raw, validate=True)])
        except (StreamError, binascii.Error) as error:
            raise RemoteProtocolError(f"{self._endpoint.name}: a damaged head: {printable(str(error))}") from None

    # --- the receiver

    async def _ask(self, question: messages.Question, kind: type[_M]) -> _M:
        """Ask on a connection of its own: the `zfs send` before it may have taken hours. Raises: OlderReceiver, and as
        Link.receive.
        """
        timer = RetryTimer(self._retry_for)
        while True:
            try:
                async with connect(self._endpoint, self._identity, timeouts=self._timeouts) as (link, _name):
                    return await link.ask(question, kind)
            except PeerError as error:
                failure: FullsendError = self._older(error)
            except FullsendError as error:
                failure = error
            await timer.wait(failure)

    def _older(self, error: PeerError) -> FullsendError:
        """Return the error for a receiver that does not know a question; any other error unchanged."""
        if error.code is not ErrorCode.PROTOCOL:
            return error
        _log.info("%s", printable(str(error)))
        return OlderReceiver(
            f"{self._endpoint.name} is older and cannot compare what it stores with `zfs send`: update fullsendd there"
        )


_GONE: Final = "the receiver has merged it, or pruned it, meanwhile"


def _copy(entry: messages.MergedEntry | StreamEntry) -> StoredCopy:
    return StoredCopy(
        dataset=entry.dataset,
        snapshot=entry.snapshot,
        guid=entry.guid,
        base_guid=entry.base_guid,
        flags=entry.flags,
        file=entry.file,
        package=isinstance(entry, StreamEntry) and entry.kind == "package",
    )


class _AllBytes:
    """The SHA-256 of all bytes of a stream."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def feed(self, data: Piece) -> None:
        self._hash.update(data)

    def finish(self) -> str:
        return self._hash.hexdigest()


def _hash(
    source: Source, stored: Opening | None, form: _AllBytes | HashWithoutFrees, *, whole: bool
) -> tuple[str, bool]:
    """Hash a stream to its end, with the properties of the stored one. Blocks. Returns, raises: as Prover._hash."""
    view = memoryview(bytearray(_PIECE))
    other_properties = False
    if stored is not None:
        seen: list[bytes] = []

        def pieces() -> Iterator[bytes]:
            while count := source.readinto(view):
                seen.append(bytes(view[:count]))
                yield seen[-1]

        own = opening_of("the output of `zfs send`", pieces())
        why = stored.obstacle(own, whole=whole)
        if why is not None:
            raise _NotComparable(why)
        other_properties = stored.package != own.package
        form.feed(stored.package)
        form.feed(b"".join(seen)[len(own.package) :])
    while count := source.readinto(view):
        form.feed(view[:count])
    return form.finish(), other_properties


async def _in_thread(source: Source, work: Callable[[], _T]) -> _T:
    """Call `work`, which reads the source, in a thread. A cancellation stops both."""
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as thread:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        finally:
            source.stop()
