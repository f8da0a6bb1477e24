"""One send stream to a receiver, whatever becomes of the wire meanwhile; nothing is believed but its receipt.

    producer -> Pipeline -> Window -> Link
                  |  hashes, compresses; its Segments are the proof of all that was sent
                            |  keeps what is not acknowledged, to be sent again over the next connection

The three ways to go on (design section 7): a connection that was lost is made again, and the stream goes on where the
receiver's durable bytes end (reconnect); what an earlier run has sent is compared while the stream is sent anew
(replay); or `zfs send -t` makes only the rest (token).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError, StreamError, Unreachable
from fullsend_protocol.shared.units import format_duration, format_size
from fullsend_protocol.wire import messages
from fullsend_sender.host.options import RETRY_FOR, Endpoint
from fullsend_sender.transfer.link import PATIENCE, TEXT_MAX, Link, Timeouts, connect
from fullsend_sender.transfer.pipeline import Pipeline, Skipped
from fullsend_sender.transfer.pipes import Source
from fullsend_sender.transfer.retry import Patience, passes
from fullsend_sender.transfer.segments import CannotResume, OtherBytes, Ready
from fullsend_sender.transfer.window import Window
from fullsend_sender.zfs.commands import ZfsError
from fullsend_transport.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from fullsend_protocol.format.manifest import Receipt, Resume
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.transfer.progress import Progress

_log: Final = logging.getLogger("fullsend.transfer")


class ReceiptMismatch(FullsendError):  # noqa: N818 - reads as what it says
    """The receiver's receipt is for something else than what we sent."""


class NoFurther(ZfsError):  # noqa: N818 - reads as what it says
    """`zfs send` cannot read a block, and came no further than an earlier run: the receiver has thrown away what had
    arrived, since it would fail again. `at_once`: a token was used, so nothing before the block was read again.
    """

    at_once = False


@dataclass(frozen=True, slots=True)
class Options:
    """How to push. `bwlimit`: bytes a second on the wire; `retry_for`: seconds that the receiver may stay away."""

    level: int
    threads: int | None = None
    bwlimit: int | None = None
    retry_for: float = RETRY_FOR
    timeouts: Timeouts = PATIENCE


async def _no_last_word() -> None:
    pass


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a stream besides its bytes.

    `size`: raw bytes that the receiver is to expect; `properties`: the dataset's own; `single`: it brings one snapshot,
    also where it is compound (-p), so its first BEGIN records tell all; `keep_orphan`: it is wanted even where its base
    is not stored; `claim`: who may take the stream over, 16 hex digits; `resume`: how to resume what has arrived of it
    before; `reached`: the receiver was there a moment ago, so where it is not there now, it is waited for;
    `arrived`: raw bytes that earlier runs have sent of it; `ended`: waits for the stream's producer to end, and raises
    ZfsError where it failed.
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


