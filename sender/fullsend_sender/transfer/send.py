"""Sends one stream to a receiver, over as many connections as needed. Only the receiver's receipt counts as success.

    producer -> Pipeline -> Window -> Link
                  |  hashes, compresses; its Segments are the proof of all that was sent
                            |  keeps what is not acknowledged, to be sent again over the next connection

There are three ways to resume. Reconnect: a lost connection is made again, and the stream resumes where the receiver's
durable bytes end. Replay: the whole stream is made again, and what an earlier run has sent is compared. Token: `zfs
send
-t` makes only the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError, StreamError, Unreachable
from fullsend_protocol.shared.stages import StageWaits, longest
from fullsend_protocol.shared.units import format_duration, format_size
from fullsend_protocol.wire import messages
from fullsend_sender.host.options import LEVEL_AUTO, RETRY_FOR, Endpoint, LevelSetting
from fullsend_sender.transfer.connections import Connections
from fullsend_sender.transfer.link import DEFAULT_TIMEOUTS, TEXT_MAX, Link, Timeouts
from fullsend_sender.transfer.pipeline import Pipeline, Skipped
from fullsend_sender.transfer.pipes import Source
from fullsend_sender.transfer.retry import RetryTimer, is_transient
from fullsend_sender.transfer.segments import CannotResume, DifferentBytes, Ready
from fullsend_sender.transfer.window import Window
from fullsend_sender.zfs.commands import ZfsError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from fullsend_cli.progress import Progress
    from fullsend_protocol.format.manifest import Receipt, Resume
    from fullsend_protocol.stream.chunks import Level
    from fullsend_sender.host.identity import Identity
    from fullsend_transport.throttle import Throttle

_log: Final = logging.getLogger("fullsend.transfer")


class ReceiptMismatch(FullsendError):  # noqa: N818 - reads as what it says
    """The receiver's receipt is not for the stream that was sent."""


class NoProgress(ZfsError):  # noqa: N818 - reads as what it says
    """`zfs send` cannot read a block, and made no more progress than an earlier run. The receiver has deleted what had
    arrived, because it would fail again. `at_once`: a token was used, so nothing before the block was read again.
    """

    at_once = False


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """Options of a transfer. `throttle`: the limit of all transfers that have it, None: there is none; `retry_for`:
    seconds to wait for the receiver; `connections`: those that other transfers of this run have left open, and where
    this one leaves its own.
    """

    level: LevelSetting = LEVEL_AUTO
    threads: int | None = None
    throttle: Throttle | None = None
    retry_for: float = RETRY_FOR
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    connections: Connections | None = None


async def _no_last_word() -> None:
    pass


