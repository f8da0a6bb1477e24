"""One connection to a receiver, from the sender's side: the receiver's identity, this host's identity, requests.

    async with connect(endpoint, identity) as link:
        await link.send(List(dataset=None))
        event = await link.receive()

fullsend_transport.channel moves the bytes. This module has the sender's part: the pin, the hello, refusals, pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from fullsend_protocol import __version__
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    ConnectionLost,
    ErrorCode,
    FullsendError,
    PeerError,
    ProtocolError,
    RemoteProtocolError,
    Unreachable,
    reason,
)
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.certificate import fingerprint
from fullsend_protocol.wire.connection import Chunk, ChunkArriving, ConnectionEnded, Role
from fullsend_transport.channel import Channel
from fullsend_transport.dial import Dial

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_transport.throttle import Throttle

PROGRAM: Final = f"fullsend {__version__}"

#: Characters of a message's text: the limit in fullsend_protocol.wire.messages.
TEXT_MAX: Final = 4096

_M = TypeVar("_M", bound=messages.ReceiverMessage)


class WrongReceiver(FullsendError):  # noqa: N818 - reads as what it says
    """The peer is not the receiver that was paired. Nothing was sent to it."""

    code = ErrorCode.UNKNOWN_SENDER
    exit_code = Exit.REFUSED


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The time limits of a connection, in seconds."""

    identify: float = limits.IDENTIFY_WITHIN  # from the first packet to the receiver's hello
    silence: float = limits.SILENCE  # while reading, without a single byte
    heartbeat: float = limits.HEARTBEAT_EVERY  # after this side's last byte
    linger: float = limits.LINGER  # at the end


DEFAULT_TIMEOUTS: Final = Timeouts()


class _EndedBeforeHello(Unreachable):
    """The connection ended after the TLS handshake and before the receiver's hello."""


