"""`fullsend push --stdin`: pushes the send stream from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final, Literal

from fullsend_cli.progress import Progress
from fullsend_protocol.shared.errors import FullsendError, PeerError
from fullsend_protocol.shared.stages import StageWaits
from fullsend_sender.transfer.pipes import PipeStopped, Source
from fullsend_sender.transfer.progress import publishing, reporting
from fullsend_sender.transfer.segments import CannotResume, DifferentBytes, starts_over
from fullsend_sender.transfer.send import Pushed, StreamContext, TransferOptions, transfer

if TYPE_CHECKING:
    from typing import TextIO

    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint

_log: Final = logging.getLogger("fullsend.push")


async def push_stdin(
    fd: int,
    endpoint: Endpoint,
    identity: Identity,
    options: TransferOptions,
    stderr: TextIO,
    *,
    size: int | None = None,
    size_check: bool = True,
    show: Literal["auto", "always", "never"] = "auto",
) -> Pushed:
    """Push the send stream from the descriptor `fd`, read from its first byte to its end.

    `size`: expected raw bytes, if known; `size_check`: the receiver is told the size; `show`: the progress, on
    `stderr`. An increment whose base is not stored is kept all the same. The part that has arrived in an earlier run is
    compared, and not sent again. Raises: as transfer.
    """
    started = time.monotonic()
    progress = Progress(started, size, waits=StageWaits("source", "receiver"))
    about = StreamContext(
        size=size if size_check else None, keep_orphan=True, claim=secrets.token_hex(8), resume="replay"
    )
    async with reporting(progress, stderr, when=show), publishing(progress, "push", endpoint.name):
        try:
            pushed = await transfer(fd, endpoint, identity, options, about=about, progress=progress)
        except (DifferentBytes, CannotResume, PeerError) as error:
            if not starts_over(error):
                raise
            # A pipe cannot be read a second time.
            raise FullsendError(f"{error}: run it again to start over") from error
        if isinstance(pushed, Pushed):
            progress.done = True
            if pushed.repair:
                _log.warning("%s@%s: %s", pushed.receipt.dataset, pushed.receipt.snapshot, pushed.repair)
            return pushed
    # The stream is stored already, so nothing was sent. It is read to its end all the same. In `zfs send | fullsend`
    # with `set -o pipefail` the producer would otherwise die of SIGPIPE, and fail a job without a fault.
    await _drain(fd)
    return Pushed(pushed, 0, time.monotonic() - started)


async def _drain(fd: int) -> None:
    """Read a pipe to its end, in a thread that ends when the caller is cancelled."""
    source = Source(fd)
    reading = asyncio.ensure_future(asyncio.to_thread(source.drain))
    try:
        await asyncio.shield(reading)
    finally:
        source.stop()
        with contextlib.suppress(PipeStopped):
            await reading
        source.close()
