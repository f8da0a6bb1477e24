"""One connection, from hello to the end: identifies the peer, and serves its requests.

A peer with an enrolled certificate is that sender. It sees, reads and adds to its own streams. A peer without one may
join, or ask whether a certificate is known. No peer gets anything else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, Protocol

import fullsend_protocol
from fullsend_cli.memory import trim
from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    ConnectionLost,
    ErrorCode,
    FullsendError,
    LocalProtocolError,
    PeerError,
    RemoteProtocolError,
    Unreachable,
)
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import ConnectionEnded, Event
from fullsend_receiver.access import senders
from fullsend_receiver.access.senders import Refused, Sender
from fullsend_receiver.arrival.counters import Counters
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.arrival.receive import Halted, Receiving
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.daemon.answering import send_answer
from fullsend_receiver.daemon.answers import Answers
from fullsend_receiver.daemon.file_reading import FileReader
from fullsend_receiver.daemon.live import LiveTransfers
from fullsend_receiver.daemon.proving import ChainHasher
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import PushFailed, ReceivedStream, SenderJoined
from fullsend_receiver.maintenance.checks import Checks
from fullsend_receiver.monitor.overview import Overview
from fullsend_receiver.store.errors import disk_error
from fullsend_receiver.store.opened import partial_key
from fullsend_receiver.store.workers import Workers
from fullsend_transport.channel import Channel

log = logging.getLogger("fullsendd")

#: Codes of a push that fails without an error of this side: the connection has ended, or the sender has ended it.
_LOST: Final = "lost"
_STOPPED: Final = "stopped"
#: Characters of an error's text for a peer; fullsend_protocol.wire.messages allows 4096.
_TEXT_MAX: Final = 4000


class Busy(FullsendError):  # noqa: N818 - reads as a noun
    """The same stream is arriving on another connection."""

    code = ErrorCode.BUSY


class Gate(Protocol):
    """The daemon's rules about peers, for a session."""

    def admit(self, session: Session, sender: Sender) -> None:
        """Count a connection for its sender. Raises: Refused if the sender has too many connections."""

    def may_try(self, address: str) -> bool:
        """Whether this address may send `join` or `known?` now; counts the attempt."""

    def forgive(self, address: str) -> None:
        """Do not count the last attempt of this address: it was legitimate."""

    def status(self, fingerprint: str) -> str:
        """Answer `known?`."""

    async def table_changed(self) -> None:
        """A join has changed the sender table."""

    def read_only_seen(self) -> None:
        """The store's disk could not be written to because it is read-only."""


@dataclass(frozen=True, slots=True)
class Arriving:
    """A stream that is arriving now. `claim`: a peer with the same claim takes the stream over; `task`: serves the
    session that has it; `gone`: set when that session has released it.
    """

    claim: str
    session: Session
    task: asyncio.Task[object]
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class SharedState:
    """The shared state of all sessions of a daemon. `warn_at`: the present share of the disk, or of a quota, from which
    on senders are warned; `hasher`: merges chains; `file_reader`: reads files; `arriving`: the streams that are
    arriving now, by key; `deleting`: the partials that are being deleted, by key, each with what is set at its end:
    none of them begins to arrive; `begun`: the keys of streams that have arrived since the last sweep began; `sweeping`
    is held while no stream may begin at all, and while a key is added to one of these; `live`: all transfers, for
    `top`.
    """

    catalogues: Catalogues
    workers: Workers
    checks: Checks
    gate: Gate
    room: Room
    warn_at: float
    hasher: ChainHasher
    file_reader: FileReader
    troubles: Callable[[str], list[str]] = lambda _sender: []  # what keeps prunes of a sender from their work; blocks
    overview: Callable[[], Overview | None] = lambda: None  # the last one, None: there is none yet
    counters: Counters = field(default_factory=Counters)
    arriving: dict[str, Arriving] = field(default_factory=dict)
    deleting: dict[str, asyncio.Event] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    sweeping: asyncio.Lock = field(default_factory=asyncio.Lock)
    live: LiveTransfers = field(default_factory=LiveTransfers)


