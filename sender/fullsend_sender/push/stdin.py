"""`fullsend push --stdin`: pushes the send stream that a pipe brings."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Literal

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.transfer.pipes import Source, Stopped
from fullsend_sender.transfer.progress import Progress, reporting
from fullsend_sender.transfer.segments import CannotResume, OtherBytes
from fullsend_sender.transfer.send import About, Options, Pushed, transfer

if TYPE_CHECKING:
    from typing import TextIO

    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint


async def push_stdin(
    fd: int,
    endpoint: Endpoint,
    identity: Identity,
    options: Options,
    stderr: TextIO,
    *,
    size: int | None = None,
    size_check: bool = True,
    show: Literal["auto", "always", "never"] = "auto",
) -> Pushed:
    """Push the send stream that comes out of the descriptor `fd`, read from its first byte to its end.

    `size`: raw bytes to expect, where known; `size_check`: the receiver is told; `show`: the progress, on `stderr`. An
    increment whose base is not stored is kept all the same. What has arrived in an earlier run is compared, and not
    sent again. Raises: as transfer.
    """
    started = time.monotonic()
    progress = Progress(started, size)
    about = About(size=size if size_check else None, keep_orphan=True, claim=secrets.token_hex(8), resume="replay")
    async with reporting(progress, stderr, when=show):
        try:
            pushed = await transfer(fd, endpoint, identity, options, about=about, progress=progress)
        except (OtherBytes, CannotResume) as error:
            # What has been read of a pipe cannot be read again.
            raise FullsendError(f"{error}: run it again, and it starts over") from error
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
