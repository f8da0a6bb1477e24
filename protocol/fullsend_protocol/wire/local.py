"""What a command asks the daemon on the same host, over a socket in the store's state folder: what is stored, how its
checks stand, and which transfers are under way.

Frames, hello, errors and the ends of answers are those of the wire (fullsend_protocol.wire.messages). Both sides are
the same program, usually of the same version; otherwise the hello tells. Nothing of this ever crosses a network.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from fullsend_protocol.format.manifest import Name, Offset, SenderName, WireModel
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_protocol.wire.messages import (
    Answer,
    BeingRead,
    Done,
    Error,
    MessageReader,
    Noted,
    Program,
    Question,
    ReceiverHello,
    Request,
    SenderHello,
    Text,
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


class ScrubWanted(Question):
    """`scrub?`: what does the daemon check now, and what is left?"""

    type: Literal["scrub?"] = "scrub?"


class DueStreams(WireModel):
    """What a survey of the store has found, less what was checked since.

    `streams`, `stored_bytes`: all that is stored; `due_streams`, `due_bytes`: what is left to check, without what was
    read of a stream that is being checked; `next_due`: when the next stream is due, None: one is due, or nothing is
    stored.
    """

    streams: Offset
    stored_bytes: Offset
    due_streams: Offset
    due_bytes: Offset
    next_due: str | None


class ScrubProgress(Answer):
    """The answer to `scrub?`.

    `program`: of the daemon; `now`: its time; `every`: seconds after which a stream is checked again, 0: never by
    itself; `limit`: bytes a second that it reads at most, 0: no limit. `due`: None: the store was not surveyed yet.
    `reading`: the stream that is being checked; `asked_by`: the sender that waits for that check, None: the daemon
    checks by itself; `rate`: bytes a second that the daemon's own checks have read of late, None: unknown. `stopped`:
    too much is damaged; `resumes`: after a read error nothing is read before that time; `busy`: nothing is read because
    arriving streams need the disk.
    """

    type: Literal["scrub"] = "scrub"
    program: Program
    now: str
    every: Offset
    limit: Offset
    due: DueStreams | None
    reading: BeingRead | None
    asked_by: SenderName | None
    rate: Offset | None
    stopped: bool
    resumes: str | None
    busy: bool


class TransfersWanted(Question):
    """`transfers?`: which transfers are under way?"""

    type: Literal["transfers?"] = "transfers?"


class Transfers(Answer):
    """A page of the answer to `transfers?`, the oldest first."""

    type: Literal["transfers"] = "transfers"
    transfers: list[LiveTransfer]


class Working(Question):
    """`working`: a command tells what it does, such as a merge, so that `transfers?` shows it. It counts until the
    command says something else, or disconnects. None: nothing at the moment.
    """

    type: Literal["working"] = "working"
    transfer: LiveTransfer | None


REQUESTS: Final = (
    Request(SummariesWanted, Summaries),
    Request(ScrubWanted, done=ScrubProgress),
    Request(TransfersWanted, Transfers),
    Request(Working, done=Noted),
)

DaemonMessage = ReceiverHello | Summaries | ScrubProgress | Transfers | Noted | Done | Error
CommandMessage = SenderHello | SummariesWanted | ScrubWanted | TransfersWanted | Working | Error

#: The models of each direction.
FROM_DAEMON: Final[tuple[type[DaemonMessage], ...]] = (
    *(ReceiverHello, Summaries, ScrubProgress, Transfers, Noted, Done, Error),
)
FROM_COMMAND: Final[tuple[type[CommandMessage], ...]] = (
    *(SenderHello, SummariesWanted, ScrubWanted, TransfersWanted, Working, Error),
)

_READ_DAEMON: Final = MessageReader(FROM_DAEMON)
_READ_COMMAND: Final = MessageReader(FROM_COMMAND)


def decode_from_daemon(payload: bytes | bytearray) -> DaemonMessage:
    """Read a message that a daemon may send to a command. Raises: RemoteProtocolError."""
    return decode(_READ_DAEMON, payload)


def decode_from_command(payload: bytes | bytearray) -> CommandMessage:
    """Read a message that a command may send. Raises: RemoteProtocolError."""
    return decode(_READ_COMMAND, payload)