class Session:
    """One peer. `idle`: it is between two requests. `admitted`: it counts as one of its sender's connections."""

    def __init__(self, shared: SharedState, channel: Channel, address: str, peer: Sender | None) -> None:
        """`peer`: the sender of its certificate, None if it showed none."""
        self.idle = True
        self.admitted = False
        self.peer = peer
        self._shared = shared
        self._channel = channel
        self._address = address
        self._program = ""
        self._features: list[str] = []  # what the peer understands beyond its version
        self._farewell: tuple[ErrorCode, str] | None = None
        self._pushing: messages.Push | None = None  # the stream that is arriving
        self._next_request: Event | None = None  # arrived while the last answer was still being sent

    async def run(self, identify_by: float) -> None:
        """Serve the peer until it leaves. Expected errors are sent to it, logged, and end here.

        `identify_by`: the time on the loop's clock by which it must have identified itself.
        """
        self._channel.start_heartbeat()
        try:
            await self._serve(identify_by)
        except asyncio.CancelledError as error:
            if self._farewell is None:
                log.info("%s: dropped: too many connections without identification", self._name)
                self._channel.abort()
            else:
                self._tell(*self._farewell)
            release_frames(error)
            raise
        except Exception as error:  # noqa: BLE001 - each sort is told apart there, and what is unforeseen is logged
            self._give_up(error)
            release_frames(error)
        finally:
            await self._channel.close()

    def _give_up(self, error: Exception) -> None:
        """Log the error that ended the conversation, and send it to the peer, if there is one."""
        match error:
            case Unreachable():
                self._log_end(logging.INFO, _LOST, str(error))
                self._tell(ErrorCode.LIMIT, str(error))  # a silent peer may still be reading
            case ConnectionLost():
                self._log_end(logging.INFO, _LOST, str(error))
            case PeerError():
                level = logging.INFO if self._pushing is None else logging.WARNING
                self._log_end(level, _STOPPED, f"gave up: {error}")
            case _:
                if isinstance(error, OSError) and error.errno == errno.EROFS:
                    self._shared.gate.read_only_seen()
                refusal = refusal_of(error)
                if refusal is None:
                    self._tell(*log_refusal(self._name, error))
                    self._log_end(logging.ERROR, ErrorCode.INTERNAL, "a bug in fullsendd", only_push=True)
                else:
                    self._log_end(logging.WARNING, refusal.code, str(refusal))
                    self._tell(refusal.code, str(refusal))

    def _log_end(self, level: int, code: str, why: str, *, only_push: bool = False) -> None:
        """Log why the conversation ends; if a stream was arriving, as an event. `only_push`: nothing else."""
        why, push = printable(why), self._pushing
        if push is None:
            if not only_push:
                log.log(level, "%s: %s", self._name, why)
            return
        self._report_failed(push, level, code, why, f"{self._name}: {why}")

    def _report_failed(self, push: messages.Push, level: int, code: str, why: str, text: str) -> None:
        names = {"sender": self._sender, "dataset": push.dataset, "snapshot": push.snapshot, "address": self._address}
        emit(PushFailed(text=text, code=str(code), why=why, **names), level)

    def farewell(self, code: ErrorCode, why: str) -> None:
        """Set the error that the peer gets after its request, or when the session's task is cancelled, whichever comes
        first. The first reason stays.
        """
        self._farewell = self._farewell or (code, why)

    async def refuse(self, code: ErrorCode, why: str) -> None:
        """Refuse the peer before its first request."""
        self._tell(code, why)
        await self._channel.close()

    @property
    def _name(self) -> str:
        return f"{self.peer.name} ({self._address})" if self.peer else self._address

    @property
    def _sender(self) -> str:
        assert self.peer is not None  # noqa: S101 - for mypy; only an identified peer asks for anything
        return self.peer.name

    def _tell(self, code: ErrorCode, why: str) -> None:
        self._channel.last_words(last_error(code, why))

    async def _serve(self, identify_by: float) -> None:
        try:
            async with asyncio.timeout_at(identify_by) as deadline:
                await self._greet()
        except TimeoutError:
            if not deadline.expired():  # the error of a disk
                raise
            raise Refused(ErrorCode.LIMIT, "the peer took too long to identify itself") from None
        if self.peer is None:
            return
        shared = self._shared
        answers = Answers(
            *(shared.catalogues, shared.workers, shared.checks, self.peer.name, shared.room),
            peer=self._name,
            repairs=messages.REPAIR in self._features,
            warn_at=shared.warn_at if messages.WARNINGS in self._features else None,
            scrub=messages.SCRUB in self._features,
            ivsets=messages.IVSETS in self._features,
            troubles=shared.troubles,
            overview=shared.overview,
            hasher=shared.hasher,
            file_reader=shared.file_reader,
            live=shared.live,
        )
        try:
            await self._serve_requests(answers)
        finally:
            await answers.close()

    async def _serve_requests(self, answers: Answers) -> None:
        shared = self._shared
        while True:
            self.idle = True
            if self._farewell is not None:
                self._tell(*self._farewell)
                return
            request = self._next_request or await self._channel.receive()
            self._next_request = None
            self.idle = False
            match request:
                case ConnectionEnded():
                    return
                case messages.Push():
                    await self._push(request)
                    if not shared.arriving:  # otherwise its memory is used again at once
                        await shared.workers.run(trim)  # after the answer, for which the sender waits
                case messages.Question():
                    self._next_request = await send_answer(self._channel, answers.answer(request))
                case messages.Error():
                    raise PeerError(request.code, request.message)
                case _:
                    msg = f"{type(request).__name__} as a request"
                    raise RemoteProtocolError(msg)

    # --- identification ------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        if self.peer is not None:
            self._shared.gate.admit(self, self.peer)
        await self._channel.send(
            messages.ReceiverHello(
                program=f"fullsendd {fullsend_protocol.__version__}",
                versions=[limits.PROTOCOL_VERSION],
                sender=self.peer.name if self.peer else None,
                features=[messages.PIPELINED] if self.peer else [],
            )
        )
        answer = await self._channel.receive()
        match answer:
            # The connection's state table has decided which of these are allowed, and in which version.
            case messages.SenderHello():
                self._program, self._features = answer.program, answer.features
                log.info("%s: connected, %s", self._name, printable(answer.program))
            case messages.Join():
                self._check_tries()
                joined = await self._shared.workers.run(
                    lambda: senders.join(self._shared.catalogues.store, answer.secret, answer.certificate)
                )
                self._shared.gate.forgive(self._address)
                await self._shared.gate.table_changed()
                about = {"sender": joined.name, "fingerprint": joined.fingerprint, "address": self._address}
                text = f"{self._address}: joined as {joined.name}, certificate {joined.fingerprint}"
                emit(SenderJoined(text=text, **about))
                await self._channel.send(
                    messages.Joined(sender=joined.name, store=PurePath(self._shared.catalogues.store.where).name)
                )
            case messages.Known():
                self._check_tries()
                status = self._shared.gate.status(answer.fingerprint)
                await self._channel.send(messages.KnownAnswer.model_validate({"status": status}))
            case messages.Error():
                raise PeerError(answer.code, answer.message)
            case _:
                msg = f"{type(answer).__name__} as a greeting"
                raise RemoteProtocolError(msg)

    def _check_tries(self) -> None:
        if not self._shared.gate.may_try(self._address):
            msg = "too many attempts from this address: wait a minute"
            raise Refused(ErrorCode.LIMIT, msg)

    # --- push ----------------------------------------------------------------------------------------------

    async def _push(self, push: messages.Push) -> None:
        """Receive a stream, and count a failure. A push that is cancelled is none: its sender tries again."""
        try:
            await self._receive_stream(push)
        except Exception as error:
            self._shared.counters.push_failed(error)
            raise

    async def _receive_stream(self, push: messages.Push) -> None:
        sender = self._sender
        what = printable(f"{push.dataset}@{push.snapshot}")
        key = partial_key(sender, push)
        shared = self._shared
        self._pushing = push
        began = time.monotonic()
        holder = await self._claim(key, push.claim, what)
        try:
            receiving = Receiving(shared.catalogues, self._channel, shared.workers, sender, push, room=shared.room)
            count, live = receiving.count, shared.live
            try:
                with (
                    live.running("push", sender, f"{push.dataset}@{push.snapshot}", count),
                    shared.counters.receiving(count),
                ):
                    end = await receiving.run(self._program)
            finally:
                # Also if this was cancelled amid the commit: a sender that offers it again learns that it is stored.
                if receiving.committed is not None:
                    self._stored(receiving.committed.receipt, time.monotonic() - began)
        finally:
            del shared.arriving[key]
            holder.gone.set()
        self._pushing = None  # what follows is the answer
        if isinstance(end, Halted):
            shared.counters.push_failures["stopped"] += 1
            why, kept = printable(end.stop.reason), "kept" if end.stop.keep else "deleted"
            text = f"{self._name}: {what}: the sender stopped: {why}; what arrived is {kept}"
            self._report_failed(push, logging.WARNING, _STOPPED, why, text)
            await self._channel.send(messages.Stopped(offset=end.kept))
            return
        if isinstance(end, messages.Committed) and messages.REPAIR not in self._features:
            end = messages.Committed(receipt=end.receipt)
        await self._channel.send(end)

    def _stored(self, receipt: Receipt, seconds: float) -> None:
        """Count a stream that this connection has stored, and report it. `seconds`: since it was offered."""
        self._shared.counters.pushes += 1
        if len(receipt.segments) > 1:
            self._shared.checks.wanted(receipt.sender)
        emit(
            ReceivedStream(
                text=f"{self._name}: stored {receipt.file}",
                sender=receipt.sender,
                dataset=receipt.dataset,
                snapshot=receipt.snapshot,
                guid=receipt.guid,
                kind=receipt.kind,
                file=receipt.file,
                raw_bytes=receipt.raw_bytes,
                stored_bytes=receipt.stored_bytes,
                seconds=round(seconds, 3),
                address=self._address,
            )
        )

    async def _claim(self, key: str, claim: str, what: str) -> Arriving:
        """Reserve a stream for this connection. Raises: Busy."""
        shared = self._shared
        while True:
            async with shared.sweeping:
                deleted, holder = shared.deleting.get(key), shared.arriving.get(key)
                if deleted is None and holder is None:
                    holder = shared.arriving[key] = Arriving(claim, self, own_task())
                    shared.begun.add(key)
                    return holder
            if deleted is not None:
                await deleted.wait()
            if holder is None:
                continue
            if holder.claim != claim:
                msg = f"{what}: is arriving on another connection"
                raise Busy(msg)
            log.info("%s: %s: is taken over from another connection", self._name, what)
            holder.session.farewell(ErrorCode.BUSY, f"{what}: is arriving on another connection now")
            holder.task.cancel()
            await holder.gone.wait()


