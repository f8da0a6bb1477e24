"""What a run's end means to its caller: the exit code of every error, in one table.

0    all done
1    something failed: the stream is at fault or was cut, something is damaged, not found, or a bug
2    usage or configuration; a STREAM that fits several
3    refused: identity (ours is not enrolled, or the receiver is not the one that was paired), invitation,
     protocol version, quota, space, and a store that is missing or cannot be written
4    the same stream is just being sent by somebody else
75   the receiver could not be reached, went away, stops, or has no room for another connection: run again
130  interrupted, by SIGINT or SIGTERM: either way it was the user, or the system on the user's behalf
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.errors import TRANSIENT_CODES, ErrorCode, FullsendError, PeerError, Unreachable, UsageError
from fullsend_protocol.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What the receiver says to Exit; what is not here is FAILED.
_BY_CODE: Final = {
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


class Interrupted(FullsendError):  # noqa: N818 - no fault of anything
    """SIGINT or SIGTERM came. All has been cleaned up."""


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the exit code of a run in which several things went wrong: theirs where they agree, else FAILED."""
    found = set(codes)
    return found.pop() if len(found) == 1 else Exit.FAILED if found else Exit.OK


def exit_code(error: FullsendError) -> Exit:
    """Return the exit code that says what went wrong."""
    match error:
        case Interrupted():
            return Exit.INTERRUPTED
        case UsageError():
            return Exit.USAGE
        case Unreachable():
            return Exit.UNREACHABLE
        case PeerError(code=code):
            return _BY_CODE.get(code, Exit.FAILED)
        # Not from the peer's mouth, and yet about who somebody is: WrongReceiver.
        case FullsendError(code=ErrorCode.UNKNOWN_SENDER):
            return Exit.REFUSED
        case FullsendError(code=ErrorCode.BUSY):
            return Exit.RUNNING
        case _:
            return Exit.FAILED
