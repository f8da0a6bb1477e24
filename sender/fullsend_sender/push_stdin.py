"""`fullsend push --stdin`: pushes the send stream that a pipe brings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Literal

from fullsend_sender.pipes import Source, Stopped
from fullsend_sender.progress import Progress, reporting
from fullsend_sender.transfer import About, Options, Pushed, transfer

if TYPE_CHECKING:
    from typing import TextIO

    from fullsend_sender.identity import Identity
    from fullsend_sender.link import Endpoint


async def push_stdin(
    fd: int,
    endpoint: Endpoint,
    identity: Identity,
    options: Options,
    stderr: TextIO,
    *,
    size: int | None = None,
    show: Literal["auto", "always", "never"] = "auto",
) -> Pushed:
    """Push the send stream that comes out of the descriptor `fd`, read from its first byte to its end.

    `size`: raw bytes to expect, where known; `show`: the progress, on `stderr`. An increment whose base is not stored
    is kept all the same. Raises: as transfer.
    """
    started = time.monotonic()
    progress = Progress(started, size)
    async with reporting(progress, stderr, when=show):
        pushed = await transfer(
            fd, endpoint, identity, options, about=About(size=size, keep_orphan=True), progress=progress
        )
        if isinstance(pushed, Pushed):
            progress.done = True
            return pushed
    # The stream is stored, so nothing was sent. It is read to its end all the same: in `zfs send | fullsend` under
    # `set -o pipefail` the producer would otherwise die of SIGPIPE, and fail a job in which nothing failed.
    await _drain(fd)
    return Pushed(pushed, 0, time.monotonic() - started)


async def _drain(fd: int) -> None:
    """Read a pipe to its end, in a thread that ends when we are cancelled."""
    source = Source(fd)
    reading = asyncio.ensure_future(asyncio.to_thread(source.drain))
    try:
        await asyncio.shield(reading)
    finally:
        source.stop()
        with contextlib.suppress(Stopped):
            await reading
        source.close()
