"""Every error of fullsend that is foreseen, as one tree; the type says whose fault it is.

    FullsendError                  one line for the user; `code` travels on the wire, `exit_code` ends either program
    +-- UsageError                 wrong arguments or configuration (exit 2)
    +-- StreamError                the send stream itself is at fault
    |   +-- NotASendStream         it does not begin as one
    |   +-- UnsupportedStream      a send stream of a sort we refuse by name (big-endian, resumed, too large)
    |   +-- IncompleteStream       it ends before its END records, or a package lacks snapshots
    |   +-- TrailingBytes          something follows its end
    |   +-- DamagedStream          a record that cannot be
    |   +-- NotTheSameStream       it does not go on where another one was cut
    +-- ChunkError                 a chunk does not decode to what was promised
    +-- ProtocolError
    |   +-- LocalProtocolError     we were about to say something illegal: a bug of ours
    |   +-- RemoteProtocolError    the peer said something illegal
    |       +-- ConnectionLost     it closed the connection in the middle of something
    +-- PeerError                  the peer told us of an error, by code
    +-- Unreachable                no connection, or it went away (exit 75)
    +-- OutputFailed               a result cannot be written to stdout
    +-- Interrupted                SIGINT or SIGTERM (exit 130)

A message is one line: it names the thing, what went wrong and, where something can be done, what to do.

Each class says with which exit code a program ends over it: 1, unless something else stands there. Classes elsewhere
do the same.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from fullsend_protocol.shared.exit_codes import Exit


class ErrorCode(StrEnum):
    """Why a side gives up, as it travels in an `error` message (docs/protocol.md lists them for other languages)."""

    PROTOCOL = "protocol"  # the peer broke the rules of the wire
    VERSION = "version"  # no protocol version in common
    UNKNOWN_SENDER = "unknown-sender"  # certificate not enrolled
    REVOKED = "revoked"  # certificate was enrolled and is no longer
    INVITATION = "invitation"  # spent, expired, forged
    LIMIT = "limit"  # a limit on connections or tries is reached: try again later
    SHUTDOWN = "shutdown"  # the daemon stops: try again later
    BUSY = "busy"  # the same stream is arriving on another connection
    SPACE = "space"  # the store is full, or would be
    BASE = "base"  # the base of an increment is not stored, or not restorable: send a full
    STREAM = "stream"  # the stream is at fault (incomplete, not what was announced, ...)
    CHUNK = "chunk"  # a chunk's hash or frame is wrong
    NOT_FOUND = "not-found"  # no such stream
    AMBIGUOUS = "ambiguous"  # several streams fit
    DAMAGED = "damaged"  # a stored stream does not verify
    STORE = "store"  # the store is missing, read-only, or its disk fails
    INTERNAL = "internal"  # a bug; the daemon's log has more


#: Refusals that pass by themselves: the sender tries again, and never exits 3 for them (design section 6).
TRANSIENT_CODES = frozenset({ErrorCode.LIMIT, ErrorCode.SHUTDOWN})

#: How a program ends over what its peer said. What is not here is FAILED.
_EXIT_OF_PEERS: Final = {
    ErrorCode.UNKNOWN_SENDER: Exit.REFUSED,
    ErrorCode.REVOKED: Exit.REFUSED,
    ErrorCode.INVITATION: Exit.REFUSED,
    ErrorCode.VERSION: Exit.REFUSED,
    ErrorCode.SPACE: Exit.REFUSED,
    ErrorCode.STORE: Exit.REFUSED,
    ErrorCode.BUSY: Exit.RUNNING,
    ErrorCode.AMBIGUOUS: Exit.USAGE,
    **dict.fromkeys(TRANSIENT_CODES, Exit.UNREACHABLE),
}


class FullsendError(Exception):
    """Base of all foreseen errors. `str(error)` is one line fit for a user."""

    code = ErrorCode.INTERNAL
    exit_code = Exit.FAILED


class UsageError(FullsendError):
    """Wrong arguments or configuration."""

    exit_code = Exit.USAGE


class StreamError(FullsendError):
    """The send stream itself is at fault."""

    code = ErrorCode.STREAM


class NotASendStream(StreamError):  # noqa: N818 - the field reads these as nouns: "not a send stream"
    """The bytes do not begin with a BEGIN record."""


class UnsupportedStream(StreamError):  # noqa: N818 - see NotASendStream
    """A send stream of a sort that is refused by name."""


class IncompleteStream(StreamError):  # noqa: N818 - see NotASendStream
    """The stream ended before its END records, or a package ended without all snapshots that it names."""


class TrailingBytes(StreamError):  # noqa: N818 - see NotASendStream
    """Bytes follow the stream's end."""


class DamagedStream(StreamError):  # noqa: N818 - see NotASendStream
    """A record that no `zfs send` writes."""


class NotTheSameStream(StreamError):  # noqa: N818 - see NotASendStream
    """What was to go on where a stream was cut does not belong to that stream: nothing of it may be used."""


class ChunkError(FullsendError):
    """A chunk's frame does not decode to the raw bytes that were promised."""

    code = ErrorCode.CHUNK


class ProtocolError(FullsendError):
    """The rules of the wire were broken; the connection is over."""

    code = ErrorCode.PROTOCOL


class LocalProtocolError(ProtocolError):
    """We were about to break the rules. Always a bug of ours; nothing was sent."""

    code = ErrorCode.INTERNAL


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules. `code` is what to answer."""

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        """`code`: where it is not simply PROTOCOL."""
        super().__init__(message)
        if code is not None:
            self.code = code


class ConnectionLost(RemoteProtocolError):  # noqa: N818 - see NotASendStream
    """The peer closed the connection in the middle of something: a cut wire or a killed program, rather than malice.
    A closed socket is never an end.
    """


class PeerError(FullsendError):
    """The peer sent an `error` message."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """`code` says what kind of refusal it is, `message` is the peer's own line."""
        super().__init__(message)
        self.code = code
        self.exit_code = _EXIT_OF_PEERS.get(code, Exit.FAILED)


class Unreachable(FullsendError):  # noqa: N818 - see NotASendStream
    """There is no connection to the peer, or it went away. What arrived is kept; run again."""

    exit_code = Exit.UNREACHABLE


class OutputFailed(FullsendError):  # noqa: N818 - reads as what it says
    """A result cannot be written to stdout. What was done is done."""


class Interrupted(FullsendError):  # noqa: N818 - no fault of anything
    """SIGINT or SIGTERM came. All has been cleaned up."""

    exit_code = Exit.INTERRUPTED