def own_task() -> asyncio.Task[object]:
    """Return the task that runs this code."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for mypy; a coroutine runs in one
    return task


def release_frames(error: BaseException | None) -> None:
    """Release what an error's frames refer to: a refused chunk and its raw bytes. These and the error refer to each
    other, and the cycle collector counts objects, not their size: it would run a hundred errors later.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def refusal_of(error: Exception) -> FullsendError | None:
    """Return an error as what a peer is told; None: nobody expects it, so it is a bug."""
    if isinstance(error, FullsendError | OSError) and not isinstance(error, LocalProtocolError):
        return explain(error)
    return None


def log_refusal(name: str, error: Exception) -> tuple[ErrorCode, str]:
    """Log an error that ends a conversation. `name`: the peer's, for the log. Returns: the code and the text for the
    peer. What nobody expects is a bug: the log has its traceback, and the peer is told to look there.
    """
    refusal = refusal_of(error)
    if refusal is not None:
        log.warning("%s: %s", name, printable(str(refusal)))
        return refusal.code, str(refusal)
    log.error("%s: a bug in fullsendd", name, exc_info=error)
    return ErrorCode.INTERNAL, "a bug in fullsendd; its log has more"


def last_error(code: ErrorCode, why: str) -> messages.Error:
    """Return the message for a peer that is refused, cut to what a message may have."""
    return messages.Error(code=code, message=why[:_TEXT_MAX])


def explain(error: FullsendError | OSError) -> FullsendError:
    """Turn an error of the disk into an error with a code."""
    return disk_error(error) if isinstance(error, OSError) else error
