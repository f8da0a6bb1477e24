"""What a command and the daemon beside it say to each other; and that nobody says it over a network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.protocol.helpers import ERROR, HELLO, HELLO_STRANGER, SENDER_HELLO

from fullsend_protocol.shared.errors import LocalProtocolError, RemoteProtocolError
from fullsend_protocol.wire import local, messages
from fullsend_protocol.wire.connection import (
    LOCAL,
    LOCAL_TRANSITIONS,
    TRANSITIONS,
    WIRE,
    Connection,
    ConnectionEnded,
    Language,
    Role,
    State,
)
from fullsend_protocol.wire.frames import FrameHeader, FrameType

ASK = local.SummariesWanted(sender=None, dataset=None, streams=None)
PAGE = local.Summaries(items=["7", '"\\udcff"'])
SCRUB = local.ScrubProgress(
    program="fullsendd 0",
    now="2026-11-23T07:00:00Z",
    every=1,
    limit=0,
    due=local.DueStreams(streams=1, stored_bytes=2, due_streams=1, due_bytes=2, next_due=None),
    reading=messages.BeingRead(file="alpha/tank/@now.zst", read_bytes=1, stored_bytes=2),
    asked_by="alpha",
    rate=None,
    stopped=False,
    resumes=None,
    busy=False,
)


def pass_on(speaker: Connection, listener: Connection, message: messages.Message) -> object:
    listener.receive_data(speaker.send(message))
    return listener.next_event()


def met(command_speaks: Language = LOCAL) -> tuple[Connection, Connection]:
    """A command and a daemon, after their hellos."""
    command, daemon = Connection(Role.SENDER, command_speaks), Connection(Role.RECEIVER, LOCAL)
    assert pass_on(daemon, command, HELLO_STRANGER) == HELLO_STRANGER
    assert pass_on(command, daemon, SENDER_HELLO) == SENDER_HELLO
    return command, daemon


def test_a_conversation() -> None:
    command, daemon = met()
    for _ in range(2):
        assert pass_on(command, daemon, ASK) == ASK
        for answer in (PAGE, PAGE, messages.Done()):
            assert pass_on(daemon, command, answer) == answer
    assert pass_on(command, daemon, local.ScrubWanted()) == local.ScrubWanted()
    assert pass_on(daemon, command, SCRUB) == SCRUB
    daemon.receive_data(b"")
    assert daemon.next_event() == ConnectionEnded()


def test_the_version_is_agreed_on_first() -> None:
    command, daemon = Connection(Role.SENDER, LOCAL), Connection(Role.RECEIVER, LOCAL)
    pass_on(daemon, command, HELLO_STRANGER)
    with pytest.raises(LocalProtocolError, match="version 7 is not spoken here"):
        command.send(SENDER_HELLO.model_copy(update={"version": 7}))


@pytest.mark.parametrize("message", [messages.List(dataset=None), messages.Check(), messages.Verify(dataset=None)])
def test_a_command_asks_for_nothing_that_a_sender_asks_for(message: messages.Question) -> None:
    command, daemon = met()
    daemon.receive_data(frame(message))
    with pytest.raises(RemoteProtocolError):
        daemon.next_event()
    with pytest.raises(LocalProtocolError):
        command.send(message)


def test_a_daemon_names_no_sender_here() -> None:
    with pytest.raises(LocalProtocolError):
        Connection(Role.RECEIVER, LOCAL).send(HELLO)


def test_nothing_of_this_is_said_over_a_network() -> None:
    sender, receiver = Connection(Role.SENDER, WIRE), Connection(Role.RECEIVER, WIRE)
    pass_on(receiver, sender, HELLO)
    pass_on(sender, receiver, SENDER_HELLO)
    receiver.receive_data(frame(ASK))
    with pytest.raises(RemoteProtocolError):
        receiver.next_event()
    with pytest.raises(LocalProtocolError):
        sender.send(ASK)
    mine = {messages.type_of(each) for request in local.REQUESTS for each in (request.ask, request.pages) if each}
    assert not mine & {what for _state, _who, what in TRANSITIONS}
    assert mine <= {what for _state, _who, what in LOCAL_TRANSITIONS}


def test_an_error_ends_it() -> None:
    command, daemon = met()
    pass_on(command, daemon, ASK)
    assert pass_on(daemon, command, ERROR) == ERROR
    assert command.state is State.CLOSED


@pytest.mark.parametrize(
    "said",
    [
        {"type": "summaries?", "sender": None, "dataset": None},
        {"type": "summaries?", "sender": "../x", "dataset": None, "streams": None},
        {"type": "summaries?", "sender": None, "dataset": "x" * 256, "streams": None},
        {"type": "summaries?", "sender": None, "dataset": None, "streams": ["a", "b", "c"]},
        {"type": "summaries?", "sender": None, "dataset": None, "streams": None, "more": 1},
        {"type": "scrub?", "sender": None},
        {"type": "push"},
        {"type": "eclipse"},
    ],
)
def test_what_a_command_may_not_say(said: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        local.decode_from_command(json.dumps(said).encode())


@pytest.mark.parametrize("said", [{"type": "summaries", "items": [7]}, {"type": "entries", "entries": []}])
def test_what_a_daemon_may_not_say(said: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        local.decode_from_daemon(json.dumps(said).encode())


def frame(message: messages.Message) -> bytes:
    payload = messages.encode(message)
    return FrameHeader(FrameType.CONTROL, len(payload)).encode() + payload
