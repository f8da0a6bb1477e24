"""Processes beside the daemon, each owned by one task: after a cancellation none is left."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL, Process
from typing import Any

from fullsend_receiver.store.workers import uncancelled


async def start(*command: str, **options: Any) -> Process:  # noqa: ANN401 - those of create_subprocess_exec
    """Start a process without stdin; `end` must follow. After a cancellation it has ended. Raises: OSError."""
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*command, stdin=DEVNULL, **options))
    try:
        return await uncancelled(starting)
    except asyncio.CancelledError:
        # A start that is cancelled half-way would leave a process that nobody ends.
        if starting.exception() is None:
            await end(starting.result())
        raise


async def end(process: Process) -> None:
    """Kill a process, if it still runs, and wait until it has ended. It has nothing that it must release."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await uncancelled(process.wait())
