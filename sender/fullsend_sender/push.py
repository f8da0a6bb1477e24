"""`fullsend push --stdin`: takes a send stream from a pipe to a receiver, and believes nothing but its receipt."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fullsend_protocol import messages
from fullsend_protocol.errors import FullsendError, StreamError, Unreachable
from fullsend_sender.link import PATIENCE, TEXT_MAX, Endpoint, Link, Timeouts, connect
from fullsend_sender.pipeline import Opened, Pipeline, Verdict
from fullsend_sender.pipes import Source, Stopped
from fullsend_sender.progress import Progress, reporting
from fullsend_sender.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from fullsend_protocol.manifest import Receipt
    from fullsend_sender.identity import Identity

_log: Final = logging.getLogger("fullsend.push")


class ReceiptMismatch(FullsendError):  # noqa: N818 - reads as what it says
    """The receiver's receipt is for something else than what we sent."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to push. `size`: raw bytes to expect, where known; `bwlimit`: bytes a second on the wire."""

    level: int
    threads: int | None = None
    size: int | None = None
    bwlimit: int | None = None
    progress: Literal["auto", "always", "never"] = "auto"
    timeouts: Timeouts = PATIENCE


@dataclass(frozen=True, slots=True)
class Pushed:
    """A stream that is stored. `wire_bytes`: what this run put on the wire as chunks; 0 where it was stored before."""

    receipt: Receipt
    wire_bytes: int
    seconds: float

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


async def push_stdin(fd: int, endpoint: Endpoint, identity: Identity, options: Options, stderr: TextIO) -> Pushed:
    """Push the send stream that comes out of the descriptor `fd`, read from its first byte to its end.

    Nothing is sent before the stream's first chunk has shown what it is, so that garbage never reaches the receiver.

    Raises: StreamError (the receiver was told, and keeps what arrived as a partial), Unreachable, PeerError,
    WrongReceiver, ReceiptMismatch, RemoteProtocolError, UsageError.
    """
    started = time.monotonic()
    throttle = Throttle(options.bwlimit) if options.bwlimit else None
    progress = Progress(started, options.size)
    async with contextlib.AsyncExitStack() as stack:
        # Outermost, so that the line is gone before anything else is said.
        await stack.enter_async_context(reporting(progress, stderr, when=options.progress))
        pipeline = await stack.enter_async_context(Pipeline(fd, level=options.level, threads=options.threads))
        opened = await pipeline.opened()
        link, _name = await stack.enter_async_context(
            connect(endpoint, identity, timeouts=options.timeouts, throttle=throttle)
        )
        await link.send(_offer(opened, options.size))
        match await link.receive():
            case messages.Accept(offset=0):
                receipt = await _transfer(link, pipeline, progress, options.timeouts)
                progress.done = True
                return Pushed(receipt, progress.wire, time.monotonic() - started)
            case messages.Stored(receipt=receipt):
                _check_stored(receipt, opened)
            case other:
                raise link.unexpected(other)
    # The stream is stored, so nothing was sent. It is read to its end all the same: in `zfs send | fullsend` under
    # `set -o pipefail` the producer would otherwise die of SIGPIPE, and fail a job in which nothing failed.
    await _drain(fd)
    return Pushed(receipt, 0, time.monotonic() - started)


def _offer(opened: Opened, size: int | None) -> messages.Push:
    """Return the offer of a stream, as far as its first chunk tells what it is."""
    facts = opened.facts
    return messages.Push(
        dataset=facts.dataset,
        snapshot=facts.snapshot,
        # Of a compound stream the last substream decides, which comes at its end.
        guid=None if opened.compound else str(facts.guid),
        base_guid=None if opened.compound or facts.base_guid is None else str(facts.base_guid),
        flags=None if opened.compound else facts.flags,
        size_estimate=size,
        zfs_version=None,
    )


async def _transfer(link: Link, pipeline: Pipeline, progress: Progress, timeouts: Timeouts) -> Receipt:
    """Send all chunks and take the receipt. Raises: as push_stdin."""
    # Two tasks, because acknowledgements and refusals come while chunks go; neither outlives this call.
    sending = asyncio.create_task(_send_all(link, pipeline, progress), name="send")
    answer = asyncio.create_task(_take_acks(link), name="acknowledgements")
    try:
        await asyncio.wait([sending, answer], return_when=asyncio.FIRST_COMPLETED)
        failure = sending.exception() if sending.done() else None
        if isinstance(failure, StreamError):
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
        verdict = sending.result()
        committed = await answer
    finally:
        for task in (sending, answer):
            task.cancel()
        await asyncio.gather(sending, answer, return_exceptions=True)
    if not isinstance(committed, messages.Committed):
        raise link.unexpected(committed)
    _check_receipt(committed.receipt, verdict)
    return committed.receipt


async def _send_all(link: Link, pipeline: Pipeline, progress: Progress) -> Verdict:
    """Send the chunks and what concludes them: `finish`, or `stop` where the stream is at fault."""
    try:
        async for chunk in pipeline:
            wire = await link.send_chunk(chunk)
            progress.add(chunk.raw_length, wire)
    except StreamError as error:
        await link.send(messages.Stop(reason=str(error)[:TEXT_MAX]))
        raise
    verdict = pipeline.verdict
    await link.send(messages.Finish(raw_bytes=verdict.raw_bytes, segments=verdict.segments))
    return verdict


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


async def _drain(fd: int) -> None:
    """Read a pipe to its end, in a thread that ends when we are cancelled."""
    source = Source(fd)
    reading = asyncio.ensure_future(asyncio.to_thread(source.drain))
    try:
        await asyncio.shield(reading)
    finally:
        source.stop()
        with contextlib.suppress(Stopped):
            await reading
        source.close()
