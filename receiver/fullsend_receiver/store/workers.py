"""The daemon's threads, and what happens to work in one of them when the task that awaits it is cancelled.

A thread cannot be stopped. So there are two ways to await its work, and nothing else in the receiver decides this:

- `run`: a caller that is cancelled leaves at once. The thread works on to its end, and nobody hears what it returns or
  raises. For reading, and for what is whole in itself, such as one line that is recorded.
- `run_to_end`: a caller that is cancelled waits for the thread and is cancelled then. For work with files that the
  caller closes, removes or hands on.
"""

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

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do this in a `disk` thread (`run`)."""
        return await run(self.disk, work)

    async def run_to_end(self, work: Callable[[], _T]) -> _T:
        """Do this in a `disk` thread (`run_to_end`)."""
        return await run_to_end(self.disk, work)


async def run(threads: Executor, work: Callable[[], _T]) -> _T:
    """Do this in one of these threads; a caller that is cancelled abandons it. Raises: what it does."""
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def run_to_end(threads: Executor, work: Callable[[], _T]) -> _T:
    """Do this in one of these threads, and await its end however often the caller is cancelled meanwhile.

    Raises: what it does; CancelledError where the caller was cancelled: what it returned or raised is lost then.
    """
    return await uncancelled(asyncio.get_running_loop().run_in_executor(threads, work))


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