@dataclass(frozen=True, slots=True)
class Pushed:
    """A stream that is stored. `wire_bytes`: what this run put on the wire as chunks, 0 where it was stored before;
    `resumed_at`: the raw offset at which this run went on; `again`: it was stored before, as showed only at its end.
    """

    receipt: Receipt
    wire_bytes: int
    seconds: float
    resume: Resume = "none"
    resumed_at: int = 0
    again: bool = False

    def line(self) -> str:
        """Say it to a person."""
        receipt = self.receipt
        name = f"{receipt.dataset}@{receipt.snapshot} ({receipt.kind})"
        if self.again:
            return f"{name} is stored already, as its end has shown; what was sent is thrown away"
        if not self.wire_bytes and self.resume == "none":
            return f"{name} is stored already; nothing was sent"
        sizes = f"{format_size(receipt.raw_bytes)} stored as {format_size(receipt.stored_bytes)}"
        went_on = "" if self.resume == "none" else f", gone on at {format_size(self.resumed_at)} ({self.resume})"
        return f"{name}: {sizes} in {format_duration(self.seconds)}{went_on}"

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of one pushed stream (design section 4)."""
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
            "receipt": receipt.model_dump(mode="json", by_alias=True),
        }


@dataclass(frozen=True, slots=True)
class Offer:
    """What a stream is, as far as it is known before its end; None: a package, whose end tells."""

    dataset: str
    snapshot: str
    guid: str | None
    base_guid: str | None
    flags: str | None


async def transfer(
    fd: int, endpoint: Endpoint, identity: Identity, options: Options, *, about: About, progress: Progress
) -> Pushed | Receipt:
    """Push the send stream that comes out of the descriptor `fd`, read from its first byte to its end.

    Nothing is sent before the stream's first chunk has shown what it is, so that garbage never reaches the receiver.

    Returns: what was pushed; a receipt alone where the stream is stored already: then nothing was sent, and `fd` has
    not been read to its end.

    Raises: StreamError, ZfsError (the receiver was told, and keeps what arrived as a partial), OtherBytes (replayed,
    and not the same: the receiver has thrown away what had arrived), CannotResume, Unreachable, PeerError,
    WrongReceiver, ReceiptMismatch, RemoteProtocolError, UsageError.
    """
    async with Pipeline(Source(fd), level=options.level, threads=options.threads) as pipeline:
        async with _producer_first(pipeline, about):
            opened = await pipeline.opened()
        facts = opened.facts
        # Of a compound stream the last substream decides, which comes at its end.
        known = about.single or not opened.compound
        offer = Offer(
            dataset=facts.dataset,
            snapshot=facts.snapshot,
            guid=str(facts.guid) if known else None,
            base_guid=str(facts.base_guid) if known and facts.base_guid is not None else None,
            flags=facts.flags if known else None,
        )

        async def same(accept: messages.Accept) -> Pipeline:
            pipeline.proceed(accept.segments)
            return pipeline

        return await Transfer(endpoint, identity, options, about, offer, begin=same, progress=progress).run()


class Transfer:
    """One stream on its way, over as many connections as it takes."""

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Identity,
        options: Options,
        about: About,
        offer: Offer,
        *,
        begin: Callable[[messages.Accept], Awaitable[Pipeline]],
        progress: Progress,
    ) -> None:
        """`begin`: called with the receiver's first `accept`, returns what makes the chunks behind it."""
        self._endpoint = endpoint
        self._identity = identity
        self._options = options
        self._about = about
        self._offer = offer
        self._begin = begin
        self._progress = progress
        self._throttle = Throttle(options.bwlimit) if options.bwlimit else None
        self._patience = Patience(options.retry_for)
        self._window = Window()
        self._pipeline: Pipeline | None = None
        self._finished = False  # all has been sent at least once, and its producer has ended well
        self._arrived = 0  # where the last chunk ends that was made
        self._started = time.monotonic()
        self._wire = 0
        self._resume: Resume = "none"
        self._resumed_at = 0

    async def run(self) -> Pushed | Receipt:
        """Send the stream, and take its receipt. Returns, raises: as `transfer`."""
        while True:
            try:
                async with connect(
                    self._endpoint, self._identity, timeouts=self._options.timeouts, throttle=self._throttle
                ) as (link, _name):
                    return await self._converse(link)
            except FullsendError as error:
                await self._lost(error)

    async def _lost(self, error: FullsendError) -> None:
        """Wait before the next connection. Raises: `error`, where there is to be none."""
        if self._pipeline is None and not self._about.reached:
            raise error
        if not self._patience.lost and passes(error):
            _log.info("%s; trying again for up to %s", error, format_duration(self._options.retry_for))
        self._progress.waiting = True
        await self._patience.wait(error)

    async def _converse(self, link: Link) -> Pushed | Receipt:
        """Offer the stream over a new connection, and send what is left of it."""
        await link.send(self._push())
        again = False
        match await link.receive():
            case messages.Accept() as accept:
                try:
                    await self._accepted(accept)
                except (StreamError, ZfsError) as error:  # it cannot be gone on with in this way
                    await link.send(messages.Stop(reason=str(error)[:TEXT_MAX], keep=True))
                    raise
                receipt, again = await self._send_and_prove(link)
            case messages.Stored(receipt=receipt):
                if not self._finished:
                    offer = self._offer
                    _check_stored(receipt, offer.guid, offer.base_guid, offer.flags)
                    return receipt
                self._check_receipt(receipt)
            case other:
                raise link.unexpected(other)
        seconds = time.monotonic() - self._started
        return Pushed(receipt, self._wire, seconds, self._resume, self._resumed_at, again)

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
        """Resume where the receiver wants it. Raises: CannotResume, and as `begin`."""
        self._progress.waiting = False
        self._patience.met()
        if self._pipeline is None:
            if accept.offset and self._about.resume == "none":
                raise CannotResume(f"the receiver goes on at {accept.offset}, though it was told to start over")
            how: Resume = self._about.resume
            self._pipeline = await self._begin(accept)
        else:
            self._pipeline.segments.resume(accept.offset, accept.segments)
            self._window.acknowledge(accept.offset)
            how = "reconnect"
        if accept.offset or how == "reconnect":
            _log.info("%s@%s: goes on at %d (%s)", self._offer.dataset, self._offer.snapshot, accept.offset, how)
            if self._resume in {"none", "reconnect"}:
                self._resume, self._resumed_at = how, accept.offset

    async def _send_and_prove(self, link: Link) -> tuple[Receipt, bool]:
        """Send all chunks that are left, and take the receipt. Returns: it, and whether the stream was stored before.

        Raises: as `transfer`.
        """
        # Two tasks, because acknowledgements and refusals come while chunks go; neither outlives this call.
        sending = asyncio.create_task(self._send_all(link), name="send")
        answer = asyncio.create_task(self._take_acks(link), name="acknowledgements")
        try:
            await asyncio.wait([sending, answer], return_when=asyncio.FIRST_COMPLETED)
            failure = sending.exception() if sending.done() else None
            if isinstance(failure, StreamError | ZfsError):
                # It has been told to stop, and makes what arrived durable; whatever it answers, this is our error.
                with contextlib.suppress(FullsendError):
                    await answer
                raise failure
            if failure is not None:
                # The connection ended while we were sending. If the receiver said why, that is the better error.
                with contextlib.suppress(TimeoutError, Unreachable):
                    async with asyncio.timeout(self._options.timeouts.linger):
                        await answer
                raise failure
            if not sending.done():
                # The receiver's last word came first: a refusal, as nothing else is legal while chunks flow.
                raise link.unexpected(await answer)
            committed = await answer
        finally:
            for task in (sending, answer):
                task.cancel()
            await asyncio.gather(sending, answer, return_exceptions=True)
        if isinstance(committed, messages.Stored):
            assert self._pipeline is not None  # noqa: S101 - for mypy: it has come to its end
            facts = self._pipeline.verdict.facts
            _check_stored(committed.receipt, str(facts.guid), _text(facts.base_guid), facts.flags)
            return committed.receipt, True
        if not isinstance(committed, messages.Committed):
            raise link.unexpected(committed)
        self._check_receipt(committed.receipt)
        return committed.receipt, False

    async def _send_all(self, link: Link) -> None:
        """Send what is left, then `finish`; or `stop` where the stream is at fault, or its producer."""
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
                    await self._window.keep(item)
                    await self._send(link, pipeline, item)
            # Before `finish`: a stream may look whole to us, and its `zfs send` know better.
            await self._about.ended()
        except (StreamError, ZfsError) as error:
            failure = self._judge(error)
            keep = not isinstance(failure, OtherBytes | NoFurther)
            await link.send(messages.Stop(reason=str(error)[:TEXT_MAX], keep=keep))
            raise failure from error
        self._finished = True
        await link.send(messages.Finish(raw_bytes=pipeline.verdict.raw_bytes, segments=pipeline.segments.proof))

    def _judge(self, error: StreamError | ZfsError) -> StreamError | ZfsError:
        """Return the producer's error: NoFurther where a later run would fail in the same way."""
        arrived, about = self._arrived, self._about
        if not (isinstance(error, ZfsError) and error.unreadable and about.arrived) or arrived > about.arrived:
            return error
        no_further = NoFurther(str(error), error.complaint)
        no_further.at_once = about.resume == "token"
        return no_further

    async def _send(self, link: Link, pipeline: Pipeline, ready: Ready) -> None:
        wire = await link.send_chunk(await pipeline.segments.to_send(ready))
        self._wire += wire
        self._progress.add(0, wire)

    async def _take_acks(self, link: Link) -> object:
        """Take acknowledgements. Returns: the first event that is none. Raises: as Link.receive."""
        assert self._pipeline is not None  # noqa: S101 - for mypy: `_accepted` has made one
        while True:
            event = await link.receive()
            if not isinstance(event, messages.Ack):
                return event
            self._window.acknowledge(event.offset)
            self._pipeline.segments.acknowledge(event.offset)
            self._patience.recovered()

    def _check_receipt(self, receipt: Receipt) -> None:
        """Hold the receipt against what we sent. Raises: ReceiptMismatch."""
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
async def _producer_first(pipeline: Pipeline, about: About) -> AsyncGenerator[None]:
    """Where a stream ends too early, let its producer's error be the one: it says why."""
    try:
        yield
    except StreamError:
        if pipeline.at_end:
            await about.ended()
        raise


def _check_stored(receipt: Receipt, guid: str | None, base_guid: str | None, flags: str | None) -> None:
    """Hold the receipt of a stream that was stored before against what this one is. Raises: ReceiptMismatch."""
    _compare(receipt, {"guid": guid, "base_guid": base_guid, "flags": flags})


def _compare(receipt: Receipt, expected: Mapping[str, object]) -> None:
    for name, value in expected.items():
        found = getattr(receipt, name)
        if found != value:
            raise ReceiptMismatch(f"the receiver's receipt says {name} {found!r}, ours is {value!r}: do not rely on it")


def _text(guid: int | None) -> str | None:
    return None if guid is None else str(guid)
