"""One connection: which side may send which message when, and bytes to events and back. No I/O, and no clock.

Everything that affects the state is in this file, and is the same for both roles: each side applies the same table to
what it sends and to what it receives. What the table lacks is illegal.

Use: call `receive_data()` with what the peer sent, then `next_event()` until it returns NEED_DATA. `send()` and
`send_chunk()` return the bytes to write. After any ProtocolError the connection has failed for good. The caller may
only send one more `error`, so that the peer learns why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NoReturn

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from fullsend_protocol.wire import local, messages
from fullsend_protocol.wire.frames import FrameHeader, FrameReader, FrameType


class Role(Enum):
    """Which of the two programs a side is."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def peer(self) -> Role:
        """The other role."""
        return Role.RECEIVER if self is Role.SENDER else Role.SENDER


class State(Enum):
    """The state of the conversation."""

    OPENING = auto()  # the receiver sends hello next
    GREETED = auto()  # the receiver knows the peer's certificate; the sender's hello is next
    STRANGER = auto()  # the peer showed no certificate; it may send `join` or `known?`, nothing else
    JOINING = auto()
    ASKING = auto()
    IDLE = auto()  # the sender is identified, and may send a request
    OFFERED = auto()  # a push waits for accept or stored
    STREAMING = auto()  # chunks flow to the receiver, acknowledgements back
    FINISHING = auto()  # the sender has sent everything; the receiver commits
    AHEAD = auto()  # the same, and the next push waits behind it
    STOPPING = auto()  # the sender gave up; the receiver makes the partial durable
    REQUESTED = auto()  # a fetch waits for its stream
    SENDING = auto()  # chunks flow to the sender
    CLOSED = auto()  # no message is allowed any more
    FAILED = auto()  # a side broke a rule


@dataclass(frozen=True, slots=True)
class Asked:
    """A state: the receiver answers a question. `what`: the `type` of the question."""

    what: str

    @property
    def name(self) -> str:
        """The state's name in errors."""
        return f"asked {self.what}"


_ERROR: Final = "error"
_CHUNK: Final = "chunk"
#: A receiver's hello that names no sender.
_STRANGER: Final = "hello, stranger"

_Table = dict[tuple[State | Asked, Role, str], State | Asked]


def _rows(request: messages.Request) -> _Table:
    """Return the rows that a request adds to the table of transitions."""
    ask = messages.type_of(request.ask)
    asked = Asked(ask)
    rows: _Table = {
        (State.IDLE, Role.SENDER, ask): asked,
        (asked, Role.RECEIVER, messages.type_of(request.done)): State.IDLE,
    }
    if request.pages is not None:
        rows[asked, Role.RECEIVER, messages.type_of(request.pages)] = asked
    return rows


