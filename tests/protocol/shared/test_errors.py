from __future__ import annotations

import inspect
import re

import pytest
from tests.protocol.helpers import section, tables

from fullsend_protocol.shared import errors
from fullsend_protocol.shared.errors import (
    TRANSIENT_CODES,
    ChunkError,
    ConnectionLost,
    ErrorCode,
    FullsendError,
    IncompleteStream,
    Interrupted,
    LocalProtocolError,
    OutputFailed,
    PeerError,
    ProtocolError,
    RemoteProtocolError,
    StreamError,
    Unreachable,
    UsageError,
)
from fullsend_protocol.shared.exit_codes import Exit

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, FullsendError)]


def tree(of: type[FullsendError]) -> list[type[FullsendError]]:
    return [of, *(below for child in of.__subclasses__() if child in CLASSES for below in tree(child))]


def test_docstring_shows_the_tree_as_it_is() -> None:
    shown = re.findall(r"^ {4}([ |+-]*)(\w+)(?:  |$)", errors.__doc__ or "", re.MULTILINE)
    assert [(len(indent) // 4, name) for indent, name in shown] == [
        (len(found.__mro__) - len(FullsendError.__mro__), found.__name__) for found in tree(FullsendError)
    ]


def test_every_error_is_foreseen_and_has_a_code() -> None:
    assert set(tree(FullsendError)) == set(CLASSES)
    assert all(isinstance(found.code, ErrorCode) for found in CLASSES)


@pytest.mark.parametrize("found", [found for found in CLASSES if issubclass(found, StreamError)])
def test_every_fault_of_a_stream_travels_as_such(found: type[FullsendError]) -> None:
    assert found.code is ErrorCode.STREAM


def test_type_says_whose_fault_it_is() -> None:
    assert RemoteProtocolError("x").code is ErrorCode.PROTOCOL
    assert RemoteProtocolError("x", ErrorCode.VERSION).code is ErrorCode.VERSION
    assert ConnectionLost("x").code is ErrorCode.PROTOCOL
    assert LocalProtocolError("x").code is ErrorCode.INTERNAL
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
    assert issubclass(ConnectionLost, RemoteProtocolError)
    assert issubclass(LocalProtocolError, ProtocolError)


def test_peer_error_is_what_the_peer_said() -> None:
    error = PeerError(ErrorCode.SPACE, "the store is full")
    assert (str(error), error.code) == ("the store is full", ErrorCode.SPACE)
    assert FullsendError.code is ErrorCode.INTERNAL  # of the class: untouched


def test_what_passes_by_itself_is_no_refusal() -> None:
    """The sender retries on these, and never exits 3 for them."""
    assert set(TRANSIENT_CODES) == {ErrorCode.LIMIT, ErrorCode.SHUTDOWN}


def test_document_lists_every_code() -> None:
    (table,) = tables(section("Error codes"))
    assert [row["code"].strip("`") for row in table] == [code.value for code in ErrorCode]
    assert {row["code"].strip("`") for row in table if row["retry"] == "yes"} == {c.value for c in TRANSIENT_CODES}


# --- how a program ends over an error --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("x"), Exit.USAGE),
        (IncompleteStream("x"), Exit.FAILED),
        (ChunkError("x"), Exit.FAILED),
        (RemoteProtocolError("x"), Exit.FAILED),
        (FullsendError("x"), Exit.FAILED),
        (OutputFailed("x"), Exit.FAILED),
        (Unreachable("x"), Exit.UNREACHABLE),
        (Interrupted("x"), Exit.INTERRUPTED),
    ],
)
def test_errors_of_ours(error: FullsendError, expected: Exit) -> None:
    assert error.exit_code is expected


def test_every_code_of_the_receiver() -> None:
    found = {code: PeerError(code, "x").exit_code for code in ErrorCode}
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
        ErrorCode.PARTIAL: Exit.FAILED,
        ErrorCode.STORE: Exit.REFUSED,
        ErrorCode.INTERNAL: Exit.FAILED,
    }


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/a"), "No space left on device"),
        (OSError("odd"), "odd"),
        (ValueError("wrong"), "wrong"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_reason_is_what_a_person_can_read(error: Exception, said: str) -> None:
    assert errors.reason(error) == said
