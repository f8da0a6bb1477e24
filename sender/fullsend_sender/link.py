"""One live connection to a receiver: TLS, pin, hello, heartbeats; messages out, events in.

The wire's rules live in fullsend_protocol.connection; this is the shell that gives them a socket and a clock:

    async with connect(endpoint, identity) as link:
        await link.send(List(dataset=None))
        event = await link.receive()

One task may send while another receives. Nobody reads ahead: what `receive` has not asked for waits in the kernel and
in a buffer of READ_SIZE bytes, and `send_chunk` returns only when the chunk has left for the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from fullsend_protocol import __version__, limits, messages
from fullsend_protocol.connection import NEED_DATA, Chunk, ChunkArriving, Connection, Heartbeat, Role
from fullsend_protocol.errors import (
    ErrorCode,
    FullsendError,
    PeerError,
    ProtocolError,
    RemoteProtocolError,
    Unreachable,
)
from fullsend_protocol.identity import fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from fullsend_sender.identity import Identity
    from fullsend_sender.throttle import Throttle

PROGRAM: Final = f"fullsend {__version__}"

#: Bytes taken from the socket at a time. A TLS record is 16 KiB; this many make a chunk's arrival cheap.
READ_SIZE: Final = 256 << 10
#: Bytes of a chunk handed to TLS at a time: it copies and encrypts what it is given at once, so a whole chunk would
#: stand three times in memory.
WRITE_SIZE: Final = 256 << 10

#: Characters of a message's text, as fullsend_protocol.messages bounds them.
TEXT_MAX: Final = 4096

_M = TypeVar("_M", bound=messages.ReceiverMessage)


class WrongReceiver(FullsendError):  # noqa: N818 - reads as what it says
    """Who answers is not the receiver that was paired. Nothing was sent to it."""

    code = ErrorCode.UNKNOWN_SENDER


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a receiver is and who it must be: SHA-256 of its certificate's DER, in hex. `name` is ours for it."""

    name: str
    host: str
    port: int
    fingerprint: str

    @property
    def place(self) -> str:
        """Name and address, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name} ({host}:{self.port})"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All patience of a connection, in seconds."""

    identify: float = limits.IDENTIFY_WITHIN  # from the first packet to the receiver's hello
    silence: float = limits.SILENCE  # while reading, without a single byte
    heartbeat: float = limits.HEARTBEAT_EVERY  # after our own last byte
    linger: float = limits.LINGER  # at the end


PATIENCE: Final = Timeouts()


class _EndedEarly(Unreachable):
    """The connection ended after the TLS handshake and before the receiver's hello."""


