"""One send stream from a pipe to a receiver; nothing is believed but its receipt."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fullsend_protocol import messages
from fullsend_protocol.errors import FullsendError, StreamError, Unreachable
from fullsend_protocol.units import format_duration, format_size
from fullsend_sender.link import PATIENCE, TEXT_MAX, Endpoint, Link, Timeouts, connect
from fullsend_sender.pipeline import Opened, Pipeline, Verdict
from fullsend_sender.throttle import Throttle
from fullsend_sender.zfs import ZfsError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from fullsend_protocol.manifest import Receipt
    from fullsend_sender.identity import Identity
    from fullsend_sender.progress import Progress


class ReceiptMismatch(FullsendError):  # noqa: N818 - reads as what it says
    """The receiver's receipt is for something else than what we sent."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to push. `bwlimit`: bytes a second on the wire."""

    level: int
    threads: int | None = None
    bwlimit: int | None = None
    timeouts: Timeouts = PATIENCE


async def _no_last_word() -> None:
    pass


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a stream besides its bytes.

    `size`: raw bytes to expect; `properties`: the dataset's own; `single`: it brings one snapshot, also where it is
    compound (-p), so its first BEGIN records tell all; `keep_orphan`: it is wanted even where its base is not stored;
    `ended`: waits for the stream's producer to end, and raises ZfsError where it failed.
    """

    size: int | None = None
    zfs_version: str | None = None
    properties: dict[str, str] | None = None
    single: bool = False
    keep_orphan: bool = False
    ended: Callable[[], Awaitable[None]] = _no_last_word


@dataclass(frozen=True, slots=True)
class Pushed:
    """A stream that is stored. `wire_bytes`: what this run put on the wire as chunks; 0 where it was stored before."""

    receipt: Receipt
    wire_bytes: int
    seconds: float

    def line(self) -> str:
        """Say it to a person."""
        receipt = self.receipt
        name = f"{receipt.dataset}@{receipt.snapshot} ({receipt.kind})"
        if not self.wire_bytes:
            return f"{name} is stored already; nothing was sent"
        sizes = f"{format_size(receipt.raw_bytes)} stored as {format_size(receipt.stored_bytes)}"
        return f"{name}: {sizes} in {format_duration(self.seconds)}"

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
            "resume": "none",
            "resumed_at": 0,
            "receipt": receipt.model_dump(mode="json", by_alias=True),
        }


async def transfer(
    fd: int, endpoint: Endpoint, identity: Identity, options: Options, *, about: About, progress: Progress
) -> Pushed | Receipt:
    """Push the send stream that comes out of the descriptor `fd`, read from its first byte to its end.

    Nothing is sent before the stream's first chunk has shown what it is, so that garbage never reaches the receiver.

    Returns: what was pushed; a receipt alone where the stream is stored already: then nothing was sent, and `fd` has
    not been read to its end.

    Raises: StreamError, ZfsError (the receiver was told, and keeps what arrived as a partial), Unreachable, PeerError,
    WrongReceiver, ReceiptMismatch, RemoteProtocolError, UsageError.
    """
    started = time.monotonic()
    throttle = Throttle(options.bwlimit) if options.bwlimit else None
    async with contextlib.AsyncExitStack() as stack:
        pipeline = await stack.enter_async_context(Pipeline(fd, level=options.level, threads=options.threads))
        async with _producer_first(pipeline, about):
            opened = await pipeline.opened()
        link, _name = await stack.enter_async_context(
            connect(endpoint, identity, timeouts=options.timeouts, throttle=throttle)
        )
        await link.send(_offer(opened, about))
        match await link.receive():
            case messages.Accept(offset=0):
                receipt, wire = await _send_and_prove(link, pipeline, about, progress, options.timeouts)
                return Pushed(receipt, wire, time.monotonic() - started)
            case messages.Stored(receipt=receipt):
                _check_stored(receipt, opened)
                return receipt
            case other:
                raise link.unexpected(other)


@contextlib.asynccontextmanager
async def _producer_first(pipeline: Pipeline, about: About) -> AsyncGenerator[None]:
    """Where a stream ends too early, let its producer's error be the one: it says why."""
    try:
        yield
    except StreamError:
        if pipeline.at_end:
            await about.ended()
        raise


