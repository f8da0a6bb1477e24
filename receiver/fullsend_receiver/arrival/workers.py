"""The daemon's threads, and what happens to work in one of them when the task that awaits it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Workers:
    """Threads shared by all: `cpu` decodes, hashes and writes; `disk` waits for reads and fsync; `scrub` reads stored
    streams through, one at a time, since each takes hours and a chunk's memory.
    """

    cpu: Executor
    disk: Executor
    scrub: Executor

    async def on_disk(self, work: Callable[[], _T]) -> _T:
        """Do this in a `disk` thread, and await its end however often we are cancelled meanwhile. Raises: what it does;
        CancelledError where we were cancelled, and what it returned or raised is lost then.
        """
        return await uncancelled(asyncio.get_running_loop().run_in_executor(self.disk, work))


async def uncancelled(work: Awaitable[_T]) -> _T:
    """Await to the end however often we are cancelled meanwhile, then be cancelled: what runs in a thread cannot be
    abandoned, and what it uses must not be taken away beneath it.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # that we were cancelled is what counts
        raise asyncio.CancelledError
    return task.result()