class Link:
    """A connection that has shown who the receiver is. Made by `connect` and `connect_unidentified`.

    After any error, and after a cancelled `send` (nobody knows how much of it went out), it is good for nothing but
    being closed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        timeouts: Timeouts,
        throttle: Throttle | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.peer_busy = ""  # why the receiver is not reading, as its last heartbeat says
        self._reader, self._writer = streams
        self._timeouts = timeouts
        self._throttle = throttle
        self._connection = Connection(Role.SENDER)
        self._writing = asyncio.Lock()  # frames must not interleave
        self._last_sent = asyncio.get_running_loop().time()
        self._busy = ""
        self._broken = False
        self._heart: asyncio.Task[None] | None = None

    # --- out -----------------------------------------------------------------------------------------------

    async def send(self, message: messages.SenderMessage) -> None:
        """Say something. Raises: LocalProtocolError (nothing was sent), Unreachable."""
        async with self._writing:
            await self._write(self._connection.send(message))

    async def send_chunk(self, chunk: Chunk) -> int:
        """Send a chunk, as fast as the receiver takes it and `--bwlimit` lets us.

        Returns: bytes put on the wire. Raises: LocalProtocolError (nothing was sent), Unreachable.
        """
        async with self._writing:
            head, frame = self._connection.send_chunk(chunk)
            await self._write(head)
            view = memoryview(frame)
            size = self._throttle.slice(WRITE_SIZE) if self._throttle else WRITE_SIZE
            for start in range(0, len(view), size):
                piece = view[start : start + size]
                if self._throttle:
                    await asyncio.sleep(self._throttle.delay(len(piece), asyncio.get_running_loop().time()))
                await self._write(piece)
            return len(head) + len(frame)

    async def _write(self, data: bytes | memoryview) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            self._broken = True
            raise self._lost(error) from error
        except BaseException:
            self._broken = True
            raise
        self._last_sent = asyncio.get_running_loop().time()

    # --- in ------------------------------------------------------------------------------------------------

    async def receive(self) -> messages.ReceiverMessage | Chunk | ChunkArriving:
        """Return what the receiver says next; heartbeats are taken on the way.

        After ChunkArriving the next call takes memory for the chunk: make room first, inside `not_reading` if that
        may take long.

        Raises: PeerError (the receiver gave up), Unreachable (the connection ended, or nothing was heard for the
        time of silence), RemoteProtocolError.
        """
        while True:
            event = self._connection.next_event()
            match event:
                case Heartbeat(busy=busy):
                    self.peer_busy = busy
                case messages.Error(code=code, message=message):
                    raise PeerError(code, f"{self.endpoint.name}: {message}")
                case Chunk() | ChunkArriving():
                    return event
                case _ if event is NEED_DATA:
                    await self._read()
                case _:
                    # The connection hands a sender nothing but what a receiver may say.
                    return event  # type: ignore[return-value]

    async def expect(self, kind: type[_M]) -> _M:
        """Return the next message, which must be of this kind. Raises: as `receive`."""
        message = await self.receive()
        if not isinstance(message, kind):
            raise self.unexpected(message)
        return message

    async def pages(self, question: messages.SenderMessage, kind: type[_M]) -> AsyncIterator[_M]:
        """Ask, and yield the messages of this kind that answer it, up to `done`. Raises: as `receive`."""
        await self.send(question)
        while not isinstance(message := await self.receive(), messages.Done):
            if not isinstance(message, kind):
                raise self.unexpected(message)
            yield message

    def unexpected(self, event: object) -> RemoteProtocolError:
        """Return the error for an event that is legal at this point of the wire, and yet makes no sense to us."""
        what = getattr(event, "type", type(event).__name__.lower())
        return RemoteProtocolError(f"{self.endpoint.name}: unexpected {what!r}")

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._timeouts.silence):
                data = await self._reader.read(READ_SIZE)
        except TimeoutError:
            raise Unreachable(
                f"{self.endpoint.place}: nothing was heard for {self._timeouts.silence:.0f} s, not even a heartbeat"
            ) from None
        except OSError as error:
            raise self._lost(error) from error
        if not data:
            # Whatever the state: a closed socket is never an answer.
            raise self._lost(None)
        self._connection.receive_data(data)

    def _lost(self, error: OSError | None) -> Unreachable:
        why = f": {_reason(error)}" if error is not None else ""
        return Unreachable(f"{self.endpoint.place}: the connection was lost{why}")

    # --- heartbeats ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def not_reading(self, why: str) -> Iterator[None]:
        """Let heartbeats say meanwhile that we have stopped reading, and why (one word)."""
        self._busy = why
        try:
            yield
        finally:
            self._busy = ""

    def start_heart(self) -> None:
        """Begin to send heartbeats wherever nothing else is sent; until `close`."""
        self._heart = asyncio.create_task(self._beat(), name="heartbeat")

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, self._last_sent + self._timeouts.heartbeat - loop.time()))
            # A chunk on its way through a slow wire holds the lock, and is a sign of life by itself.
            async with self._writing:
                if loop.time() < self._last_sent + self._timeouts.heartbeat:
                    continue
                beat = self._connection.heartbeat(self._busy)
                if not beat:
                    return
                try:
                    await self._write(beat)
                except Unreachable:
                    return  # whoever reads or writes next says so

    # --- the end -------------------------------------------------------------------------------------------

    async def complain(self, error: ProtocolError) -> None:
        """Tell the receiver which rule was broken, for its log; as far as that is still possible. Raises nothing."""
        with contextlib.suppress(FullsendError, TimeoutError):
            async with asyncio.timeout(self._timeouts.linger):
                await self.send(messages.Error(code=error.code, message=str(error)[:TEXT_MAX]))

    async def close(self) -> None:
        """End the connection: what was sent is flushed, politely if the connection is still good. Raises nothing."""
        # A task of its own: to be interrupted in `wait_closed` is to break it for good.
        closed = asyncio.create_task(self._writer.wait_closed())
        try:
            if self._heart is not None:
                self._heart.cancel()
                await asyncio.gather(self._heart, return_exceptions=True)
            if self._broken:
                self._writer.transport.abort()
            self._writer.close()
            # TLS has no half-close on uvloop (write_eof raises); closing flushes, says close_notify and waits for the
            # peer's, and the peer's last words have been read by then: each exchange ends with the receiver's word.
            await asyncio.wait([closed], timeout=self._timeouts.linger)
        finally:
            # Where we are cancelled, too: what outlives the loop makes the command end with a traceback.
            self._writer.transport.abort()
            await asyncio.gather(closed, return_exceptions=True)


@contextlib.asynccontextmanager
async def connect(
    endpoint: Endpoint, identity: Identity, *, timeouts: Timeouts = PATIENCE, throttle: Throttle | None = None
) -> AsyncGenerator[tuple[Link, str]]:
    """Connect as an enrolled sender, to the point where something may be asked for.

    Yields: the link, and the name under which the receiver knows us. It is closed at the end, whatever happens.

    Raises: Unreachable, WrongReceiver (not the pinned certificate), PeerError (UNKNOWN_SENDER, REVOKED, VERSION, ...),
    UsageError (key or certificate cannot be read), RemoteProtocolError.
    """
    try:
        link, hello = await _open(endpoint, _context(identity), timeouts, throttle)
    except _EndedEarly as early:
        # A certificate that the receiver does not take shows as nothing but this. Ask once, instead of guessing.
        raise await _why_refused(endpoint, identity, timeouts, early) from early
    try:
        if hello.sender is None:
            raise PeerError(ErrorCode.UNKNOWN_SENDER, _unknown(endpoint))
        if limits.PROTOCOL_VERSION not in hello.versions:
            message = (
                f"{endpoint.name} ({hello.program}) speaks protocol versions {hello.versions},"
                f" {PROGRAM} speaks {limits.PROTOCOL_VERSION}: update the older one"
            )
            await link.send(messages.Error(code=ErrorCode.VERSION, message=message))
            raise PeerError(ErrorCode.VERSION, message)
        await link.send(messages.SenderHello(program=PROGRAM, version=limits.PROTOCOL_VERSION))
        link.start_heart()
        yield link, hello.sender
    except ProtocolError as error:
        await link.complain(error)
        raise
    finally:
        await link.close()


@contextlib.asynccontextmanager
async def connect_unidentified(endpoint: Endpoint, *, timeouts: Timeouts = PATIENCE) -> AsyncIterator[Link]:
    """Connect without certificate, to the point where one `join` or `known?` may be said.

    Raises: Unreachable, WrongReceiver, PeerError, RemoteProtocolError.
    """
    link, _hello = await _open(endpoint, _context(None), timeouts)
    try:
        yield link
    finally:
        await link.close()


async def _open(
    endpoint: Endpoint, context: ssl.SSLContext, timeouts: Timeouts, throttle: Throttle | None = None
) -> tuple[Link, messages.ReceiverHello]:
    """Connect, check the pin, take the hello; all within `timeouts.identify`."""
    link: Link | None = None
    try:
        async with asyncio.timeout(timeouts.identify):
            # No server name: the pin says who it must be, and a name in clear text would only tell listeners.
            streams = await asyncio.open_connection(
                endpoint.host, endpoint.port, ssl=context, server_hostname="", limit=READ_SIZE
            )
            link = Link(endpoint, streams, timeouts, throttle)
            _check_pin(endpoint, streams[1])
            try:
                hello = await link.expect(messages.ReceiverHello)
            except Unreachable as error:
                raise _EndedEarly(f"{endpoint.place}: the connection ended before the receiver's hello") from error
            return link, hello
    except BaseException as error:
        if link is not None:
            link._broken = True  # noqa: SLF001 - it is ours, and nothing was said on it: no need to linger
            await link.close()
        match error:
            case TimeoutError():
                raise Unreachable(f"{endpoint.place}: no answer within {timeouts.identify:.0f} s") from None
            case OSError():
                raise Unreachable(f"{endpoint.place}: cannot connect: {_reason(error)}") from error
            case _:
                raise


def _context(identity: Identity | None) -> ssl.SSLContext:
    """Return what TLS is made with.

    No chain, no name and no date is checked here: _check_pin decides by the one certificate that was paired, before
    a byte is sent. That it is no copy TLS 1.3 proves even so: the peer signs the handshake with the certificate's key
    (CertificateVerify), and OpenSSL checks that signature whatever `verify_mode` says. Our own certificate, which goes
    out in the handshake, is no secret.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        identity.load_into(context)
    return context