class Link:
    """A connection to an identified receiver. Made by `connect` and `connect_unidentified`.

    After any error it can only be closed.
    """

    def __init__(self, endpoint: Endpoint, channel: Channel) -> None:
        """`channel`: connected; nothing was sent on it."""
        self.endpoint = endpoint
        self._channel = channel

    @property
    def peer_busy(self) -> str:
        """The reason why the receiver is not reading, from its last heartbeat."""
        return self._channel.peer_busy

    @property
    def idle(self) -> bool:
        """Whether a request may be sent now. See Channel.idle."""
        return self._channel.idle

    @property
    def finished(self) -> int:
        """How many streams were sent to their end. See Channel.finished."""
        return self._channel.finished

    @property
    def takes_offer(self) -> bool:
        """Whether the next stream may be offered behind one that waits for its receipt. See Channel.takes_offer."""
        return self._channel.takes_offer

    @property
    def offered(self) -> bool:
        """Whether an offer is the only thing that is under way. See Channel.offered."""
        return self._channel.offered

    def held_back(self) -> float:
        """Return for how many seconds bytes had to wait because the receiver did not read. See Channel.held_back."""
        return self._channel.held_back()

    # --- out -----------------------------------------------------------------------------------------------

    async def send(self, message: messages.SenderMessage) -> None:
        """Send a message. Raises: LocalProtocolError (nothing was sent), Unreachable."""
        await self._channel.send(message)

    async def send_chunk(self, chunk: Chunk) -> int:
        """Send a chunk, as fast as the receiver takes it and `--bwlimit` permits.

        Returns: bytes put on the wire. Raises: LocalProtocolError (nothing was sent), Unreachable.
        """
        return await self._channel.send_chunk(chunk)

    # --- in ------------------------------------------------------------------------------------------------

    async def receive(self) -> messages.ReceiverMessage | Chunk | ChunkArriving:
        """Return the next message or chunk of the receiver; heartbeats are processed.

        After ChunkArriving the next call allocates memory for the chunk: make room first, inside `not_reading` if that
        may take long.

        Raises: PeerError (the receiver reported an error), Unreachable (the connection ended, or there was no byte for
        the time of silence), RemoteProtocolError.
        """
        try:
            event = await self._channel.receive()
        except ConnectionLost as error:
            raise self._ended() from error
        match event:
            case ConnectionEnded():
                # In any state: a closed socket is never an answer.
                raise self._ended()
            case messages.Error(code=code, message=message):
                raise PeerError(code, f"{self.endpoint.name}: {message}")
            case _:
                # The channel of a sender returns only what a receiver may send.
                return event  # type: ignore[return-value]

    def _ended(self) -> Unreachable:
        return Unreachable(f"the connection to {self.endpoint.place} was lost")

    async def expect(self, kind: type[_M]) -> _M:
        """Return the next message, which must be of this kind. Raises: as `receive`."""
        message = await self.receive()
        if not isinstance(message, kind):
            raise self.unexpected(message)
        return message

    async def ask(self, question: messages.Question | messages.Join | messages.Known, kind: type[_M]) -> _M:
        """Send a request, and return the answer, which must be of this kind. Raises: as `receive`."""
        await self.send(question)
        return await self.expect(kind)

    async def pages(self, question: messages.Question, kind: type[_M]) -> AsyncIterator[_M]:
        """Send a request, and yield the messages of this kind that answer it, up to `done`. Raises: as `receive`."""
        await self.send(question)
        while not isinstance(message := await self.receive(), messages.Done):
            if not isinstance(message, kind):
                raise self.unexpected(message)
            yield message

    def unexpected(self, event: object) -> RemoteProtocolError:
        """Return the error for an event that is legal in this state, but that the caller did not expect."""
        what = getattr(event, "type", type(event).__name__.lower())
        return RemoteProtocolError(f"{self.endpoint.name}: unexpected {what!r}")

    # --- heartbeats ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def not_reading(self, why: str) -> Iterator[None]:
        """Make heartbeats inside say that this side has stopped reading, and why (one word)."""
        self._channel.busy = why
        try:
            yield
        finally:
            self._channel.busy = ""

    def start_heartbeat(self) -> None:
        """Begin to send heartbeats while nothing else is sent; until `close`."""
        self._channel.start_heartbeat()

    # --- the end -------------------------------------------------------------------------------------------

    def complain(self, code: ErrorCode, why: str) -> None:
        """Send the error that ends the connection, if that is still possible; `close` delivers it. Raises nothing."""
        self._channel.last_words(messages.Error(code=code, message=why[:TEXT_MAX]))

    async def close(self) -> None:
        """End the connection: what was sent is flushed, if the connection is still good. Raises nothing."""
        await self._channel.close()


@contextlib.asynccontextmanager
async def connect(
    endpoint: Endpoint, identity: Identity, *, timeouts: Timeouts = DEFAULT_TIMEOUTS, throttle: Throttle | None = None
) -> AsyncGenerator[tuple[Link, str]]:
    """Connect as an enrolled sender. On entry the connection is ready for requests.

    Yields: the link, and the name under which this host is enrolled. The link is closed at the end in any case.

    Raises: Unreachable, WrongReceiver (not the pinned certificate), PeerError (UNKNOWN_SENDER, REVOKED, VERSION, ...),
    UsageError (key or certificate cannot be read), RemoteProtocolError.
    """
    try:
        link, hello = await _open(endpoint, _context(identity), timeouts, throttle)
    except _EndedBeforeHello as early:
        # A refused certificate shows only as this. Ask once, instead of guessing.
        raise await _why_refused(endpoint, identity, timeouts, early) from early
    try:
        if hello.sender is None:
            raise PeerError(ErrorCode.UNKNOWN_SENDER, _unknown(endpoint))
        if limits.PROTOCOL_VERSION not in hello.versions:
            message = (
                f"{endpoint.name} ({hello.program}) speaks protocol versions {hello.versions},"
                f" {PROGRAM} speaks {limits.PROTOCOL_VERSION}: update the older one"
            )
            link.complain(ErrorCode.VERSION, message)
            raise PeerError(ErrorCode.VERSION, message)
        version = limits.PROTOCOL_VERSION
        features = [messages.WARNINGS, messages.REPAIR, messages.SCRUB, messages.IVSETS]
        await link.send(messages.SenderHello(program=PROGRAM, version=version, features=features))
        link.start_heartbeat()
        yield link, hello.sender
    except ProtocolError as error:
        link.complain(error.code, str(error))
        raise
    finally:
        await link.close()


