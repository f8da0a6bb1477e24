from __future__ import annotations

import pytest

from fullsend_protocol.errors import (
    ChunkError,
    ErrorCode,
    FullsendError,
    IncompleteStream,
    PeerError,
    RemoteProtocolError,
    Unreachable,
    UsageError,
)
from fullsend_protocol.exits import Exit
from fullsend_sender.link import WrongReceiver
from fullsend_sender.outcome import Interrupted, exit_code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("x"), Exit.USAGE),
        (IncompleteStream("x"), Exit.FAILED),
        (ChunkError("x"), Exit.FAILED),
        (RemoteProtocolError("x"), Exit.FAILED),
        (FullsendError("x"), Exit.FAILED),
        (Unreachable("x"), Exit.UNREACHABLE),
        (Interrupted("x"), Exit.INTERRUPTED),
        (WrongReceiver("x"), Exit.REFUSED),
    ],
)
def test_errors_of_ours(error: FullsendError, expected: Exit) -> None:
    assert exit_code(error) is expected


def test_every_code_of_the_receiver() -> None:
    found = {code: exit_code(PeerError(code, "x")) for code in ErrorCode}
    assert found == {
        ErrorCode.PROTOCOL: Exit.FAILED,
        ErrorCode.VERSION: Exit.REFUSED,
        ErrorCode.UNKNOWN_SENDER: Exit.REFUSED,
        ErrorCode.REVOKED: Exit.REFUSED,
        ErrorCode.INVITATION: Exit.REFUSED,
        ErrorCode.LIMIT: Exit.UNREACHABLE,
        ErrorCode.SHUTDOWN: Exit.UNREACHABLE,
        ErrorCode.BUSY: Exit.RUNNING,
        ErrorCode.SPACE: Exit.REFUSED,
        ErrorCode.BASE: Exit.FAILED,
        ErrorCode.STREAM: Exit.FAILED,
        ErrorCode.CHUNK: Exit.FAILED,
        ErrorCode.NOT_FOUND: Exit.FAILED,
        ErrorCode.AMBIGUOUS: Exit.USAGE,
        ErrorCode.DAMAGED: Exit.FAILED,
        ErrorCode.STORE: Exit.REFUSED,
        ErrorCode.INTERNAL: Exit.FAILED,
    }