def _check_pin(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) or b""
    found = fingerprint(certificate)
    if found != endpoint.fingerprint:
        raise WrongReceiver(
            f"{endpoint.place}: who answers there is not the receiver that was paired: its certificate is"
            f" {found}, expected was {endpoint.fingerprint}; nothing was sent"
        )


async def _why_refused(
    endpoint: Endpoint, identity: Identity, timeouts: Timeouts, early: Unreachable
) -> PeerError | Unreachable:
    """Ask `known?`. Returns: the refusal; `early` itself if we are enrolled, or nobody answers."""
    try:
        async with connect_unidentified(endpoint, timeouts=timeouts) as link:
            await link.send(messages.Known(fingerprint=identity.fingerprint()))
            answer = await link.expect(messages.KnownAnswer)
    except (Unreachable, ProtocolError, PeerError):  # one that names us, whom it cannot know, lies
        return early
    match answer.status:
        case "revoked":
            return PeerError(
                ErrorCode.REVOKED,
                f"{endpoint.name} has revoked this host's certificate: ask for a new invitation"
                " (fullsendd invite NAME --replace)",
            )
        case "unknown":
            return PeerError(ErrorCode.UNKNOWN_SENDER, _unknown(endpoint))
        case _:
            return early


def _unknown(endpoint: Endpoint) -> str:
    return f"{endpoint.name} does not know this host's certificate: enrol it with `fullsend join INVITATION`"


def _reason(error: OSError) -> str:
    """Return what the system says, without numbers and Python's own wrapping."""
    return error.strerror or str(error) or type(error).__name__
