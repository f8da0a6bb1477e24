"""One TLS connection to a sender as messages and chunks: the asyncio shell around protocol's Connection.

Decides nothing about the protocol; it moves bytes, keeps the heartbeat, and ends the connection so that the last
words arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

from fullsend_protocol import limits
from fullsend_protocol.connection import NEED_DATA, Chunk, Connection, Event, Heartbeat, Role, State
from fullsend_protocol.errors import ProtocolError, Unreachable
from fullsend_protocol.messages import Error, Message

#: One read: what a TLS layer hands over at a time; more only costs memory.
_READ: Final = 256 << 10
#: One write of a chunk: TLS copies and encrypts at once whatever it is given, so a whole chunk would be held thrice.
_WRITE: Final = 256 << 10
#: What may wait for a sender that does not read, of messages that nobody waits for: some 500 acknowledgements.
_BACKLOG: Final = 64 << 10


class Channel:
    """The receiver's end. Reading happens only inside `receive`, so whoever does not call it holds the sender back.

    `busy`: why we are not reading, for the heartbeats; "" when we are.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, silence: float, heartbeat_every: float
    ) -> None:
        """`silence`: seconds without a byte, while reading, after which the peer is taken for dead."""
        self.busy = ""
        self._connection = Connection(Role.RECEIVER)
        self._reader = reader
        self._writer = writer
        self._silence = silence
        self._heartbeat_every = heartbeat_every
        self._wrote = True

    async def receive(self) -> Event:
        """Return the next event but heartbeats. Raises: RemoteProtocolError, Unreachable (silence, reset)."""
        while True:
            event = self._connection.next_event()
            if event is NEED_DATA:
                self._connection.receive_data(await self._read())
            elif not isinstance(event, Heartbeat):
                return event

    async def send(self, message: Message) -> None:
        """Send a message; waits while the peer takes nothing. Raises: Unreachable."""
        await self._write(self._connection.send(message))

    def send_soon(self, message: Message) -> None:
        """Send a small message without waiting for the peer to take it; does nothing where the connection is over.

        Raises: Unreachable where the peer has left too many of them unread.
        """
        if self._connection.state in {State.CLOSED, State.FAILED} or self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > _BACKLOG:
            msg = "the sender does not read what it is told"
            raise Unreachable(msg)
        self._wrote = True
        self._writer.write(self._connection.send(message))

    async def send_chunk(self, chunk: Chunk) -> None:
        """Send a chunk; waits while the peer takes nothing. Raises: Unreachable."""
        head, frame = self._connection.send_chunk(chunk)
        view = memoryview(frame)
        pieces: deque[bytes | memoryview] = deque([head])
        pieces.extend(view[start : start + _WRITE] for start in range(0, len(view), _WRITE))
        try:
            while pieces:
                await self._write(pieces.popleft())
        except asyncio.CancelledError:
            # The last words come next; behind half a frame they would be taken for its rest.
            for piece in pieces:
                self._writer.write(piece)
            raise

    def last_words(self, error: Error) -> None:
        """Say why this is the end, if that may still be said; `close` lets it arrive. Raises nothing."""
        with contextlib.suppress(ProtocolError):
            said = self._connection.send(error)
            if not self._writer.is_closing():
                self._writer.write(said)

    async def beat(self) -> None:
        """Send heartbeats where nothing else was sent; runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._heartbeat_every)
            # A peer that has not yet taken what was sent before needs no sign of life, and must not pile them up.
            waiting = self._writer.transport.get_write_buffer_size() > 0
            if not self._wrote and not waiting and not self._writer.is_closing():
                self._writer.write(self._connection.heartbeat(self.busy))
            self._wrote = False

    async def close(self) -> None:
        """Let the peer read the last words, then close. After LINGER seconds the connection is cut.

        Whatever the peer still says is read and dropped until it goes, too: to close while unread bytes wait would make
        the kernel send RST, which may overtake what we said. TLS does that by itself when it closes: it flushes, says
        close_notify, and reads on up to the peer's.
        """
        self._writer.close()
        # A task of its own: to be interrupted in `wait_closed` is to break it for good.
        closing = asyncio.create_task(self._writer.wait_closed())
        try:
            await asyncio.wait([closing], timeout=limits.LINGER)
        finally:
            self._writer.transport.abort()
            await asyncio.gather(closing, return_exceptions=True)  # whatever ended it, it is over

    def abort(self) -> None:
        """Cut the connection at once."""
        self._writer.transport.abort()

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self._silence):
                return await self._reader.read(_READ)
        except TimeoutError:
            msg = f"the sender has been silent for {self._silence:g} s"
            raise Unreachable(msg) from None
        except OSError as error:
            msg = f"the connection to the sender broke: {error}"
            raise Unreachable(msg) from None

    async def _write(self, data: bytes | memoryview) -> None:
        self._wrote = True
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            msg = f"the connection to the sender broke: {error}"
            raise Unreachable(msg) from None
        # `drain` lets others run only where something must wait; a peer that is quick, or gone, would keep the loop.
        await asyncio.sleep(0)
