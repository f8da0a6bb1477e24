"""What a command asks the daemon on the same host, over a socket in the store's state folder.

Frames, hello, errors and the ends of answers are those of the wire (fullsend_protocol.wire.messages). Both sides are
the same program, usually of the same version; otherwise the hello tells. Nothing of this ever crosses a network.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from fullsend_protocol.format.manifest import Name, SenderName
from fullsend_protocol.wire.messages import (
    Answer,
    Done,
    Error,
    Question,
    ReceiverHello,
    Request,
    SenderHello,
    Text,
    adapter,
    decode,
)


class SummariesWanted(Question):
    """`summaries?`: what does the catalogue have of a sender, None: of all senders?

    With `dataset`: of that dataset. With `streams`: of the datasets of the streams that these names mean (as in
    `fetch`). With either, the answer also has all streams that an answer about them depends on.
    """

    type: Literal["summaries?"] = "summaries?"
    sender: SenderName | None
    dataset: Name | None
    streams: Annotated[list[Text], Field(max_length=2)] | None


class Summaries(Answer):
    """A page of the answer. Each item is a JSON text, in ASCII: a file's name need not be Unicode. The catalogue
    defines the items (fullsend_receiver.catalogue.pages).
    """

    type: Literal["summaries"] = "summaries"
    items: list[str]


REQUESTS: Final = (Request(SummariesWanted, Summaries),)

DaemonMessage = ReceiverHello | Summaries | Done | Error
CommandMessage = SenderHello | SummariesWanted | Error

#: The models of each direction.
FROM_DAEMON: Final[tuple[type[DaemonMessage], ...]] = (ReceiverHello, Summaries, Done, Error)
FROM_COMMAND: Final[tuple[type[CommandMessage], ...]] = (SenderHello, SummariesWanted, Error)

_READ_DAEMON: Final = adapter(FROM_DAEMON)
_READ_COMMAND: Final = adapter(FROM_COMMAND)


def decode_from_daemon(payload: bytes | bytearray) -> DaemonMessage:
    """Read a message that a daemon may send to a command. Raises: RemoteProtocolError."""
    return decode(_READ_DAEMON, payload)


def decode_from_command(payload: bytes | bytearray) -> CommandMessage:
    """Read a message that a command may send. Raises: RemoteProtocolError."""
    return decode(_READ_COMMAND, payload)