def _nothing_follows(_link: Link) -> None:
    pass


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What is known of a stream besides its bytes.

    `size`: raw bytes for the receiver to expect; `properties`: the dataset's own; `single`: it has one snapshot, also
    if it is compound (-p), so its first BEGIN records are sufficient; `keep_orphan`: store it even if its base is not
    stored; `claim`: 16 hex digits, with which a later connection takes the stream over; `resume`: how to resume a
    partial; `reached`: the receiver answered a moment ago, so wait for it if it is away now; `arrived`: raw bytes that
    earlier runs have sent of it; `ended`: waits for the stream's producer to end, and raises ZfsError if it failed;
    `sent`: called with the connection when all was sent on it, and the receipt is what is left.
    """

    size: int | None = None
    zfs_version: str | None = None
    properties: dict[str, str] | None = None
    single: bool = False
    keep_orphan: bool = False
    claim: str = "0" * 16
    resume: Resume = "none"
    reached: bool = False
    arrived: int = 0
    ended: Callable[[], Awaitable[None]] = _no_last_word
    sent: Callable[[Link], None] = _nothing_follows


@dataclass(frozen=True, slots=True)
class Pushed:
    """A stored stream. `wire_bytes`: bytes of chunks that this run put on the wire, 0 if the stream was stored before;
    `resumed_at`: the raw offset at which this run resumed; `again`: it was stored before, which only its end has shown;
    `repair`: what is damaged at the receiver, if that is why this stream was sent, or if this one took its place;
    `waited`: seconds that this run waited for each stage; `levels`: how many chunks it compressed with each level.
    """

    receipt: Receipt
    wire_bytes: int
    seconds: float
    resume: Resume = "none"
    resumed_at: int = 0
    again: bool = False
    repair: str | None = None
    waited: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[Level, int] = field(default_factory=dict)

    def orphan(self, way_out: str) -> FullsendError | None:
        """Return the error for a stream that is stored and cannot be restored; None: it can. `way_out`: what to do."""
        receipt = self.receipt
        if receipt.restorable:
            return None
        base = f"guid {receipt.base_guid}" if receipt.base_guid else "its base"
        return FullsendError(
            f"{receipt.dataset}@{receipt.snapshot} was kept, but cannot be restored: a stream that it builds on is not"
            f" stored, or damaged ({base}); {way_out}"
        )

    def line(self) -> str:
        """Return the line for a person."""
        receipt = self.receipt
        name = f"{receipt.dataset}@{receipt.snapshot} ({receipt.kind})"
        if self.again:
            return f"{name} is stored already, as its end has shown; what was sent is deleted"
        if not self.wire_bytes and self.resume == "none":
            return f"{name} is stored already; nothing was sent"
        sizes = f"{format_size(receipt.raw_bytes)} stored as {format_size(receipt.stored_bytes)}"
        resumed = "" if self.resume == "none" else f", resumed at {format_size(self.resumed_at)} ({self.resume})"
        repair = f"; {self.repair}" if self.repair else ""
        return f"{name}: {sizes} in {format_duration(self.seconds)}{resumed}{repair}"

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of one pushed stream (`push --json`)."""
        receipt = self.receipt
        return {
            "dataset": receipt.dataset,
            "snapshot": receipt.snapshot,
            "guid": receipt.guid,
            "kind": receipt.kind,
            "flags": receipt.flags,
            "base": receipt.base,
            "base_guid": receipt.base_guid,
            "raw_bytes": receipt.raw_bytes,
            "wire_bytes": self.wire_bytes,
            "stored_bytes": receipt.stored_bytes,
            "seconds": round(self.seconds, 3),
            "sha256": receipt.sha256,
            "resume": self.resume,
            "resumed_at": self.resumed_at,
            "repair": self.repair,
            "limit": longest(self.waited),
            "waited": {stage: round(seconds, 3) for stage, seconds in self.waited.items()},
            "levels": {str(level): chunks for level, chunks in self.levels.items()},
            "receipt": receipt.model_dump(mode="json", by_alias=True),
        }


@dataclass(frozen=True, slots=True)
class StreamAnnouncement:
    """The identity of a stream before its end; None: a package, whose end shows it."""

    dataset: str
    snapshot: str
    guid: str | None
    base_guid: str | None
    flags: str | None


async def transfer(
    fd: int,
    endpoint: Endpoint,
    identity: Identity,
    options: TransferOptions,
    *,
    about: StreamContext,
    progress: Progress,
) -> Pushed | Receipt:
    """Push the send stream from the descriptor `fd`, read from its first byte to its end.

    Nothing is sent before the first chunk has shown the stream's identity, so that garbage never reaches the receiver.

    Returns: what was pushed; a receipt alone if the stream is stored already: then nothing was sent, and `fd` was not
    read to its end.

    Raises: StreamError, ZfsError (the receiver keeps what arrived as a partial), DifferentBytes (replayed, and not the
    same: the receiver has deleted what had arrived), CannotResume, Unreachable, PeerError, WrongReceiver,
    ReceiptMismatch, RemoteProtocolError, UsageError.
    """
    async with opened(fd, endpoint, identity, options, about=about, progress=progress) as ready:
        return await ready.run()


@contextlib.asynccontextmanager
async def opened(
    fd: int,
    endpoint: Endpoint,
    identity: Identity,
    options: TransferOptions,
    *,
    about: StreamContext,
    progress: Progress,
) -> AsyncGenerator[Transfer]:
    """Read the first chunk of the send stream from the descriptor `fd`. Yields: the stream's transfer, which has not
    begun. Raises: StreamError, ZfsError.
    """
    waits = progress.waits
    async with Pipeline(Source(fd), level=options.level, threads=options.threads, waits=waits) as pipeline:
        async with _producer_first(pipeline, about):
            start = await pipeline.opened()
        facts = start.facts
        progress.stream = f"{facts.dataset}@{facts.snapshot}"
        # The last substream of a compound stream decides, and it comes at the end.
        known = about.single or not start.compound
        offer = StreamAnnouncement(
            dataset=facts.dataset,
            snapshot=facts.snapshot,
            guid=str(facts.guid) if known else None,
            base_guid=str(facts.base_guid) if known and facts.base_guid is not None else None,
            flags=facts.flags if known else None,
        )

        async def same(accept: messages.Accept) -> Pipeline:
            pipeline.proceed(accept.segments)
            return pipeline

        yield Transfer(endpoint, identity, options, about, offer, begin=same, progress=progress)