#: (state, speaker, message) -> next state. In addition, either side may send `error` at any time before the end, which
#: closes the connection. Only the sender may not send one before the receiver's hello.
TRANSITIONS: Final[_Table] = {
    (State.OPENING, Role.RECEIVER, "hello"): State.GREETED,
    (State.OPENING, Role.RECEIVER, _STRANGER): State.STRANGER,
    (State.GREETED, Role.SENDER, "hello"): State.IDLE,
    (State.STRANGER, Role.SENDER, "join"): State.JOINING,
    (State.STRANGER, Role.SENDER, "known?"): State.ASKING,
    (State.JOINING, Role.RECEIVER, "joined"): State.CLOSED,
    (State.ASKING, Role.RECEIVER, "known"): State.CLOSED,
    (State.IDLE, Role.SENDER, "push"): State.OFFERED,
    (State.OFFERED, Role.RECEIVER, "accept"): State.STREAMING,
    (State.OFFERED, Role.RECEIVER, "stored"): State.IDLE,
    (State.STREAMING, Role.SENDER, _CHUNK): State.STREAMING,
    (State.STREAMING, Role.RECEIVER, "ack"): State.STREAMING,
    (State.STREAMING, Role.SENDER, "finish"): State.FINISHING,
    (State.STREAMING, Role.SENDER, "stop"): State.STOPPING,
    (State.FINISHING, Role.RECEIVER, "ack"): State.FINISHING,
    (State.FINISHING, Role.RECEIVER, "committed"): State.IDLE,
    (State.FINISHING, Role.RECEIVER, "stored"): State.IDLE,
    (State.FINISHING, Role.SENDER, "push"): State.AHEAD,
    (State.AHEAD, Role.RECEIVER, "ack"): State.AHEAD,
    (State.AHEAD, Role.RECEIVER, "committed"): State.OFFERED,
    (State.AHEAD, Role.RECEIVER, "stored"): State.OFFERED,
    (State.STOPPING, Role.RECEIVER, "ack"): State.STOPPING,
    (State.STOPPING, Role.RECEIVER, "stopped"): State.IDLE,
    (State.IDLE, Role.SENDER, "fetch"): State.REQUESTED,
    (State.REQUESTED, Role.RECEIVER, "sending"): State.SENDING,
    (State.SENDING, Role.RECEIVER, _CHUNK): State.SENDING,
    (State.SENDING, Role.RECEIVER, "done"): State.IDLE,
    **{row: after for request in messages.REQUESTS for row, after in _rows(request).items()},
}
#: The same between a command and the daemon on its host. The command is in the sender's role, without a certificate.
LOCAL_TRANSITIONS: Final[_Table] = {
    (State.OPENING, Role.RECEIVER, _STRANGER): State.STRANGER,
    (State.STRANGER, Role.SENDER, "hello"): State.IDLE,
    **{row: after for request in local.REQUESTS for row, after in _rows(request).items()},
}


@dataclass(frozen=True, slots=True)
class Language:
    """The messages of a connection. `table`: as TRANSITIONS; `decode`: reads a message of this role."""

    table: Mapping[tuple[State | Asked, Role, str], State | Asked]
    decode: Mapping[Role, Callable[[bytes | bytearray], messages.Message]]


#: The language of docs/protocol.md.
WIRE: Final = Language(
    TRANSITIONS, {Role.SENDER: messages.decode_from_sender, Role.RECEIVER: messages.decode_from_receiver}
)
#: The language between a command and the daemon on its host.
LOCAL: Final = Language(
    LOCAL_TRANSITIONS, {Role.SENDER: local.decode_from_command, Role.RECEIVER: local.decode_from_daemon}
)

_ENDED: Final = frozenset({State.CLOSED, State.FAILED})
#: States in which the receiver does not know the peer yet, and accepts only small messages.
_UNIDENTIFIED: Final = frozenset({State.OPENING, State.GREETED, State.STRANGER, State.JOINING, State.ASKING})
#: States in which the end of the connection interrupts nothing.
_QUIET: Final = frozenset({State.IDLE, State.CLOSED, State.FAILED})


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk on the wire.

    `sha256`: running SHA-256 of its segment, this chunk included (32 bytes); `frame`: one zstd frame of `raw_length`
    raw bytes that begin at `raw_offset` of the stream; `starts_segment`: the hash starts with this chunk.
    """

    raw_offset: int
    raw_length: int
    sha256: bytes | memoryview
    frame: bytes | memoryview
    starts_segment: bool = False


@dataclass(frozen=True, slots=True)
class ChunkArriving:
    """The header of a chunk arrived. The next call of `next_event` allocates `payload_length` bytes for it: the caller
    waits before that call until there is room.
    """

    payload_length: int
    raw_length: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The peer is alive. `busy`: why it is not reading, "" if it is."""

    busy: str


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """The peer closed the connection while nothing was under way."""


class NeedData(Enum):
    """The type of NEED_DATA: neither an error nor an end."""

    NEED_DATA = auto()


NEED_DATA: Final = NeedData.NEED_DATA

Event = messages.Message | ChunkArriving | Chunk | Heartbeat | ConnectionEnded


