"""Asks the receiver what its list of streams does not say of one: what was merged into it, what a package contains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self, TypeVar

from fullsend_protocol.shared.errors import ChunkError, FullsendError, PeerError, StreamError
from fullsend_protocol.stream.facts import package_datasets
from fullsend_protocol.stream.records import HEADER_SIZE
from fullsend_sender.restore.chunks import StoredChunks
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import manifest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.transfer.link import Link

_log: Final = logging.getLogger("fullsend.restore")

_Answer = TypeVar("_Answer")


class StoredDetails:
    """The questions of one restore. They share a connection, which the first of them makes."""

    def __init__(self, endpoint: Endpoint, identity: Identity) -> None:
        self._endpoint = endpoint
        self._identity = identity
        self._connection = contextlib.AsyncExitStack()
        self._link: Link | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def merged_into(self, entry: StreamEntry) -> set[tuple[str, str | None]]:
        """Return the GUIDs of the snapshots, each with that of its base, whose streams were merged into a stored one.

        Raises: as Link.receive.
        """
        found = await self._ask(lambda link: manifest(link, entry.file))
        return {(each.guid, each.base_guid) for each in found.merged}

    async def datasets_in(self, package: StreamEntry) -> frozenset[str] | None:
        """Return the datasets that a package brings beside its top one; None: it cannot be read, which is logged.

        The stream itself says it: the receiver leaves the snapshots of a large package out of the manifest that it
        sends. Raises: Unreachable, RemoteProtocolError.
        """
        try:
            found = await self._ask(lambda link: StoredChunks(link, package.file).opening())
            return await asyncio.to_thread(package_datasets, found.package[HEADER_SIZE:-HEADER_SIZE])
        except (ChunkError, PeerError, StreamError) as error:
            _log.info("%s: what it contains cannot be read: %s", package.file, error)
            return None

    async def _ask(self, question: Callable[[Link], Awaitable[_Answer]]) -> _Answer:
        if self._link is None:
            connecting = connect(self._endpoint, self._identity)
            self._link = (await self._connection.enter_async_context(connecting))[0]
        link: Link = self._link
        try:
            return await question(link)
        except FullsendError:  # after which a connection can only be closed
            self._link = None
            await self._connection.aclose()
            raise