class Transfer:
    """One stream, over as many connections as needed."""

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Identity,
        options: TransferOptions,
        about: StreamContext,
        offer: StreamAnnouncement,
        *,
        begin: Callable[[messages.Accept], Awaitable[Pipeline]],
        progress: Progress,
    ) -> None:
        """`begin`: called with the receiver's first `accept`; returns the pipeline of the chunks behind it."""
        self._endpoint = endpoint
        self._identity = identity
        self._options = options
        self._about = about
        self._offer = offer
        self._begin = begin
        self._progress = progress
        self._waits = progress.waits or StageWaits("source", "receiver")
        self._retry_timer = RetryTimer(options.retry_for)
        self._window = Window()
        self._pipeline: Pipeline | None = None
        self._ahead: Link | None = None  # the stream is offered there, behind the one before it
        self._answered = False  # the receiver has answered the offer on the present connection
        self._reached = False  # there was a connection
        self._finished = False  # all was sent at least once, and its producer has succeeded
        self._arrived = 0  # raw offset of the end of the last chunk that was made
        self._started = time.monotonic()
        self._wire = 0
        self._resume: Resume = "none"
        self._resumed_at = 0

    async def offer_ahead(self, link: Link, finished: int) -> None:
        """Offer the stream on a connection on which the one before it waits for its receipt, if that is permitted. The
        answer is `run`'s. That it cannot be sent is no error: then `run` offers the stream again.

        `finished`: of the connection, when the one before had been sent. Where it is more now, that one has its
        receipt, and another job uses the connection.
        """
        if link.takes_offer and link.finished == finished:
            self._ahead = link
            with contextlib.suppress(Unreachable):
                await link.send(self._push())

    async def withdraw(self) -> None:
        """End the connection on which the stream is offered, if `run` has not begun. Raises nothing."""
        link, self._ahead = self._ahead, None
        if link is not None and self._options.connections is not None:
            await self._options.connections.withdraw(link)

    async def run(self) -> Pushed | Receipt:
        """Send the stream, and return the result. Returns, raises: as `transfer`."""
        self._started = time.monotonic()
        if self._options.connections is not None:
            return await self._run(self._options.connections)
        async with Connections() as own:
            return await self._run(own)

    async def _run(self, connections: Connections) -> Pushed | Receipt:
        timeouts = self._options.timeouts
        while True:
            used = self._answered = False
            ahead, self._ahead = self._ahead, None
            try:
                async with connections.connect(
                    self._endpoint, self._identity, timeouts=timeouts, throttle=self._options.throttle, offered=ahead
                ) as (link, used):
                    self._reached = True
                    return await self._converse(link, offered=link is ahead)
            except FullsendError as error:
                # A connection may have been lost since the last stream, which says nothing about a new one.
                if not (used and not self._answered and is_transient(error)):
                    await self._lost(error)

    async def _lost(self, error: FullsendError) -> None:
        """Wait before the next connection. Raises: `error`, if there is to be none."""
        # Of a receiver that was never reached, the name or the address may be wrong. One that refuses says why.
        waits = self._about.reached or (self._reached and isinstance(error, Unreachable))
        if self._pipeline is None and not waits:
            raise error
        if not self._retry_timer.lost and is_transient(error):
            _log.info("%s; retrying for up to %s", error, format_duration(self._options.retry_for))
        self._progress.waiting = True
        self._waits.behind("receiver")
        await self._retry_timer.wait(error)

    async def _converse(self, link: Link, *, offered: bool) -> Pushed | Receipt:
        """Offer the stream over a connection, unless it is `offered` there already, and send what is left of it."""
        # Where bytes wait because the receiver does not read, the wire is not what limits.
        self._waits.split("wire", "receiver", link.held_back)
        if not offered:
            await link.send(self._push())
        again, repair = False, None
        answer = await link.receive()
        self._answered = True
        match answer:
            case messages.Accept() as accept:
                try:
                    await self._accepted(accept)
                except (StreamError, ZfsError) as error:  # it cannot be resumed in this way
                    await link.send(messages.Stop(reason=str(error)[:TEXT_MAX], keep=True))
                    raise
                receipt, again, repair = await self._send_and_prove(link)
            case messages.Stored(receipt=receipt):
                if not self._finished:
                    _check_stored(receipt, self._offer)
                    return receipt
                self._check_receipt(receipt)
            case other:
                raise link.unexpected(other)
        seconds = time.monotonic() - self._started
        waited = self._waits.seconds()
        levels = {} if self._pipeline is None else self._pipeline.levels
        return Pushed(receipt, self._wire, seconds, self._resume, self._resumed_at, again, repair, waited, levels)

    def _push(self) -> messages.Push:
        offer, about = self._offer, self._about
        whole = None
        if self._finished and self._pipeline is not None:
            verdict = self._pipeline.verdict
            facts = verdict.facts
            whole = messages.Whole(
                guid=str(facts.guid), base_guid=_text(facts.base_guid), flags=facts.flags, raw_bytes=verdict.raw_bytes
            )
        return messages.Push(
            dataset=offer.dataset,
            snapshot=offer.snapshot,
            guid=offer.guid,
            base_guid=offer.base_guid,
            flags=offer.flags,
            size_estimate=about.size,
            zfs_version=about.zfs_version,
            properties=about.properties,
            keep_orphan=about.keep_orphan,
            claim=about.claim,
            resume=about.resume if self._pipeline is None else "reconnect",
            whole=whole,
        )

    async def _accepted(self, accept: messages.Accept) -> None:
        """Resume where the receiver says. Raises: CannotResume, and as `begin`."""
        self._progress.waiting = False
        self._retry_timer.reconnected()
        if self._pipeline is None:
            if accept.offset and self._about.resume == "none":
                raise CannotResume(f"the receiver resumes at {accept.offset}, though it was told to start over")
            how: Resume = self._about.resume
            self._pipeline = await self._begin(accept)
        else:
            self._pipeline.segments.resume(accept.offset, accept.segments)
            self._window.acknowledge(accept.offset)
            how = "reconnect"
        if accept.offset or how == "reconnect":
            _log.info("%s@%s: resumes at %d (%s)", self._offer.dataset, self._offer.snapshot, accept.offset, how)
            if self._resume in {"none", "reconnect"}:
                self._resume, self._resumed_at = how, accept.offset

    async def _send_and_prove(self, link: Link) -> tuple[Receipt, bool, str | None]:
        """Send all chunks that are left, and take the receipt. Returns: it, whether the stream was stored before, and
        what it replaces.

        Raises: as `transfer`.
        """
        # Two tasks, because acknowledgements and refusals arrive while chunks are sent; neither outlives this call.
        sending = asyncio.create_task(self._send_all(link), name="send")
        answer = asyncio.create_task(self._take_acks(link), name="acknowledgements")
        try:
            await asyncio.wait([sending, answer], return_when=asyncio.FIRST_COMPLETED)
            failure = sending.exception() if sending.done() else None
            if isinstance(failure, StreamError | ZfsError):
                # `stop` was sent, and the receiver makes durable what arrived. Whatever it answers, this is the error.
                with contextlib.suppress(FullsendError):
                    await answer
                raise failure
            if failure is not None:
                # The connection ended during the sending. If the receiver has sent a reason, that is the better error.
                with contextlib.suppress(TimeoutError, Unreachable):
                    async with asyncio.timeout(self._options.timeouts.linger):
                        await answer
                raise failure
            if not sending.done():
                # The receiver's last message came first: a refusal, because nothing else is legal while chunks flow.
                raise link.unexpected(await answer)
            committed = await answer
        finally:
            for task in (sending, answer):
                task.cancel()
            await asyncio.gather(sending, answer, return_exceptions=True)
        if isinstance(committed, messages.Stored):
            assert self._pipeline is not None  # noqa: S101 - for mypy: it has come to its end
            facts = self._pipeline.verdict.facts
            _check_stored(
                committed.receipt,
                StreamAnnouncement(facts.dataset, facts.snapshot, str(facts.guid), _text(facts.base_guid), facts.flags),
            )
            return committed.receipt, True, None
        if not isinstance(committed, messages.Committed):
            raise link.unexpected(committed)
        self._check_receipt(committed.receipt)
        replaced = committed.replaced
        repair = None if replaced is None else f"it replaces the receiver's copy, which was {replaced}"
        return committed.receipt, False, repair

    async def _send_all(self, link: Link) -> None:
        """Send what is left, then `finish`; or `stop` if the stream is at fault, or its producer."""
        pipeline = self._pipeline
        assert pipeline is not None  # noqa: S101 - for mypy: `_accepted` has made one
        try:
            for ready in self._window.unacknowledged:
                await self._send(link, pipeline, ready)
            async with _producer_first(pipeline, self._about):
                async for item in pipeline:
                    if isinstance(item, Skipped):
                        self._progress.add(item.raw_length, 0)
                        continue
                    self._arrived = item.chunk.raw_offset + item.chunk.raw_length
                    self._progress.add(item.chunk.raw_length, 0)
                    self._waits.behind("receiver")
                    await self._window.keep(item)
                    await self._send(link, pipeline, item)
            # Before `finish`: a stream may look whole, and its `zfs send` may have failed.
            await self._about.ended()
        except (StreamError, ZfsError) as error:
            failure = self._judge(error)
            keep = not isinstance(failure, DifferentBytes | NoProgress)
            await link.send(messages.Stop(reason=str(error)[:TEXT_MAX], keep=keep))
            raise failure from error
        self._finished = True
        self._waits.behind("receiver")
        await link.send(messages.Finish(raw_bytes=pipeline.verdict.raw_bytes, segments=pipeline.segments.proof))
        self._about.sent(link)

    def _judge(self, error: StreamError | ZfsError) -> StreamError | ZfsError:
        """Return the producer's error: NoProgress if a later run would fail in the same way."""
        arrived, about = self._arrived, self._about
        if not (isinstance(error, ZfsError) and error.unreadable and about.arrived) or arrived > about.arrived:
            return error
        no_further = NoProgress(str(error), error.complaint)
        no_further.at_once = about.resume == "token"
        return no_further

    async def _send(self, link: Link, pipeline: Pipeline, ready: Ready) -> None:
        self._waits.behind("wire")
        wire = await link.send_chunk(await pipeline.segments.to_send(ready))
        self._wire += wire
        self._progress.add(0, wire)

    async def _take_acks(self, link: Link) -> object:
        """Take acknowledgements. Returns: the first event that is not one. Raises: as Link.receive."""
        assert self._pipeline is not None  # noqa: S101 - for mypy: `_accepted` has made one
        while True:
            event = await link.receive()
            if not isinstance(event, messages.Ack):
                return event
            self._window.acknowledge(event.offset)
            self._pipeline.segments.acknowledge(event.offset)
            self._retry_timer.progressed()

    def _check_receipt(self, receipt: Receipt) -> None:
        """Compare the receipt with what was sent. Raises: ReceiptMismatch."""
        assert self._pipeline is not None  # noqa: S101 - for mypy: it has come to its end
        verdict, segments = self._pipeline.verdict, self._pipeline.segments.proof
        facts = verdict.facts
        expected = {
            "dataset": facts.dataset,
            "snapshot": facts.snapshot,
            "guid": str(facts.guid),
            "base_guid": _text(facts.base_guid),
            "kind": facts.kind,
            "flags": facts.flags,
            "raw_bytes": verdict.raw_bytes,
            "segments": segments,
        }
        if len(segments) == 1:
            expected["sha256"] = segments[0].sha256
        _compare(receipt, expected)


@contextlib.asynccontextmanager
async def _producer_first(pipeline: Pipeline, about: StreamContext) -> AsyncGenerator[None]:
    """If a stream ends too early, raise its producer's error instead: it says why."""
    try:
        yield
    except StreamError:
        if pipeline.at_end:
            await about.ended()
        raise


def _check_stored(receipt: Receipt, stream: StreamAnnouncement) -> None:
    """Compare the receipt of a stream that was stored before with this one. GUIDs alone do not tell: a replica has the
    same. Raises: ReceiptMismatch.
    """
    _compare(receipt, asdict(stream))


def _compare(receipt: Receipt, expected: Mapping[str, object]) -> None:
    for name, value in expected.items():
        found = getattr(receipt, name)
        if found != value:
            raise ReceiptMismatch(f"the receiver's receipt has {name} {found!r}, expected {value!r}: do not rely on it")


def _text(guid: int | None) -> str | None:
    return None if guid is None else str(guid)