class Connection:
    """The state of one connection, as seen by one role."""

    def __init__(self, role: Role, language: Language = WIRE) -> None:
        """Start before the receiver's hello. `role`: of this side; `language`: which messages are allowed."""
        self.role = role
        self._language = language
        self.state: State | Asked = State.OPENING
        self._reader = FrameReader()
        self._announced: FrameHeader | None = None
        self._ended = False  # the peer has closed its side
        self._deaf = False  # this side has sent its last message: ignore what the peer sent before it read that
        self._gave_up = False  # this side has sent `error`
        self._versions: list[int] = []  # the receiver's
        self.finished = 0  # streams that the sender has sent to their end
        self._pipelined = False  # the receiver permits an offer before the receipt of the stream before
        self._next_offset = 0  # where the next chunk must begin
        self._durable = 0  # the last acknowledged offset
        self._end = limits.OFFSET_END  # where the last chunk must end
        self._until = limits.OFFSET_END  # no chunk may begin here or later
        self._in_segment = False  # the next chunk may continue the running hash of the chunk before it

    @property
    def takes_offer(self) -> bool:
        """Whether a stream has come to its end, its receipt has not come, and the next one may be offered already."""
        return self.state is State.FINISHING and self._pipelined

    # --- bytes to events -----------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Bytes that the peer sent and that are in no event yet, without the payload that is being filled."""
        return self._reader.unread

    def receive_data(self, data: bytes | memoryview) -> None:
        """Take what the peer sent; b"": it closed its side."""
        if not data:
            self._ended = True
        elif not self._deaf:
            self._reader.feed(data)

    def space(self) -> memoryview | None:
        """Return memory of the chunk or message that is arriving, for the peer's next bytes; None: use `receive_data`.
        Report what was written to `filled` before any other call.
        """
        return self._reader.space()

    def filled(self, count: int) -> None:
        """Take the first `count` bytes of what `space` returned: the peer sent them."""
        self._reader.filled(count)

    def next_event(self) -> Event | NeedData:
        """Return the next event, or NEED_DATA.

        Raises: RemoteProtocolError if the peer broke a rule; then the state is FAILED for good. ConnectionLost, which
        is such an error, if the connection ended while something was under way: a closed socket is never a regular end.
        Any other exception is a bug.
        """
        if self.state is State.FAILED:
            msg = "the connection has failed before"
            raise RemoteProtocolError(msg)
        try:
            return self._next_event()
        except ProtocolError:
            self._fail()
            raise

    def _next_event(self) -> Event | NeedData:
        header = self._reader.header()
        if header is None:
            return self._at_end() if self._ended else NEED_DATA
        if header is not self._announced:
            self._check_header(header)
            self._announced = header
            if header.type is FrameType.CHUNK:
                return ChunkArriving(header.payload_length, header.raw_length)
        payload = self._reader.payload()
        if payload is None:
            return self._at_end() if self._ended else NEED_DATA
        self._announced = None
        if header.type is FrameType.CHUNK:
            return self._take_chunk(header, payload)
        if header.type is FrameType.HEARTBEAT:
            return Heartbeat(_take_word(payload))
        message = self._language.decode[self.role.peer](payload)
        self._said(self.role.peer, message)
        return message

    def _at_end(self) -> ConnectionEnded:
        if self._reader.inside_frame or self.state not in _QUIET:
            msg = f"the connection ended in state {self.state.name.lower()}"
            raise ConnectionLost(msg)
        return ConnectionEnded()

    def _check_header(self, header: FrameHeader) -> None:
        """Refuse what is illegal by its header alone, before memory is allocated for the payload."""
        what = f"a {header.type.name} frame of {header.payload_length} bytes"
        if self.state in _ENDED:
            msg = f"{what} after the end of the conversation"
            raise RemoteProtocolError(msg)
        if self.state is State.OPENING and (self.role is Role.RECEIVER or header.type is not FrameType.CONTROL):
            msg = f"{what} before the receiver's hello"
            raise RemoteProtocolError(msg)
        if header.type is FrameType.CHUNK:
            self._advance(self.role.peer, _CHUNK)
            self._check_place(self.role.peer, header)
        elif header.payload_length > self._control_max:
            msg = f"{what} before the peer is identified: at most {self._control_max} are allowed"
            raise RemoteProtocolError(msg)

    def _take_chunk(self, header: FrameHeader, payload: bytearray) -> Chunk:
        self.state = self._advance(self.role.peer, _CHUNK)
        self._next_offset += header.raw_length
        self._in_segment = True
        view = memoryview(payload).toreadonly()
        sha256, frame = view[: limits.DIGEST_SIZE], view[limits.DIGEST_SIZE :]
        return Chunk(header.raw_offset, header.raw_length, sha256, frame, header.starts_segment)

    # --- events to bytes -----------------------------------------------------------------------------------

    def send(self, message: messages.Message) -> bytes:
        """Return the frame of a message.

        Raises: LocalProtocolError if the message is not allowed now: nothing was sent, and the connection has failed.
        On a failed connection one `error` is still allowed.
        """
        try:
            payload = messages.encode(message)
            if len(payload) > self._control_max:
                msg = f"a {message.type!r} message of {len(payload)} bytes: at most {self._control_max} are allowed now"
                raise LocalProtocolError(msg)
            self._said(self.role, message)
            return FrameHeader(FrameType.CONTROL, len(payload)).encode() + payload
        except ProtocolError:
            self._fail()
            raise

    def send_chunk(self, chunk: Chunk) -> tuple[bytes, bytes | memoryview]:
        """Return a chunk's frame in two parts, the second being `chunk.frame` itself, uncopied.

        Raises: LocalProtocolError if a chunk, or this one, is not allowed now; see `send`.
        """
        try:
            state = self._advance(self.role, _CHUNK)
            length = limits.DIGEST_SIZE + len(chunk.frame)
            header = FrameHeader(FrameType.CHUNK, length, chunk.raw_offset, chunk.raw_length, chunk.starts_segment)
            self._check_place(self.role, header)
            head = header.encode()
            if len(chunk.sha256) != limits.DIGEST_SIZE:
                msg = f"a chunk with a SHA-256 of {len(chunk.sha256)} bytes"
                raise LocalProtocolError(msg)
        except ProtocolError:
            self._fail()
            raise
        self.state = state
        self._next_offset += chunk.raw_length
        self._in_segment = True
        return head + bytes(chunk.sha256), chunk.frame

    def heartbeat(self, busy: str = "") -> bytes:
        """Return a heartbeat's frame, b"" if none is allowed. `busy`: why this side is not reading, a word."""
        if self.state in _ENDED or self.state is State.OPENING:
            return b""
        payload = "".join(c if c.isascii() and c.isprintable() else "?" for c in busy).encode()[: limits.HEARTBEAT_MAX]
        return FrameHeader(FrameType.HEARTBEAT, len(payload)).encode() + payload

    # --- the rules -----------------------------------------------------------------------------------------

    @property
    def _control_max(self) -> int:
        """The allowed length of a message now."""
        return limits.UNIDENTIFIED_MAX if self.state in _UNIDENTIFIED else limits.CONTROL_MAX

    def _said(self, speaker: Role, message: messages.Message) -> None:
        """Compare a message with the rules, whichever side sent it, and update the state."""
        if isinstance(message, messages.Error):
            self._said_error(speaker)
            return
        stranger = isinstance(message, messages.ReceiverHello) and message.sender is None
        after = self._advance(speaker, _STRANGER if stranger else message.type)
        match message:
            case messages.ReceiverHello():
                self._versions = message.versions
                self._pipelined = messages.PIPELINED in message.features
            case messages.Push() if after is State.AHEAD and not self._pipelined:
                self._blame(speaker, f"{message.type!r} before the receipt of the stream before")
            case messages.SenderHello(version=version) if version not in self._versions:
                offered = ", ".join(map(str, self._versions))
                self._blame(speaker, f"protocol version {version} is not spoken here; {offered} is", ErrorCode.VERSION)
            case messages.Accept(offset=offset):
                self._check_segments(speaker, message.segments, offset)
                self._next_offset = self._durable = offset
                self._end = self._until = limits.OFFSET_END
                self._in_segment = False
                if message.record is not None and not offset:
                    self._blame(speaker, f"{message.type!r} with a record before raw offset 0")
            case messages.Ack(offset=offset) | messages.Stopped(offset=offset) if offset > self._next_offset:
                self._blame(speaker, f"{message.type!r} of {offset} raw bytes: {self._next_offset} have been sent")
            case messages.Ack(offset=offset):
                if offset < self._durable:
                    self._blame(speaker, f"'ack' of {offset} raw bytes after one of {self._durable}")
                self._durable = offset
            case messages.Finish(raw_bytes=raw_bytes):
                if raw_bytes != self._next_offset:
                    self._blame(speaker, f"'finish' at {raw_bytes} raw bytes: {self._next_offset} have been sent")
                self._check_segments(speaker, message.segments, raw_bytes)
                self.finished += 1
            case messages.Fetch(offset=offset, until=until):
                self._next_offset, self._until = offset, limits.OFFSET_END if until is None else until
            case messages.Sending(manifest=manifest):
                if self._next_offset > manifest.raw_bytes:
                    self._blame(speaker, f"'sending' from raw offset {self._next_offset} of {manifest.raw_bytes}")
                self._end, self._in_segment = manifest.raw_bytes, True
            case messages.Done() if self.state is State.SENDING and self._next_offset < min(self._until, self._end):
                self._blame(speaker, f"'done' after {self._next_offset} raw bytes of {self._end}")
        self._enter(after, speaker)

    def _said_error(self, speaker: Role) -> None:
        own = speaker is self.role
        too_early = self.state is State.OPENING and speaker is Role.SENDER
        too_late = self.state is State.CLOSED or (self.state is State.FAILED and not (own and not self._gave_up))
        if too_early or too_late:
            self._blame(speaker, f"{_ERROR!r} from the {speaker.value} in state {self.state.name.lower()}")
        self._gave_up = self._gave_up or own
        if self.state is not State.FAILED:
            self._enter(State.CLOSED, speaker)

    def _enter(self, after: State | Asked, speaker: Role) -> None:
        self.state = after
        if after is State.CLOSED and speaker is self.role:
            self._deafen()

    def _fail(self) -> None:
        self.state = State.FAILED
        self._deafen()

    def _deafen(self) -> None:
        self._deaf = True
        self._reader = FrameReader()
        self._announced = None

    def _advance(self, speaker: Role, what: str) -> State | Asked:
        """Return the state after this message. Raises: ProtocolError if it is not allowed."""
        after = self._language.table.get((self.state, speaker, what))
        if after is None:
            if self.state is State.STRANGER and what == "hello":
                why = "no certificate was shown: pair this host first (fullsend join)"
                self._blame(speaker, why, ErrorCode.UNKNOWN_SENDER)
            self._blame(speaker, f"{what!r} from the {speaker.value} in state {self.state.name.lower()}")
        return after

    def _check_place(self, speaker: Role, header: FrameHeader) -> None:
        """Compare a chunk's place in the stream with what is allowed."""
        if header.raw_offset != self._next_offset:
            self._blame(speaker, f"a chunk at raw offset {header.raw_offset}: {self._next_offset} was expected")
        if not (header.starts_segment or self._in_segment):
            self._blame(speaker, f"a chunk at raw offset {header.raw_offset}, the first of a push, starts no segment")
        if header.raw_offset >= self._until:
            self._blame(speaker, f"a chunk at raw offset {header.raw_offset}: wanted are those before {self._until}")
        if header.raw_offset + header.raw_length > self._end:
            self._blame(speaker, f"a chunk to raw offset {header.raw_offset + header.raw_length} of {self._end}")

    def _check_segments(self, speaker: Role, segments: list[Segment], end: int) -> None:
        """Check that segments cover the stream from its start to `end`, each beginning where the one before it ends."""
        place = 0
        for segment in segments:
            if segment.start != place or segment.end <= place:
                self._blame(speaker, f"a segment from {segment.start} to {segment.end}, where {place} was reached")
            place = segment.end
        if place != end:
            self._blame(speaker, f"segments that cover {place} raw bytes of {end}")

    def _blame(self, speaker: Role, what: str, code: ErrorCode | None = None) -> NoReturn:
        if speaker is self.role:
            raise LocalProtocolError(what)
        raise RemoteProtocolError(what, code)


def _take_word(payload: bytearray) -> str:
    word = payload.decode("ascii", errors="replace")
    if not (word.isascii() and word.isprintable()):
        msg = "a heartbeat whose reason is not printable ASCII"
        raise RemoteProtocolError(msg)
    return word
