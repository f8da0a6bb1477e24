"""A question to the daemon, and what is no answer to it. What the commands make of it: test_inventory.py."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fullsend_protocol.shared.errors import ErrorCode, PeerError, RemoteProtocolError, Unreachable
from fullsend_protocol.wire import local, messages
from fullsend_protocol.wire.connection import LOCAL, NEED_DATA, Connection, Role
from fullsend_receiver.catalogue.pages import VERSION
from fullsend_receiver.cli import asking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_receiver.store.local import LocalStore

HELLO = messages.ReceiverHello(program="fullsendd 9", versions=[VERSION], sender=None)
PROGRESS = local.ScrubProgress(
    program="fullsendd 9",
    now="2026-11-24T00:00:00Z",
    every=0,
    limit=0,
    due=None,
    reading=None,
    asked_by=None,
    rate=None,
    stopped=False,
    resumes=None,
    busy=False,
)


@contextlib.contextmanager
def daemon(*answers: messages.Message) -> Iterator[socket.socket]:
    """The command's end of a connection to one that says hello, hears a question, and says this."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            connection = Connection(Role.RECEIVER, LOCAL)
            theirs.sendall(connection.send(HELLO))
            heard = 0
            while heard < 2:  # the hello, and the question
                while connection.next_event() is not NEED_DATA:
                    heard += 1
                if heard < 2:
                    connection.receive_data(theirs.recv(65536))
            for answer in answers:
                theirs.sendall(connection.send(answer))

    thread = threading.Thread(target=serve)
    thread.start()
    ours.settimeout(60)
    with ours:
        yield ours
    thread.join()


def test_an_answer_of_one_message() -> None:
    with daemon(PROGRESS) as sock:
        assert asking.ask(sock, local.ScrubWanted(), local.ScrubProgress) == PROGRESS


def test_an_answer_in_pages() -> None:
    question = local.SummariesWanted(sender=None, dataset=None, streams=None)
    with daemon(local.Summaries(items=["1"]), local.Summaries(items=["2"]), messages.Done()) as sock:
        assert [page.items for page in asking.pages(sock, question, local.Summaries)] == [["1"], ["2"]]


def test_a_refusal_is_raised() -> None:
    with (
        daemon(messages.Error(code=ErrorCode.STORE, message="no disk")) as sock,
        pytest.raises(PeerError, match="no disk"),
    ):
        asking.ask(sock, local.ScrubWanted(), local.ScrubProgress)


def test_a_connection_that_ends_is_no_answer() -> None:
    with daemon() as sock, pytest.raises((Unreachable, RemoteProtocolError)):
        asking.ask(sock, local.ScrubWanted(), local.ScrubProgress)


def test_another_answer_than_that_is_refused() -> None:
    with daemon(PROGRESS) as sock, pytest.raises(RemoteProtocolError, match="unexpected 'scrub'"):
        asking.ask(sock, local.ScrubWanted(), local.Summaries)


def test_without_a_daemon_there_is_no_connection(store: LocalStore) -> None:
    assert asking.connect(store) is None
