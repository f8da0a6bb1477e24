"""The least that a receiver in Python does: bench/samples.py runs it, and compares it with the daemon.

It accepts one connection over TLS on uvloop, reads each frame into memory of its own, and gives it to a thread three
times, as a chunk is decoded, checked, and written. The thread does nothing. There is no protocol.

    bench/bare_loop.py CERTIFICATE KEY SIZE     prints its port; SIZE: bytes of a frame
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, cast

import uvloop

from fullsend_cli import memory
from fullsend_protocol.shared.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

_HAND_OFFS: Final = 3
#: Frames in memory that no thread has had yet. With more than the daemon holds, memory would grow, which costs.
_HELD: Final = 3


class Frames(asyncio.BufferedProtocol):
    """Reads frames of `size` bytes into a queue; None behind the last one. `read_on`: read again after a pause."""

    def __init__(self, size: int) -> None:
        self.whole: asyncio.Queue[bytearray | None] = asyncio.Queue()
        self._size = size
        self._transport: asyncio.Transport | None = None
        self._begin()

    def read_on(self) -> None:
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[explicit-override]
        self._transport = cast("asyncio.Transport", transport)

    def _begin(self) -> None:
        self._frame = bytearray(self._size)
        self._filled = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # type: ignore[explicit-override]
        return memoryview(self._frame)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:  # type: ignore[explicit-override]
        self._filled += nbytes
        if self._filled == self._size:
            self.whole.put_nowait(self._frame)
            self._begin()
            if self.whole.qsize() >= _HELD and self._transport is not None:
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[explicit-override]
        self._transport = None
        self.whole.put_nowait(None)


async def receive(certificate: str, key: str, size: int) -> None:
    """Receive the frames of one connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    frames = Frames(size)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as threads:
        async with await loop.create_server(lambda: frames, "127.0.0.1", 0, ssl=context) as server:
            await loop.run_in_executor(threads, len, b"")  # a thread that `perf` finds
            print(server.sockets[0].getsockname()[1], flush=True)
            while (frame := await frames.whole.get()) is not None:
                for _ in range(_HAND_OFFS):
                    await loop.run_in_executor(threads, len, frame)
                frames.read_on()


def main(words: Sequence[str]) -> None:
    """Run it with memory as the daemon's. `words`: the certificate, its key, the bytes of a frame."""
    memory.keep_blocks(8 * MIB, 64 * MIB)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(receive(words[0], words[1], int(words[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
