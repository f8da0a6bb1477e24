"""One connection to a peer: frames out, events in, heartbeats, and a close that delivers the last message.

The rules of the wire are in fullsend_protocol.wire.connection. This module gives them a transport and a clock, for both
sides. It has one writer: `_pump` takes frames from one queue, in order, each to its last byte. So a heartbeat, an
acknowledgement or the last message never gets into a chunk. A caller that is cancelled leaves a whole frame behind.

    channel = Channel(Role.SENDER, "nas (nas.example:7433)")
    await loop.create_connection(lambda: channel, sock=sock, ssl=context, server_hostname="")
    await channel.send(List(dataset=None))
    event = await channel.receive()
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ProtocolError, Unreachable, reason
from fullsend_protocol.wire.connection import (
    LOCAL,
    NEED_DATA,
    WIRE,
    Chunk,
    Connection,
    Event,
    Heartbeat,
    Language,
    Role,
    State,
)
from fullsend_protocol.wire.messages import Error, Message

if TYPE_CHECKING:
    import ssl

    from fullsend_transport.throttle import Throttle

#: Bytes of a chunk that are given to TLS at a time. TLS copies and encrypts them at once, so a whole chunk would be
#: three times in memory.
WRITE_SIZE: Final = 256 << 10
#: Bytes that may wait in the transport for the peer; above, the pump stops.
_WRITE_BUFFER: Final = 1 << 20
#: Bytes of messages without a waiting caller that may queue up: about 500 acknowledgements.
_BACKLOG: Final = 64 << 10
#: Bytes that are read before `receive` asks for them. A peer's last message must fit.
_READ_AHEAD: Final = 256 << 10
#: Bytes that are read at a time, except into a payload.
_READ_SIZE: Final = 64 << 10


class _Frame:
    """A frame that is to be sent. `pieces`: what is left of it. `sent`: a future that is done when the transport has
    room again after the frame; None if no caller waits.
    """

    __slots__ = ("may_go", "pieces", "sent", "throttled")

    def __init__(
        self, pieces: deque[bytes | memoryview], sent: asyncio.Future[None] | None, throttled: Throttle | None
    ) -> None:
        self.pieces = pieces
        self.sent = sent
        self.throttled = throttled
        self.may_go = True  # the next piece need not wait for the throttle: it is the header, or it has waited


class Channel(asyncio.BufferedProtocol):
    """One end of a connection, made with the transport: `loop.create_connection(lambda: channel, ...)`.

    One task may receive while others send. The channel reads from the peer only as `receive` asks for it, except for a
    small buffer: a caller that does not receive slows the peer down.

    `busy`: the reason why this side does not read, for the heartbeats; "" while it reads. `peer_busy`: the reason in
    the peer's last heartbeat. `certificate`: the peer's, as DER; None if it has shown none, or is not connected yet.
    """

    def __init__(
        self,
        role: Role,
        peer: str,
        *,
        language: Language = WIRE,
        silence: float = limits.SILENCE,
        heartbeat_every: float = limits.HEARTBEAT_EVERY,
        linger: float = limits.LINGER,
        throttle: Throttle | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`role`: which side this is; `peer`: the other one's name in errors; `language`: what may be said.

        `silence`: seconds without a byte, while reading, after which the peer counts as dead. `heartbeat_every`:
        seconds after the last byte sent. `linger`: seconds that `close` gives the peer. `throttle` is for chunks.
        """
        self.busy = ""
        self.peer_busy = ""
        self.certificate: bytes | None = None
        self._peer = peer
        self._silence = silence
        self._heartbeat_every = heartbeat_every
        self._linger = linger
        self._throttle = throttle
        self._loop = loop or asyncio.get_running_loop()
        self._language = language
        self._connection = Connection(role, language)
        self._transport: asyncio.Transport | None = None  # None before it is connected, and after it is lost
        self._gone: asyncio.Future[None] = self._loop.create_future()  # done when the connection is closed or lost
        self._error: Exception | None = None  # why the connection was lost
        # Reading.
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._in_place = False  # the transport reads into the frame's own memory
        self._reading = True
        self._ended = False  # the peer has closed its side
        self._more: asyncio.Future[None] | None = None  # what `receive` waits for
        # Writing.
        self._outbox: deque[_Frame] = deque()
        self._paused = False  # the transport's buffer is full
        self._next_piece: asyncio.Handle | None = None  # when the pump continues
        self._emptied: asyncio.Future[None] | None = None  # what `close` waits for
        self._last_sent = self._loop.time()
        self._heart: asyncio.TimerHandle | None = None
        self._has_last_words = False

    # --- out -----------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send a message; returns when the transport has room again.

        Raises: LocalProtocolError (nothing was sent), Unreachable.
        """
        self._check()
        await self._put([self._connection.send(message)])

    async def send_chunk(self, chunk: Chunk) -> int:
        """Send a chunk; returns when the transport has room again. If the caller is cancelled, the rest of the frame is
        sent all the same.

        Returns: bytes of the frame. Raises: LocalProtocolError (nothing was sent), Unreachable.
        """
        self._check()
        head, frame = self._connection.send_chunk(chunk)
        view = memoryview(frame)
        size = self._throttle.slice(WRITE_SIZE) if self._throttle else WRITE_SIZE
        pieces = (view[start : start + size] for start in range(0, len(view), size))
        await self._put([head, *pieces], self._throttle)
        return len(head) + len(frame)

    def send_soon(self, message: Message) -> None:
        """Send a small message without waiting for the peer. Does nothing if the connection is over.

        Raises: Unreachable if the peer has left too many of them unread.
        """
        if self._connection.state in {State.CLOSED, State.FAILED} or self._is_closing:
            return
        if self._waiting > _BACKLOG:
            msg = f"{self._peer} does not read"
            raise Unreachable(msg)
        self._outbox.append(_Frame(deque([self._connection.send(message)]), None, None))
        self._pump()

    def last_words(self, error: Error) -> None:
        """Send the error that ends the connection, if that is still legal; `close` delivers it. Raises nothing."""
        with contextlib.suppress(ProtocolError):
            said = self._connection.send(error)
            if not self._is_closing:
                self._has_last_words = True
                self._read_on()  # from now on what the peer sends is dropped: it must be able to send, in order to read
                self._outbox.append(_Frame(deque([said]), None, None))
                self._pump()

    def _check(self) -> None:
        """Raise if the peer has closed its side: then the state of the connection no longer matters."""
        if self._ended:
            raise self._lost()

    async def _put(self, pieces: list[bytes | memoryview], throttle: Throttle | None = None) -> None:
        sent = self._loop.create_future()
        self._outbox.append(_Frame(deque(pieces), sent, throttle))
        self._pump()
        await sent
        # Otherwise a peer that takes everything at once would keep the loop busy.
        await asyncio.sleep(0)

    def _pump(self) -> None:
        """Write what is queued, as far as the transport has room. Nothing else writes."""
        transport = self._transport
        if transport is None or self._next_piece is not None:
            return
        while self._outbox and not self._paused and not transport.is_closing():
            frame = self._outbox[0]
            if not frame.pieces:
                self._outbox.popleft()
                _settle(frame.sent)
                continue
            if frame.throttled and not frame.may_go:
                frame.may_go = True
                wait = frame.throttled.delay(len(frame.pieces[0]), self._loop.time())
                if wait > 0:
                    self._next_piece = self._loop.call_later(wait, self._pump_on)
                    return
            transport.write(frame.pieces.popleft())
            frame.may_go = False
            self._last_sent = self._loop.time()
            if frame.pieces:
                # One piece for each turn of the loop, so that other tasks run, too.
                self._next_piece = self._loop.call_soon(self._pump_on)
                return
        if not self._outbox:
            _settle(self._emptied)

    def _pump_on(self) -> None:
        self._next_piece = None
        self._pump()

    @property
    def _waiting(self) -> int:
        """Bytes that the peer has not taken, without those in the kernel."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + sum(
            len(each) for frame in self._outbox for each in frame.pieces
        )

    # --- in ------------------------------------------------------------------------------------------------

    async def receive(self) -> Event:
        """Return the next event other than a heartbeat.

        After ChunkArriving the next call allocates memory for the chunk: make room first.

        Raises: RemoteProtocolError, Unreachable (silence; the connection was lost).
        """
        while True:
            event = self._connection.next_event()
            if event is NEED_DATA:
                await self._read()
            elif isinstance(event, Heartbeat):
                self.peer_busy = event.busy
            else:
                return event

    async def _read(self) -> None:
        """Return when more bytes have arrived, or the peer has closed its side. Raises: Unreachable."""
        if self._ended:
            if self._error is not None:
                raise self._lost()
            self._connection.receive_data(b"")
            return
        self._more = self._loop.create_future()
        self._read_on()
        try:
            # Silence counts from now: before, this side did not read.
            async with asyncio.timeout(self._silence):
                await self._more
        except TimeoutError:
            msg = f"{self._peer} has been silent for {self._silence:g} s"
            raise Unreachable(msg) from None
        finally:
            self._more = None

    def _read_on(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def _lost(self) -> Unreachable:
        why = f": {reason(self._error)}" if self._error is not None else ""
        return Unreachable(f"the connection to {self._peer} was lost{why}")

    # --- heartbeats ----------------------------------------------------------------------------------------

    def start_heartbeat(self) -> None:
        """Send heartbeats while nothing else is sent, until `close`; none before the receiver's hello."""
        if not self._gone.done():
            self._heart = self._loop.call_at(self._last_sent + self._heartbeat_every, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        due = now + self._heartbeat_every
        if self._last_sent + self._heartbeat_every > now:
            due = self._last_sent + self._heartbeat_every
        # A frame that waits is a sign of life itself, as soon as the peer takes it. Heartbeats must not pile up behind
        # it.
        elif not self._waiting:
            beat = self._connection.heartbeat(self.busy)
            if beat:
                self._outbox.append(_Frame(deque([beat]), None, None))
                self._pump()
        self._heart = self._loop.call_at(due, self._beat)

    # --- the end -------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the connection: let the peer read the last message, then close. After `linger` seconds the connection is
        cut, and at once if a cancelled caller has left a frame behind. Raises only CancelledError; the connection is
        closed even then.

        What the peer still sends is read and dropped until it closes, too. If unread bytes waited at the close, the
        kernel would send RST, which may overtake the last message. TLS does that reading itself when it closes: it
        flushes, sends close_notify, and reads up to the peer's.
        """
        transport = self._transport
        if transport is None:
            return
        if self._heart is not None:
            self._heart.cancel()
        if self._outbox and not self._has_last_words:
            self.abort()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger):
                    await self._flush()
                    if not transport.is_closing():
                        transport.close()
                    await asyncio.wait([self._gone])
        finally:
            # Also if this task is cancelled: a transport that outlives its loop ends the command with a traceback.
            self.abort()
            await asyncio.wait([self._gone])

    async def _flush(self) -> None:
        """Return when the transport has all frames, or the connection is lost."""
        if self._outbox and not self._gone.done():
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied, self._gone], return_when=asyncio.FIRST_COMPLETED)

    def abort(self) -> None:
        """Cut the connection at once; does nothing if it is lost."""
        if self._transport is not None:  # asyncio's transport fails if it is aborted after it has closed
            self._transport.abort()

    @property
    def _is_closing(self) -> bool:
        return self._gone.done() or (self._transport is not None and self._transport.is_closing())

    # --- what the transport calls (typing.override is younger than Python 3.11) ------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[explicit-override]
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)
        if self._language is not LOCAL:  # over a network nothing is said without TLS
            tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
            self.certificate = tls.getpeercert(binary_form=True) or None
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[explicit-override]
        self._error = exc
        self._ended = True
        # The transport refers to this object: without this, the memory of a chunk would wait for the cycle collector.
        self._transport = None
        _settle(self._gone)
        _settle(self._more)
        for timer in (self._heart, self._next_piece):
            if timer is not None:
                timer.cancel()
        while self._outbox:
            sent = self._outbox.popleft().sent
            if sent is not None and not sent.done():
                sent.set_exception(self._lost())

    def eof_received(self) -> None:  # type: ignore[explicit-override]
        self._ended = True
        _settle(self._more)

    def get_buffer(self, sizehint: int) -> memoryview:  # type: ignore[explicit-override]  # noqa: ARG002
        # Most bytes are those of chunks. TLS decrypts them to where they stay.
        space = self._connection.space()
        self._in_place = space is not None
        return self._buffer if space is None else space

    def buffer_updated(self, nbytes: int) -> None:  # type: ignore[explicit-override]
        if self._in_place:
            self._connection.filled(nbytes)
        else:
            self._connection.receive_data(self._buffer[:nbytes])
        _settle(self._more)
        if self._connection.unread > _READ_AHEAD and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def pause_writing(self) -> None:  # type: ignore[explicit-override]
        self._paused = True

    def resume_writing(self) -> None:  # type: ignore[explicit-override]
        self._paused = False
        self._pump()


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
