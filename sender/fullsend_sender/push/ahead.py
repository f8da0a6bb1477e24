"""Begins the next stream of a job while the one before it waits for its receipt.

`zfs send` starts, the first chunk is read, and the stream is offered on the same connection, if the receiver permits
that. So neither the start of `zfs send` nor the way of the offer adds to the time of a night of many small streams.
Nothing else of the next stream happens before its turn. An error of it counts then.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fullsend_sender.transfer.send import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fullsend_cli.progress import Progress
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.push.job import PushItem
    from fullsend_sender.transfer.link import Link
    from fullsend_sender.transfer.send import StreamContext, Transfer, TransferOptions
    from fullsend_sender.zfs.commands import Zfs


class Outgoing(NamedTuple):
    """What `transfer` needs besides the bytes."""

    endpoint: Endpoint
    identity: Identity
    options: TransferOptions
    about: StreamContext
    progress: Progress


def may_begin(item: PushItem) -> bool:
    """Whether a stream may be begun before its turn: its snapshots are held since they were taken, and nothing of it
    has arrived before.
    """
    return item.send.snapshot is None and item.begun is None


class BegunStream:
    """A stream that was begun before its turn."""

    def __init__(
        self, zfs: Zfs, arguments: Sequence[str], outgoing: Callable[[], Awaitable[Outgoing]], link: Link
    ) -> None:
        """Begin it. `arguments`: of `zfs send`; `outgoing`: finds out what the transfer needs; `link`: the connection
        on which the stream before waits.
        """
        self._stack = contextlib.AsyncExitStack()
        self._transfer: Transfer | None = None
        beginning = self._begin(zfs, arguments, outgoing, link, link.finished)
        self._task = asyncio.create_task(beginning, name="begin ahead")
        # An error of a stream that is not sent after all is nobody's.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def ready(self) -> tuple[Transfer, Outgoing]:
        """Wait until the first chunk was read. Returns: its transfer, to be run before `close`.

        Raises: StreamError, ZfsError, and as `outgoing`.
        """
        return await self._task

    async def close(self) -> None:
        """End it, whether it was sent or not. Raises nothing but CancelledError, and then all has ended, too."""
        async with self._stack:
            try:
                self._task.cancel()
                await asyncio.wait([self._task])
            finally:  # a second signal cancels this, but not the task, which ends what it has begun
                if self._transfer is not None:
                    await self._transfer.withdraw()

    async def _begin(
        self, zfs: Zfs, arguments: Sequence[str], outgoing: Callable[[], Awaitable[Outgoing]], link: Link, finished: int
    ) -> tuple[Transfer, Outgoing]:
        of_it = await outgoing()
        sending = await self._stack.enter_async_context(zfs.send(*arguments))
        about = replace(of_it.about, ended=sending.succeeded)
        opening = opened(
            sending.fd, of_it.endpoint, of_it.identity, of_it.options, about=about, progress=of_it.progress
        )
        self._transfer = await self._stack.enter_async_context(opening)
        await self._transfer.offer_ahead(link, finished)
        return self._transfer, of_it
