"""All expected errors of fullsend, as one tree of classes. The class says which side is at fault.

    FullsendError                  one line for the user; `code` travels on the wire, `exit_code` ends either program
    +-- UsageError                 wrong arguments or configuration (exit 2)
    +-- StreamError                the send stream itself is at fault
    |   +-- NotASendStream         it does not begin as one
    |   +-- UnsupportedStream      a kind of send stream that is refused (big-endian, resumed, too large)
    |   +-- IncompleteStream       it ends before its END records, or a package lacks snapshots
    |   +-- TrailingBytes          bytes follow its end
    |   +-- DamagedStream          it has an impossible record
    |   |   +-- BlockDamaged       a compressed block does not decode
    |   +-- NotTheSameStream       it does not continue the stream that was cut
    +-- ChunkError                 a chunk does not decode to the announced bytes
    +-- ProtocolError
    |   +-- LocalProtocolError     this side was about to send something illegal: a bug in this program
    |   +-- RemoteProtocolError    the peer sent something illegal
    |       +-- ConnectionLost     it closed the connection in the middle of an exchange
    +-- PeerError                  the peer reported an error, by code
    +-- Unreachable                no connection, or it was lost (exit 75)
    +-- OutputFailed               a result cannot be written to stdout, or to a file
    +-- OutputExists               there is a file, or a folder, where a new one was to be
    +-- Interrupted                SIGINT or SIGTERM (exit 130)

A message is one line: it names the thing, what went wrong and, where something can be done, what to do.

`exit_code` of a class is the exit code of a program that this error ends: 1, unless the class sets another. Error
classes of other modules do the same.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from fullsend_protocol.shared.exit_codes import Exit


class ErrorCode(StrEnum):
    """The reason why a side ends the connection, as in an `error` message (docs/protocol.md has the same list)."""

    PROTOCOL = "protocol"  # the peer broke the rules of the wire
    VERSION = "version"  # no protocol version in common
    UNKNOWN_SENDER = "unknown-sender"  # certificate not enrolled
    REVOKED = "revoked"  # certificate was enrolled and is no longer
    INVITATION = "invitation"  # spent, expired, forged
    LIMIT = "limit"  # a limit on connections or tries, or of an object store, is reached: retry later
    SHUTDOWN = "shutdown"  # the daemon stops: retry later
    BUSY = "busy"  # the same stream is arriving on another connection
    SPACE = "space"  # the store is full, or would be
    BASE = "base"  # the base of an increment is not stored, or not restorable: send a full
    STREAM = "stream"  # the stream is at fault (incomplete, not what was announced, ...)
    CHUNK = "chunk"  # a chunk's hash or frame is wrong
    NOT_FOUND = "not-found"  # no such stream
    AMBIGUOUS = "ambiguous"  # several streams fit
    DAMAGED = "damaged"  # a stored stream does not verify
    PARTIAL = "partial"  # what had arrived of a stream is damaged, and set aside: send it again from its start
    STORE = "store"  # the store is missing, read-only, or its disk fails
    INTERNAL = "internal"  # a bug; the daemon's log has more


#: Refusals that do not last: the sender retries, and never exits 3 for them.
TRANSIENT_CODES = frozenset({ErrorCode.LIMIT, ErrorCode.SHUTDOWN})

#: The exit code for each error that the peer reports. All others are FAILED.
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
    """Base of all expected errors. `str(error)` is one line for a user."""

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
    """A kind of send stream that is refused by name."""


class IncompleteStream(StreamError):  # noqa: N818 - see NotASendStream
    """The stream ended before its END records, or a package ended without all snapshots that it names."""


class TrailingBytes(StreamError):  # noqa: N818 - see NotASendStream
    """Bytes follow the stream's end."""


class DamagedStream(StreamError):  # noqa: N818 - see NotASendStream
    """A record that no `zfs send` writes."""


class BlockDamaged(DamagedStream):
    """A compressed block in a record does not decode to the bytes that its record announces."""


class NotTheSameStream(StreamError):  # noqa: N818 - see NotASendStream
    """The stream does not continue the stream that was cut: nothing of it may be used."""


class ChunkError(FullsendError):
    """A chunk's frame does not decode to the announced raw bytes."""

    code = ErrorCode.CHUNK


class ProtocolError(FullsendError):
    """A side broke the rules of the wire; the connection is over."""

    code = ErrorCode.PROTOCOL


class LocalProtocolError(ProtocolError):
    """This side was about to break the rules. Always a bug in this program; nothing was sent."""

    code = ErrorCode.INTERNAL


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules. `code` is the code for the answer."""

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        """`code`: where it is not PROTOCOL."""
        super().__init__(message)
        if code is not None:
            self.code = code


class ConnectionLost(RemoteProtocolError):  # noqa: N818 - see NotASendStream
    """The peer closed the connection in the middle of an exchange: a cut connection or a killed program, not malice.
    A closed socket is never an end.
    """


class PeerError(FullsendError):
    """The peer sent an `error` message."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """`code`: the kind of refusal; `message`: the peer's own line."""
        super().__init__(message)
        self.code = code
        self.exit_code = _EXIT_OF_PEERS.get(code, Exit.FAILED)


class Unreachable(FullsendError):  # noqa: N818 - see NotASendStream
    """There is no connection to the peer, or it was lost. What arrived is kept; run again."""

    exit_code = Exit.UNREACHABLE


class OutputFailed(FullsendError):  # noqa: N818 - reads as what it says
    """A result cannot be written to stdout, or to a file. The work itself is done."""


class OutputExists(FullsendError):  # noqa: N818 - reads as what it says
    """There is something in the place of a new file, or in a folder that is to be empty."""


class Interrupted(FullsendError):  # noqa: N818 - no fault of anything
    """SIGINT or SIGTERM arrived. The program has cleaned up."""

    exit_code = Exit.INTERRUPTED


def describe(error: Exception) -> str:
    """Return an error for a message. The text of one that nobody has foreseen does not say enough by itself."""
    return str(error) if isinstance(error, FullsendError | OSError) else f"{type(error).__name__}: {error}"


def reason(error: Exception) -> str:
    """Return the system's text of an error, without numbers, names of files and Python's own wrapping."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
