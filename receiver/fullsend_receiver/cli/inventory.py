"""What is stored, for a command: from the daemon that serves the store, or if none runs, from the disk.

Both give the same result. The daemon has it in memory; reading the disk means examining each manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

import fullsend_protocol
from fullsend_protocol.shared.errors import (
    FullsendError,
    PeerError,
    ProtocolError,
    RemoteProtocolError,
    Unreachable,
    reason,
)
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import LOCAL, NEED_DATA, Connection, ConnectionEnded, Heartbeat, Role
from fullsend_protocol.wire.local import Summaries, SummariesWanted
from fullsend_receiver.catalogue.pages import VERSION, Pages
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.cli.results import complain
from fullsend_receiver.daemon import local_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from fullsend_receiver.catalogue.streams import Catalogue
    from fullsend_receiver.store.local import LocalStore

#: Seconds that the daemon may take for each part of its answer. Its first reading of a large store on a slow disk takes
#: longest; a command that gives up reads the disk itself.
ANSWER_TIMEOUT: Final = 15.0
_READ_SIZE: Final = 64 << 10


def read_inventory(
    store: LocalStore, sender: str | None = None, *, dataset: str | None = None, streams: Sequence[str] | None = None
) -> Catalogue:
    """Return what is stored of a sender, None: of all. `dataset`, `streams`: what the caller needs; the catalogue may
    lack streams that no answer about these depends on. Blocks.

    A daemon that does not answer is named on stderr. Raises: StoreError, OSError if the store cannot be read.
    """
    try:
        question = SummariesWanted(sender=sender, dataset=dataset, streams=None if streams is None else [*streams])
    except ValidationError:  # a name that no message can have: no stream has it either
        return read_catalogue(store, sender)
    try:
        found = _ask_daemon(store, question)
    except (FullsendError, OSError, ValueError, TypeError, IndexError) as error:
        complain(f"the daemon does not answer, so the disk is read: {printable(reason(error))}")
        found = None
    return read_catalogue(store, sender) if found is None else found


def _ask_daemon(store: LocalStore, question: SummariesWanted) -> Catalogue | None:
    """Ask the daemon; None if none runs.

    Raises: FullsendError, OSError if it does not answer; ValueError, TypeError, IndexError if its answer has another
    form.
    """
    connection = local_socket.connect(store, ANSWER_TIMEOUT)
    if connection is None:
        return None
    with connection:
        pages = Pages()
        for page in _pages(_Conversation(connection), question):
            pages.add(page.items)
    return pages.catalogue(store)


def _pages(daemon: _Conversation, question: SummariesWanted) -> Iterator[Summaries]:
    hello = daemon.hear()
    if not isinstance(hello, messages.ReceiverHello):
        raise daemon.unexpected(hello)
    if VERSION not in hello.versions:
        msg = f"it is {hello.program}, which answers only commands of its own version: restart it"
        raise RemoteProtocolError(msg)
    program = f"fullsendd {fullsend_protocol.__version__}"
    daemon.say(messages.SenderHello(program=program, version=VERSION))
    daemon.say(question)
    while not isinstance(page := daemon.hear(), messages.Done):
        if not isinstance(page, Summaries):
            raise daemon.unexpected(page)
        yield page


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
