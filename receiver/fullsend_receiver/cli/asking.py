"""A question to the daemon on this host, over the socket in the store (fullsend_receiver.daemon.local_socket)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import fullsend_protocol
from fullsend_protocol.shared.errors import PeerError, ProtocolError, RemoteProtocolError, Unreachable
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import LOCAL, NEED_DATA, Connection, ConnectionEnded, Heartbeat, Role
from fullsend_protocol.wire.local import Working
from fullsend_receiver.catalogue.pages import VERSION
from fullsend_receiver.daemon import local_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from fullsend_protocol.wire.live import LiveTransfer
    from fullsend_protocol.wire.messages import Answer, Question
    from fullsend_receiver.store.api import Store

_A = TypeVar("_A", bound="Answer")

#: Seconds that the daemon may take for each part of its answer. Its first reading of a large store on a slow disk takes
#: longest; a command that gives up reads the disk itself.
ANSWER_TIMEOUT: Final = 15.0
_READ_SIZE: Final = 64 << 10


def connect(store: Store) -> socket.socket | None:
    """Connect to the daemon that serves a store; None if there is none, or none that this user may ask.

    Raises: StoreError, TimeoutError, as local_socket.connect.
    """
    return local_socket.connect(store, ANSWER_TIMEOUT)


def pages(sock: socket.socket, question: Question, kind: type[_A]) -> Iterator[_A]:
    """Ask, and yield the messages of this kind that answer it, up to `done`. `sock`: as returned by `connect`.

    Raises: Unreachable, PeerError, ProtocolError, OSError.
    """
    daemon = _asked(sock, question)
    while not isinstance(page := daemon.hear(), messages.Done):
        if not isinstance(page, kind):
            raise daemon.unexpected(page)
        yield page


def ask(sock: socket.socket, question: Question, kind: type[_A]) -> _A:
    """Ask, and return the answer, which is one message of this kind. `sock`, Raises: as `pages`."""
    daemon = _asked(sock, question)
    answer = daemon.hear()
    if not isinstance(answer, kind):
        raise daemon.unexpected(answer)
    return answer


class Telling:
    """Tells the daemon what this command does, as long as the connection is open."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock`: as returned by `connect`. Raises: as `pages`."""
        self._daemon = _greeted(sock)

    def tell(self, transfer: LiveTransfer | None) -> None:
        """Tell it; None: nothing at the moment. Raises: as `pages`."""
        self._daemon.say(Working(transfer=transfer))
        answer = self._daemon.hear()
        if not isinstance(answer, messages.Noted):
            raise self._daemon.unexpected(answer)


def _asked(sock: socket.socket, question: Question) -> _Conversation:
    daemon = _greeted(sock)
    daemon.say(question)
    return daemon


def _greeted(sock: socket.socket) -> _Conversation:
    daemon = _Conversation(sock)
    hello = daemon.hear()
    if not isinstance(hello, messages.ReceiverHello):
        raise daemon.unexpected(hello)
    if VERSION not in hello.versions:
        msg = f"it is {hello.program}, which answers only commands of its own version: restart it"
        raise RemoteProtocolError(msg)
    program = f"fullsendd {fullsend_protocol.__version__}"
    daemon.say(messages.SenderHello(program=program, version=VERSION))
    return daemon


class _Conversation:
    """A connection to the daemon. Its socket has a timeout."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._connection = Connection(Role.SENDER, LOCAL)

    def say(self, message: messages.Message) -> None:
        self._socket.sendall(self._connection.send(message))

    def hear(self) -> messages.Message:
        """Return the daemon's next message. Raises: Unreachable, PeerError, ProtocolError, OSError."""
        while True:
            event = self._connection.next_event()
            if event is NEED_DATA:
                self._connection.receive_data(self._read())
            elif isinstance(event, messages.Error):
                raise PeerError(event.code, event.message)
            elif isinstance(event, ConnectionEnded):
                msg = "it has closed the connection"
                raise Unreachable(msg)
            elif not isinstance(event, Heartbeat):
                return event  # type: ignore[return-value]  # no chunk is in the table

    def unexpected(self, event: messages.Message) -> ProtocolError:
        return RemoteProtocolError(f"unexpected {event.type!r}")

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_READ_SIZE)
        except TimeoutError:
            msg = f"it has sent nothing for {self._socket.gettimeout():g} s"
            raise Unreachable(msg) from None
