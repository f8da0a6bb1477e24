"""The daemon's threads, and what happens to a thread's work when the task that awaits it is cancelled.

A thread cannot be stopped. So there are two ways to await its work, used everywhere in the receiver:

- `run`: a cancelled caller leaves at once. The thread works on to its end, and what it returns or raises is lost. For
  reading, and for complete actions, such as recording one line.
- `run_to_end`: a cancelled caller waits for the thread and is cancelled then. For work with files that the caller
  closes, removes or passes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, TypeVar

_T = TypeVar("_T")

#: Seconds within which a disk that is not busy makes a batch of 32 MiB durable.
SLOW_SYNC: Final = 1.0
#: Seconds after a slow sync for which the disk counts as busy. Batches of a stream come about once a second.
CALM: Final = 10.0


class SyncTimes:
    """Tells by the syncs of arriving streams whether the disk is busy. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._guard: Final = threading.Lock()
        self._running: dict[object, float] = {}  # when each began
        self._slow_until = clock() - CALM

    def timed(self, work: Callable[[], _T]) -> _T:
        """Call `work`, which makes data durable. Raises: what `work` raises."""
        key = object()
        began = self._clock()
        with self._guard:
            self._running[key] = began
        try:
            return work()
        finally:
            ended = self._clock()
            with self._guard:
                del self._running[key]
                if ended - began > SLOW_SYNC:
                    self._slow_until = ended

    @property
    def busy(self) -> bool:
        """Whether a sync has taken longer than SLOW_SYNC, and is running or ended less than CALM seconds ago."""
        now = self._clock()
        with self._guard:
            slow = any(now - began > SLOW_SYNC for began in self._running.values())
            return slow or now - self._slow_until < CALM


@dataclass(frozen=True, slots=True)
class Workers:
    """Shared threads: `cpu` decodes, hashes and writes; `disk` waits for reads and fsync; `scrub` reads whole stored
    streams, one at a time, because each takes hours and a chunk's memory. `syncs`: of arriving streams.
    """

    cpu: Executor
    disk: Executor
    scrub: Executor
    syncs: SyncTimes = field(default_factory=SyncTimes)

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
