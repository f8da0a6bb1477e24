"""Connections to one receiver that stay open from one stream to the next: a stream of a few bytes costs less than a TLS
handshake at both ends.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from fullsend_sender.transfer.link import connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.transfer.link import Link, Timeouts
    from fullsend_transport.throttle import Throttle


class Connections:
    """The open connections of one run, which no stream uses now. A context manager, which closes them at its end.

    On some of them the next stream is offered already: `connect` gives each of these only to who asks for it.
    """

    def __init__(self) -> None:
        self._unused: list[tuple[Link, contextlib.AsyncExitStack]] = []
        self._offered: list[tuple[Link, contextlib.AsyncExitStack]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with contextlib.AsyncExitStack() as all_of_them:
            while self._unused:
                all_of_them.push_async_exit(self._unused.pop()[1])
            while self._offered:
                all_of_them.push_async_exit(self._offered.pop()[1])

    @contextlib.asynccontextmanager
    async def connect(
        self,
        endpoint: Endpoint,
        identity: Identity,
        *,
        timeouts: Timeouts,
        throttle: Throttle | None,
        offered: Link | None = None,
    ) -> AsyncGenerator[tuple[Link, bool]]:
        """Yield a connection that is ready for requests, and whether it was used before. Such a connection may turn out
        to be lost. After the block it stays open for the next caller, unless the block has failed, or a request is
        still under way other than the offer of the next stream. `offered`: the connection on which the caller has made
        such an offer; it is yielded, unless the stream before has failed. The other arguments must be the same for all.
        Raises: as `link.connect`.
        """
        taken = self._take_offered(offered) or await self._take()
        stack = contextlib.AsyncExitStack() if taken is None else taken[1]
        async with stack:
            if taken is None:
                opening = connect(endpoint, identity, timeouts=timeouts, throttle=throttle)
                link, _name = await stack.enter_async_context(opening)
            else:
                link = taken[0]
            yield link, taken is not None
            if link.idle:
                self._unused.append((link, stack.pop_all()))
            elif link.offered:
                self._offered.append((link, stack.pop_all()))

    async def withdraw(self, offered: Link) -> None:
        """Close a connection on which a stream is offered that will not be sent now. Raises nothing."""
        if (taken := self._take_offered(offered)) is not None:
            await taken[1].aclose()

    def _take_offered(self, offered: Link | None) -> tuple[Link, contextlib.AsyncExitStack] | None:
        for place, (link, _stack) in enumerate(self._offered):
            if link is offered:
                return self._offered.pop(place)
        return None

    async def _take(self) -> tuple[Link, contextlib.AsyncExitStack] | None:
        """Return an open connection, with what closes it; None: there is none."""
        while self._unused:
            link, stack = self._unused.pop()
            if link.idle:
                return link, stack
            await stack.aclose()
        return None
