"""Cleans up behind streams while the next ones are sent, many at a time: one `zfs` command can do it for all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from fullsend_sender.push.prune_source import EndedPush

#: Seconds in which more streams may come, before those that have come are cleaned up behind. What a killed run leaves
#: to the next one is not more than that.
_GATHER: Final = 1.0


class Cleaner:
    """Calls `clean_up` with the streams that have come meanwhile, never twice at the same time. A context manager,
    whose end waits until it is done with all; if it is left by an error, it ends at once.
    """

    def __init__(self, clean_up: Callable[[Sequence[EndedPush]], Awaitable[None]], *, gather: float = _GATHER) -> None:
        """`gather`: seconds to wait for more. What `clean_up` raises is raised at the end."""
        self._clean_up = clean_up
        self._gather = gather
        self._waiting: list[EndedPush] = []
        self._some = asyncio.Event()  # there is something to do
        self._last = asyncio.Event()  # nothing more will come
        self._cleaning: asyncio.Task[None] | None = None

    def add(self, ended: EndedPush) -> None:
        """Clean up behind this stream soon. Also before the context is entered."""
        self._waiting.append(ended)
        self._some.set()

    async def __aenter__(self) -> Self:
        self._cleaning = asyncio.create_task(self._run(), name="cleaner")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._cleaning is not None  # noqa: S101 - for mypy: the context was entered
        self._last.set()
        self._some.set()
        try:
            if error is None:
                await asyncio.wait([self._cleaning])
        finally:
            self._cleaning.cancel()
            await asyncio.wait([self._cleaning])
        if error is None:
            self._cleaning.result()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            if self._last.is_set() and not self._waiting:
                return
            with contextlib.suppress(TimeoutError):  # more may come within this time
                async with asyncio.timeout(self._gather):
                    await self._last.wait()
            batch, self._waiting = self._waiting, []
            if not self._last.is_set():
                self._some.clear()
            await self._clean_up(batch)
