"""The conversation between the daemon and one command on the same host, from hello to the end.

The answers about what is stored come from the daemon's catalogue (fullsend_receiver.catalogue.service): a command that
reads the disk itself gets the same. A command asks once and disconnects.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from itertools import islice
from typing import Final, TypeVar

import fullsend_protocol
from fullsend_protocol.shared.errors import (
    FullsendError,
    PeerError,
    RemoteProtocolError,
    Unreachable,
)
from fullsend_protocol.shared.units import format_time, printable
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import LOCAL, ConnectionEnded, Event, Role
from fullsend_protocol.wire.local import (
    DueStreams,
    ScrubProgress,
    ScrubWanted,
    Summaries,
    SummariesWanted,
    Transfers,
    TransfersWanted,
    Working,
)
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.pages import VERSION, items_of
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.daemon.answering import Ask, Methods, Parts, being_read, fitting, pages, send_answer
from fullsend_receiver.daemon.live import LiveTransfers
from fullsend_receiver.daemon.local_socket import check_peer
from fullsend_receiver.daemon.session import last_error, log_refusal
from fullsend_receiver.maintenance.checks import Checks
from fullsend_receiver.maintenance.progress import ScrubState
from fullsend_receiver.store.workers import Workers
from fullsend_transport.channel import Channel

log: Final = logging.getLogger("fullsendd")

_T = TypeVar("_T")

#: Items in a page: some 70 KiB, because each has up to 100 streams; a page that is longer than a message is halved.
_PAGE: Final = 2
#: Transfers in a page: some 600 bytes each.
_TRANSFERS: Final = 200
#: Commands that are served at a time. Each needs a `disk` thread, and some pages.
COMMANDS: Final = 16
METHODS: Final = Methods()


class LocalAnswers:
    """The answers for a command."""

    def __init__(
        self, catalogues: Catalogues, workers: Workers, checks: Checks, live: LiveTransfers | None = None
    ) -> None:
        """Reads nothing before a question. `live`: the transfers that are under way."""
        self.live: Final = live or LiveTransfers()
        self._catalogues = catalogues
        self._workers = workers
        self._checks = checks

    def answer(self, question: messages.Question) -> Parts:
        """Return the whole answer. Iterating over it raises: FullsendError, OSError."""
        return METHODS.answer(self, question)

    @METHODS.answers(SummariesWanted)
    async def _summaries(self, asked: SummariesWanted) -> Parts:
        catalogues = self._catalogues
        for sender in [asked.sender] if asked.sender is not None else await self._workers.run(catalogues.senders):
            holdings = await self._ask(sender, lambda holdings: holdings)
            items = items_of(holdings, dataset=asked.dataset, streams=asked.streams)
            async for page in pages(self._continue(sender), items, _PAGE, lambda part: Summaries(items=[*part])):
                yield page
        yield messages.Done()

    @METHODS.answers(ScrubWanted)
    async def _scrub(self, _asked: ScrubWanted) -> Parts:
        yield scrub_progress(self._checks.state(), now=time.time())

    @METHODS.answers(TransfersWanted)
    async def _transfers(self, _asked: TransfersWanted) -> Parts:
        check = self._checks.live
        found = iter([*self.live.all(), *([check] if check is not None else [])])
        while part := list(islice(found, _TRANSFERS)):
            for page in fitting(part, lambda some: Transfers(transfers=[*some])):
                yield page
        yield messages.Done()

    async def _ask(self, sender: str, work: Callable[[Holdings], _T], *, begun: bool = False) -> _T:
        return await self._catalogues.ask(self._workers.disk, sender, work, begun=begun)

    def _continue(self, sender: str) -> Ask:
        """Return a function that makes the next part of an answer about a sender in a thread."""

        async def ask(work: Callable[[], _T], /) -> _T:
            return await self._ask(sender, lambda _holdings: work(), begun=True)

        return ask


def scrub_progress(state: ScrubState, *, now: float) -> ScrubProgress:
    """Return the answer to `scrub?`. `now`: seconds since the epoch."""
    left, place = state.left, state.reading
    return ScrubProgress(
        program=f"fullsendd {fullsend_protocol.__version__}",
        now=format_time(now),
        every=int(state.every),
        limit=state.limit,
        due=None
        if left is None
        else DueStreams(
            streams=left.streams,
            stored_bytes=left.stored_bytes,
            due_streams=left.due_streams,
            due_bytes=left.due_bytes,
            next_due=None if left.next_due is None else format_time(left.next_due),
        ),
        reading=None if place is None else being_read(place),
        asked_by=None if place is None else place.asked_by,
        rate=None if state.rate is None else int(state.rate),
        stopped=state.stopped,
        resumes=None if state.resumes is None else format_time(state.resumes),
        busy=state.busy,
    )


class LocalServer:
    """Serves all commands."""

    def __init__(self, answers: LocalAnswers, *, silence: float) -> None:
        """`silence`: seconds without a byte, while reading, after which the daemon drops a command."""
        self.silence = silence
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()

    def let_in(self, sock: socket.socket, _address: object) -> None:
        """Begin to serve a connection. If there are too many, close it: that command reads the disk itself."""
        if len(self._tasks) >= COMMANDS:
            sock.close()
            return
        task = asyncio.create_task(self._serve(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """End all connections now: their commands read the disk themselves."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, sock: socket.socket) -> None:
        channel = Channel(Role.RECEIVER, "the command", language=LOCAL, silence=self.silence)
        try:
            check_peer(sock)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, sock)
        except (FullsendError, OSError) as error:
            sock.close()
            log.warning("a command was not answered: %s", error)
            return
        except BaseException:
            sock.close()
            raise
        try:
            await self._converse(channel)
        except (Unreachable, PeerError, RemoteProtocolError) as error:
            log.info("a command: %s", printable(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever is in the store, the daemon stays
            channel.last_words(last_error(*log_refusal("a command", error)))
        finally:
            self._answers.live.tell(channel, None)
            await channel.close()

    async def _converse(self, channel: Channel) -> None:
        program = f"fullsendd {fullsend_protocol.__version__}"
        await channel.send(messages.ReceiverHello(program=program, versions=[VERSION], sender=None))
        event: Event | None = None
        while not isinstance(event := event or await channel.receive(), ConnectionEnded):
            match event:
                case messages.SenderHello():
                    event = None
                case Working():
                    self._answers.live.tell(channel, event.transfer)
                    await channel.send(messages.Noted())
                    event = None
                case messages.Question():
                    event = await send_answer(channel, self._answers.answer(event))
                case messages.Error():
                    raise PeerError(event.code, event.message)
                case _:
                    msg = f"{type(event).__name__} as a request"
                    raise RemoteProtocolError(msg)
