"""The progress of a transfer: one live line on a terminal, otherwise a log line every 10 s, or nothing; and for `top` a
file.

    reporting    shows a Progress while a block runs
    publishing   writes what `fullsend top` shows of it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final, TextIO

from fullsend_cli.progress import REDRAW, LiveLine
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_sender.host.live import LiveFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fullsend_cli.progress import Progress, When
    from fullsend_protocol.wire.live import Activity

_log: Final = logging.getLogger("fullsend.progress")

#: Seconds between two log lines, and between two writes of a file for `top`.
_LOG_EVERY: Final = 10.0
_WRITE_EVERY: Final = 1.0


@contextlib.asynccontextmanager
async def reporting(progress: Progress, stream: TextIO, *, when: When) -> AsyncGenerator[None]:
    """Show a transfer's progress on `stream` (stderr) until the block is left.

    `auto`: live on a terminal; otherwise log lines, which -v shows. The live line stays at the end; after an error it
    is cleared.
    """
    if when == "never":
        yield
        return
    line = LiveLine(stream, when)
    progress.names_limit = _log.isEnabledFor(logging.INFO)
    task = asyncio.create_task(_draw(progress, line) if line.live else _note(progress), name="progress")
    ended = False
    try:
        yield
        ended = True
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(OSError):  # a lost terminal is not a failure of the transfer
            if ended:
                line.draw(progress, end="\n")
            else:
                line.clear()


async def _draw(progress: Progress, line: LiveLine) -> None:
    while True:
        line.draw(progress)
        await asyncio.sleep(REDRAW)


async def _note(progress: Progress) -> None:
    while True:
        await asyncio.sleep(_LOG_EVERY)
        _log.info("%s", " ".join(progress.fields(time.monotonic(), time.time())))


@contextlib.asynccontextmanager
async def publishing(
    progress: Progress, activity: Activity, receiver: str, *, folder: str | None = None
) -> AsyncGenerator[None]:
    """Write how far a transfer is, for `fullsend top`, each second until the block is left. What takes less is not
    written. `folder`: None: see `LiveFile`. That it cannot be written is not an error.
    """
    file = LiveFile(folder)

    def facts() -> LiveTransfer:
        stream, now, away = progress.stream, time.monotonic(), progress.waiting
        return LiveTransfer.of(file.name, activity, receiver, stream, progress, now, away=away)

    async def write() -> None:
        try:
            while True:
                await asyncio.sleep(_WRITE_EVERY)
                await asyncio.to_thread(file.write, facts())
        except (FullsendError, OSError, ValueError) as error:
            _log.debug("`fullsend top` will not show this transfer: %s", error)

    task = asyncio.create_task(write(), name="publish")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        file.close()
