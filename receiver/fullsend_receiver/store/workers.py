"""The daemon's threads, and what happens to a thread's work when the task that awaits it is cancelled.

A thread cannot be stopped. So there are two ways to await its work, used everywhere in the receiver:

- `run`: a cancelled caller leaves at once. The thread works on to its end, and what it returns or raises is lost. For
  reading, and for complete actions, such as recording one line.
- `run_to_end`: a cancelled caller waits for the thread and is cancelled then. For work with files that the caller
  closes, removes or passes on.
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
    """Shared threads: `cpu` decodes, hashes and writes; `disk` waits for reads and fsync; `scrub` reads whole stored
    streams, one at a time, because each takes hours and a chunk's memory.
    """

    cpu: Executor
    disk: Executor
    scrub: Executor

    async def run(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a `disk` thread (`run`)."""
        return await run(self.disk, work)

    async def run_to_end(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a `disk` thread (`run_to_end`)."""
        return await run_to_end(self.disk, work)


async def run(threads: Executor, work: Callable[[], _T]) -> _T:
    """Call `work` in one of these threads; a cancelled caller abandons it. Raises: what `work` raises."""
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def run_to_end(threads: Executor, work: Callable[[], _T]) -> _T:
    """Call `work` in one of these threads, and await its end, even if the caller is cancelled meanwhile.

    Raises: what `work` raises; CancelledError if the caller was cancelled: what `work` returned or raised is lost then.
    """
    return await uncancelled(asyncio.get_running_loop().run_in_executor(threads, work))


async def uncancelled(work: Awaitable[_T]) -> _T:
    """Await `work` to its end, even if the caller is cancelled meanwhile, then raise CancelledError. What runs in a
    thread cannot be abandoned, and its files must not be closed while it runs.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # retrieved, not raised: the cancellation counts
        raise asyncio.CancelledError
    return task.result()
