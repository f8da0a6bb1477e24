"""One connection to a peer: frames out, events in, heartbeats, and a close that delivers the last message.

The rules of the wire are in fullsend_protocol.wire.connection. This module gives them a transport and a clock, for both
sides. It has one writer: `_pump` takes frames from one queue, in order, each to its last byte. So a heartbeat, an
acknowledgement or the last message never gets into a chunk. A caller that is cancelled leaves a whole frame behind.

    channel = Channel(Role.SENDER, "nas (nas.example:7433)")
    await channel.begin(sock, context)
    await channel.send(List(dataset=None))
    event = await channel.receive()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ProtocolError, Unreachable, reason
from fullsend_protocol.wire.connection import (
    LOCAL,
    NEED_DATA,
    WIRE,
    Chunk,
    ChunkArriving,
    Connection,
    Event,
    Heartbeat,
    Language,
    Role,
    State,
)
from fullsend_protocol.wire.messages import Error, Message
from fullsend_transport.turns import LoopTurns

if TYPE_CHECKING:
    import ssl

    from fullsend_transport.throttle import Throttle

#: Bytes of a chunk that are given to TLS at a time. TLS copies and encrypts them at once, so a whole chunk would be
#: three times in memory.
WRITE_SIZE: Final = 256 << 10
#: Bytes that may wait in the transport for the peer; above, the pump stops.
_WRITE_BUFFER: Final = 1 << 20
#: TLS 1.3 sends records of at most 16 KiB of content, each with a header of 5 bytes, a type of 1, and a tag of 16.
_TLS_RECORD: Final = 16 << 10
_TLS_OVERHEAD: Final = 22
#: Bytes of messages without a waiting caller that may queue up: about 500 acknowledgements.
_BACKLOG: Final = 64 << 10
#: Bytes that are read before `receive` asks for them. A peer's last message must fit.
_READ_AHEAD: Final = 256 << 10
#: Bytes that are read at a time, except into a payload.
_READ_SIZE: Final = 64 << 10
#: struct tcp_info of Linux (linux/tcp.h): where `tcpi_rwnd_limited` is, and bytes that suffice for it.
_HELD_BACK: Final = struct.Struct("=Q")
_HELD_BACK_AT: Final = 176
_INFO_SIZE: Final = 192


@dataclass(slots=True)
class Traffic:
    """Bytes of frames that one or more channels have received and sent, without those of TLS."""

    received: int = 0
    sent: int = 0


class _Frame:
    """A frame that is to be sent. `pieces`: what is left of it. `sent`: a future that is done when the transport has
    room again after the frame; None if no caller waits. `waits`: each piece waits for the throttle.
    """

    __slots__ = ("pieces", "sent", "waits")

    def __init__(
        self, pieces: deque[bytes | memoryview], sent: asyncio.Future[None] | None, *, waits: bool = False
    ) -> None:
        self.pieces = pieces
        self.sent = sent
        self.waits = waits


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
        traffic: Traffic | None = None,
        turns: LoopTurns | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`role`: which side this is; `peer`: the other one's name in errors; `language`: what may be said.

        `silence`: seconds without a byte, while reading, after which the peer counts as dead. `heartbeat_every`:
        seconds after the last byte sent. `linger`: seconds that `close` gives the peer. `throttle`: chunks wait for it;
        it counts all that is given to TCP after the handshake. `traffic`: counts the bytes. `turns`: shared by all
        connections of a daemon.
        """
        self.busy = ""
        self.peer_busy = ""
        self.certificate: bytes | None = None
        self._peer = peer
        self._silence = silence
        self._heartbeat_every = heartbeat_every
        self._linger = linger
        self._throttle = throttle
        self._traffic = traffic or Traffic()
        self._loop = loop or asyncio.get_running_loop()
        self._turns = turns or LoopTurns(self._loop)
        self._language = language
        self._connection = Connection(role, language)
        self._transport: asyncio.Transport | None = None  # None before it is connected, and after it is lost
        self._gone: asyncio.Future[None] = self._loop.create_future()  # done when the connection is closed or lost
        self._error: Exception | None = None  # why the connection was lost
        # Reading.
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._in_place = False  # the transport reads into the frame's own memory
        self._reading = True
        self._waits_for_turn = False  # it does not read until a later turn of the loop
        self._arriving = 0  # bytes of the chunk for which `receive` takes memory next
        self._ended = False  # the peer has closed its side
        self._more: asyncio.Future[None] | None = None  # what `receive` waits for
        self._heard = 0.0  # when the last bytes came, while it waits
        self._listening: asyncio.TimerHandle  # when the peer counts as dead
        # Writing.
        self._outbox: deque[_Frame] = deque()
        self._paused = False  # the transport's buffer is full
        self._next_piece: asyncio.Handle | None = None  # when the pump continues
        self._emptied: asyncio.Future[None] | None = None  # what `close` waits for
        self._last_sent = self._loop.time()
        self._heart: asyncio.TimerHandle | None = None
        self._has_last_words = False

    async def begin(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Begin TLS as the client, on a connected socket. On return the handshake is complete.

        The socket is the channel's from the call on, whatever happens; the object `sock` has no descriptor afterwards.

        Raises: OSError (which ssl.SSLError is): the connection broke, or is not TLS; asyncio.CancelledError.
        """
        try:
            # No server name: the pin identifies the receiver, and a name in clear text would only inform listeners.
            await self._loop.create_connection(lambda: self, sock=sock, ssl=context, server_hostname="")
        finally:
            # The descriptor is libuv's now. Where the peer resets the connection at once, uvloop closes the descriptor
            # without a word to `sock`, which would close that number again later: a file of somebody else by then.
            sock.detach()

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
        await self._put([head, *pieces], waits=self._throttle is not None)
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
        self._outbox.append(_Frame(deque([self._connection.send(message)]), None))
        self._pump()

    def last_words(self, error: Error) -> None:
        """Send the error that ends the connection, if that is still legal; `close` delivers it. Raises nothing."""
        with contextlib.suppress(ProtocolError):
            said = self._connection.send(error)
            if not self._is_closing:
                self._has_last_words = True
                self._read_on()  # from now on what the peer sends is dropped: it must be able to send, in order to read
                self._outbox.append(_Frame(deque([said]), None))
                self._pump()

    def _check(self) -> None:
        """Raise if the peer has closed its side: then the state of the connection no longer matters."""
        if self._ended:
            raise self._lost()

    async def _put(self, pieces: list[bytes | memoryview], *, waits: bool = False) -> None:
        sent = self._loop.create_future()
        self._outbox.append(_Frame(deque(pieces), sent, waits=waits))
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
            now = self._loop.time()
            if self._throttle is not None:
                on_wire = _with_tls(len(frame.pieces[0]))
                if not frame.waits:
                    self._throttle.spend(on_wire, now)
                elif wait := self._throttle.ask(self, on_wire, now):
                    self._next_piece = self._loop.call_later(wait, self._pump_on)
                    return
            piece = frame.pieces.popleft()
            transport.write(piece)
            self._traffic.sent += len(piece)
            self._last_sent = now
            if frame.pieces:
                # One piece for each turn of the loop, so that other tasks run, too.
                self._next_piece = self._loop.call_soon(self._pump_on)
                return
        if self._throttle is not None:
            self._throttle.leave(self)  # it may have waited for its turn until the peer stopped reading
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

    def held_back(self) -> float:
        """Return for how many seconds bytes had to wait because the peer did not read, by the kernel's count; 0.0 where
        that is not known. The kernel counts from the connection's beginning. Any thread may call it.
        """
        transport = self._transport
        if transport is None:
            return 0.0
        try:
            info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
            (microseconds,) = _HELD_BACK.unpack_from(info, _HELD_BACK_AT)
        except (AttributeError, OSError, ValueError, struct.error):  # closed meanwhile; no TCP; an older kernel
            return 0.0
        return float(microseconds) / 1e6

    # --- in ------------------------------------------------------------------------------------------------

    async def receive(self) -> Event:
        """Return the next event other than a heartbeat.

        After ChunkArriving the next call allocates memory for the chunk: make room first.

        Raises: RemoteProtocolError, Unreachable (silence; the connection was lost).
        """
        if self._arriving:
            await self._turns.make_room(self._arriving)
            self._arriving = 0
        while True:
            event = self._connection.next_event()
            if event is NEED_DATA:
                await self._read()
            elif isinstance(event, Heartbeat):
                self.peer_busy = event.busy
            else:
                self._arriving = event.payload_length if isinstance(event, ChunkArriving) else 0
                return event

    async def _read(self) -> None:
        """Return when more bytes have arrived, or the peer has closed its side. Raises: Unreachable."""
        if self._ended:
            if self._error is not None:
                raise self._lost()
            self._connection.receive_data(b"")
            return
        self._more = self._loop.create_future()
        # Silence counts from now: before, this side did not read.
        self._heard = self._loop.time()
        self._listen()
        self._read_on()
        try:
            await self._more
        finally:
            self._more = None
            self._listening.cancel()

    def _listen(self) -> None:
        """End the wait of `_read` after `silence` seconds without a byte. A timer of its own, because `buffer_updated`
        does not wake `_read` for each part of a chunk.
        """
        due = self._heard + self._silence
        if due > self._loop.time():
            self._listening = self._loop.call_at(due, self._listen)
        elif self._more is not None and not self._more.done():
            self._more.set_exception(Unreachable(f"{self._peer} has been silent for {self._silence:g} s"))

    def _read_on(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            if not self._waits_for_turn:
                self._transport.resume_reading()

    def _read_in_turn(self) -> None:
        self._waits_for_turn = False
        if self._reading and self._transport is not None:
            self._transport.resume_reading()

    def _lost(self) -> Unreachable:
        why = f": {reason(self._error)}" if self._error is not None else ""
        return Unreachable(f"the connection to {self._peer} was lost{why}")

    @property
    def idle(self) -> bool:
        """Whether a request may be sent now, as far as this side knows: none is under way, and the peer is there."""
        return self._connection.state is State.IDLE and not (self._ended or self._is_closing)

    @property
    def finished(self) -> int:
        """How many streams the sender has sent to their end: it tells one that waits for its receipt from another."""
        return self._connection.finished

    @property
    def takes_offer(self) -> bool:
        """Whether the next stream may be offered behind one that waits for its receipt. See Connection.takes_offer."""
        return self._connection.takes_offer and not (self._ended or self._is_closing)

    @property
    def offered(self) -> bool:
        """Whether an offer is the only thing that is under way, and the peer is there, as far as this side knows."""
        return self._connection.state is State.OFFERED and not (self._ended or self._is_closing)

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
                self._outbox.append(_Frame(deque([beat]), None))
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
        buffered = _WRITE_BUFFER
        if self._throttle is not None:
            # What the network does not take now, it takes in one burst later.
            buffered = min(buffered, self._throttle.buffered)
            with contextlib.suppress(AttributeError, OSError):  # lost meanwhile; no TCP
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, buffered)
        self._transport.set_write_buffer_limits(buffered)
        if self._language is not LOCAL:  # over a network nothing is said without TLS
            tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
            self.certificate = tls.getpeercert(binary_form=True) or None
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[explicit-override]
        self._error = exc
        self._ended = True
        # The transport refers to this object: without this, the memory of a chunk would wait for the cycle collector.
        self._transport = None
        if self._throttle is not None:
            self._throttle.leave(self)
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
        self._traffic.received += nbytes
        if self._in_place:
            self._connection.filled(nbytes)
        else:
            self._connection.receive_data(self._buffer[:nbytes])
        if self._in_place and self._connection.space() is not None:
            # `receive` has nothing to do before the rest of the payload is there.
            self._heard = self._loop.time()
        else:
            _settle(self._more)
        if self._transport is None:
            return
        if self._connection.unread > _READ_AHEAD:
            self._reading = False
            self._transport.pause_reading()
        if not self._turns.read(nbytes) and not self._waits_for_turn:
            self._waits_for_turn = True
            self._transport.pause_reading()
            self._turns.resume(self._read_in_turn)

    def pause_writing(self) -> None:  # type: ignore[explicit-override]
        self._paused = True

    def resume_writing(self) -> None:  # type: ignore[explicit-override]
        self._paused = False
        self._pump()


def _with_tls(count: int) -> int:
    """Return the bytes that TLS makes of so many."""
    return count + _TLS_OVERHEAD * -(-count // _TLS_RECORD)


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