@contextlib.asynccontextmanager
async def connect_unidentified(endpoint: Endpoint, *, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> AsyncIterator[Link]:
    """Connect without certificate. On entry the connection is ready for one `join` or `known?`.

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
    """Connect to any of the endpoint's addresses. Raises: Unreachable if none of them answers, and as `_open_one`."""
    failed: list[Unreachable] = []
    for one in endpoint.each():
        try:
            return await _open_one(one, context, timeouts, throttle)
        except _EndedBeforeHello:
            raise  # perhaps a refusal
        except Unreachable as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    raise Unreachable("; ".join(map(str, failed)))


async def _open_one(
    endpoint: Endpoint, context: ssl.SSLContext, timeouts: Timeouts, throttle: Throttle | None
) -> tuple[Link, messages.ReceiverHello]:
    """Connect, compare the pin, take the hello; all within `timeouts.identify`, which includes resolving the name."""
    channel = Channel(
        Role.SENDER,
        endpoint.place,
        silence=timeouts.silence,
        heartbeat_every=timeouts.heartbeat,
        linger=timeouts.linger,
        throttle=throttle,
    )
    link = Link(endpoint, channel)
    dial = Dial(endpoint.host, endpoint.port)
    try:
        async with asyncio.timeout(timeouts.identify):
            await channel.begin(await dial.connect(), context)
            _check_pin(endpoint, channel)
            try:
                hello = await link.expect(messages.ReceiverHello)
            except Unreachable as error:
                raise _EndedBeforeHello(
                    f"{endpoint.place}: the connection ended before the receiver's hello"
                ) from error
            return link, hello
    except BaseException as error:
        channel.abort()  # nothing was sent on it: no need to linger
        await channel.close()
        match error:
            case TimeoutError():
                message = f"{endpoint.place}: no answer within {timeouts.identify:g} s{dial.tried}"
                raise Unreachable(message) from None
            case OSError():
                raise Unreachable(f"{endpoint.place}: cannot connect: {reason(error)}") from error
            case _:
                raise


def _context(identity: Identity | None) -> ssl.SSLContext:
    """Return the TLS context.

    TLS checks no chain, no name and no date here: _check_pin compares the one paired certificate before a byte is sent.
    A copied certificate fails even so. In TLS 1.3 the peer signs the handshake with the certificate's key
    (CertificateVerify), and OpenSSL checks that signature whatever `verify_mode` says. This host's own certificate,
    which is sent in the handshake, is not a secret.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        identity.load_into(context)
    return context


def _check_pin(endpoint: Endpoint, channel: Channel) -> None:
    found = fingerprint(channel.certificate or b"")
    if found != endpoint.fingerprint:
        raise WrongReceiver(
            f"{endpoint.place}: the peer there is not the receiver that was paired: its certificate is"
            f" {found}, expected was {endpoint.fingerprint}; nothing was sent"
        )


async def _why_refused(
    endpoint: Endpoint, identity: Identity, timeouts: Timeouts, early: Unreachable
) -> PeerError | Unreachable:
    """Ask `known?`. Returns: the refusal; `early` itself if this host is enrolled, or there is no answer."""
    try:
        async with connect_unidentified(endpoint, timeouts=timeouts) as link:
            answer = await link.ask(messages.Known(fingerprint=identity.fingerprint()), messages.KnownAnswer)
    except (Unreachable, ProtocolError, PeerError):  # also a peer whose answer makes no sense
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
