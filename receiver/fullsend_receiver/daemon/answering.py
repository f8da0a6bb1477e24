"""Answers a question: selects the method, makes its answer in pages, and sends the answer to the peer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, KeysView, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import PeerError
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, Event
from fullsend_protocol.wire.messages import BeingRead, Message, Question
from fullsend_receiver.maintenance.progress import ReadPlace
from fullsend_transport.channel import Channel

_T = TypeVar("_T")
_Item = TypeVar("_Item")

#: All messages and chunks of an answer, its end included.
Parts = AsyncGenerator[Message | Chunk, None]
_Method = TypeVar("_Method", bound=Callable[..., Parts])


class Methods:
    """The methods that answer questions, by the type of the question."""

    def __init__(self) -> None:
        """Make an empty table."""
        self._methods: dict[type[Question], Callable[..., Parts]] = {}

    def answers(self, question: type[Question]) -> Callable[[_Method], _Method]:
        """Return a decorator for a method that answers these questions."""

        def note(method: _Method) -> _Method:
            self._methods[question] = method
            return method

        return note

    def answer(self, owner: object, question: Question) -> Parts:
        """Return the answer of `owner`. Iterating over it raises: FullsendError, OSError."""
        return self._methods[type(question)](owner, question)

    @property
    def questions(self) -> KeysView[type[Question]]:
        """The types of questions that can be answered."""
        return self._methods.keys()


class Ask(Protocol):
    """Does work in a thread, after other work for the same sender."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T]: ...


async def pages(
    ask: Ask, items: Iterable[_Item], most: int, page_of: Callable[[Sequence[_Item]], Message]
) -> AsyncGenerator[Message, None]:
    """Yield pages of at most `most` items. Each is made in a thread, when the peer has taken the page before."""
    left = iter(items)

    def more() -> list[Message]:
        part = list(islice(left, most))
        return list(fitting(part, page_of)) if part else []

    while found := await ask(more):
        for page in found:
            yield page


def fitting(items: Sequence[_Item], page_of: Callable[[Sequence[_Item]], Message]) -> Iterator[Message]:
    """Yield one page, or several if it is too long for a message: a stream from elsewhere may have names that no `zfs`
    would make, and that JSON must escape.
    """
    page = page_of(items)
    if len(items) == 1 or len(messages.encode(page)) <= limits.CONTROL_MAX:
        yield page
        return
    half = len(items) // 2
    yield from fitting(items[:half], page_of)
    yield from fitting(items[half:], page_of)


def being_read(place: ReadPlace) -> BeingRead:
    """Return what a message says of the place of a check. What is not Unicode in the file's name is escaped."""
    file = place.file.encode(errors="backslashreplace").decode()
    return BeingRead(file=file, read_bytes=place.read_bytes, stored_bytes=place.stored_bytes)


async def send_answer(channel: Channel, parts: Parts) -> Event | None:
    """Send an answer. The peer must be silent meanwhile: a message from it, or its end, ends this.

    Returns: the peer's next message after it had read the answer, if that has arrived by now. Raises: PeerError,
    Unreachable, RemoteProtocolError, and what `parts` raises.
    """
    sending = asyncio.create_task(_send_parts(channel, parts))
    watching = asyncio.create_task(channel.receive())
    next_event = None
    try:
        await asyncio.wait([sending, watching], return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            said = watching.result()
            if isinstance(said, messages.Error):
                raise PeerError(said.code, said.message)
            # Legal only after the answer's end: the peer had read all before this side saw its last write complete.
            next_event = said
        await sending
    finally:
        for task in (sending, watching):
            task.cancel()
        await asyncio.gather(sending, watching, return_exceptions=True)
    return next_event


async def _send_parts(channel: Channel, parts: Parts) -> None:
    async with contextlib.aclosing(parts):
        async for part in parts:
            if isinstance(part, Chunk):
                await channel.send_chunk(part)
            else:
                await channel.send(part)
            del part  # a reference during the wait for the next one would keep two in memory