def _offer(opened: Opened, about: About) -> messages.Push:
    """Return the offer of a stream, as far as its first chunk tells what it is."""
    facts = opened.facts
    # Of a compound stream the last substream decides, which comes at its end.
    known = about.single or not opened.compound
    return messages.Push(
        dataset=facts.dataset,
        snapshot=facts.snapshot,
        guid=str(facts.guid) if known else None,
        base_guid=str(facts.base_guid) if known and facts.base_guid is not None else None,
        flags=facts.flags if known else None,
        size_estimate=about.size,
        zfs_version=about.zfs_version,
        properties=about.properties,
        keep_orphan=about.keep_orphan,
    )


async def _send_and_prove(
    link: Link, pipeline: Pipeline, about: About, progress: Progress, timeouts: Timeouts
) -> tuple[Receipt, int]:
    """Send all chunks and take the receipt. Returns: it, and bytes put on the wire. Raises: as transfer."""
    # Two tasks, because acknowledgements and refusals come while chunks go; neither outlives this call.
    sending = asyncio.create_task(_send_all(link, pipeline, about, progress), name="send")
    answer = asyncio.create_task(_take_acks(link), name="acknowledgements")
    try:
        await asyncio.wait([sending, answer], return_when=asyncio.FIRST_COMPLETED)
        failure = sending.exception() if sending.done() else None
        if isinstance(failure, StreamError | ZfsError):
            # It has been told to stop, and makes what arrived durable; whatever it answers, this is our error.
            with contextlib.suppress(FullsendError):
                await answer
            raise failure
        if failure is not None:
            # The connection ended under us while we were sending. If the receiver said why, that is the better error.
            with contextlib.suppress(TimeoutError, Unreachable):
                async with asyncio.timeout(timeouts.linger):
                    await answer
            raise failure
        if not sending.done():
            # The receiver's last word came first: a refusal, as nothing else is legal while chunks flow.
            raise link.unexpected(await answer)
        verdict, wire = sending.result()
        committed = await answer
    finally:
        for task in (sending, answer):
            task.cancel()
        await asyncio.gather(sending, answer, return_exceptions=True)
    if not isinstance(committed, messages.Committed):
        raise link.unexpected(committed)
    _check_receipt(committed.receipt, verdict)
    return committed.receipt, wire


async def _send_all(link: Link, pipeline: Pipeline, about: About, progress: Progress) -> tuple[Verdict, int]:
    """Send the chunks and what concludes them: `finish`, or `stop` where the stream is at fault, or its producer.

    Returns: what the stream was, and bytes put on the wire.
    """
    total = 0
    try:
        async with _producer_first(pipeline, about):
            async for chunk in pipeline:
                wire = await link.send_chunk(chunk)
                progress.add(chunk.raw_length, wire)
                total += wire
        # Before `finish`: a stream may look whole to us, and its `zfs send` know better.
        await about.ended()
    except (StreamError, ZfsError) as error:
        await link.send(messages.Stop(reason=str(error)[:TEXT_MAX]))
        raise
    verdict = pipeline.verdict
    await link.send(messages.Finish(raw_bytes=verdict.raw_bytes, segments=verdict.segments))
    return verdict, total


async def _take_acks(link: Link) -> object:
    """Take acknowledgements. Returns: the first event that is none. Raises: as Link.receive."""
    while True:
        event = await link.receive()
        if not isinstance(event, messages.Ack):
            return event


def _check_receipt(receipt: Receipt, verdict: Verdict) -> None:
    """Hold the receipt against what we sent. Raises: ReceiptMismatch."""
    facts = verdict.facts
    expected = {
        "dataset": facts.dataset,
        "snapshot": facts.snapshot,
        "guid": str(facts.guid),
        "base_guid": None if facts.base_guid is None else str(facts.base_guid),
        "kind": facts.kind,
        "flags": facts.flags,
        "raw_bytes": verdict.raw_bytes,
        "sha256": verdict.segments[0].sha256,
    }
    _compare(receipt, expected)


def _check_stored(receipt: Receipt, opened: Opened) -> None:
    facts = opened.facts
    base_guid = None if facts.base_guid is None else str(facts.base_guid)
    _compare(receipt, {"guid": str(facts.guid), "base_guid": base_guid, "flags": facts.flags})


def _compare(receipt: Receipt, expected: Mapping[str, object]) -> None:
    for name, value in expected.items():
        found = getattr(receipt, name)
        if found != value:
            raise ReceiptMismatch(f"the receiver's receipt says {name} {found!r}, ours is {value!r}: do not rely on it")
