"""Fetches single chunks of a stored stream: those that a restore reads before, or instead of, the whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, DamagedStream
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.stream.rejoin import opening
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, ChunkArriving

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_sender.transfer.link import Link

#: Bytes of BEGINs and what surrounds them (rejoin.opening), to the end of a chunk.
_OPENING_MAX: Final = 2 * limits.BEGIN_PAYLOAD_MAX + limits.CHUNK_MAX


class StoredOpening(NamedTuple):
    """How a stored stream begins. `package`, `begin`: as rejoin.opening returns them; `rest`: the bytes behind these,
    to the end of a chunk; `size`: of all three.
    """

    package: bytes
    begin: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.package) + len(self.begin) + len(self.rest)


class StoredChunks:
    """The chunks of one stored stream, over one connection. `manifest`: of the stream, None: nothing was fetched."""

    def __init__(self, link: Link, stream: str) -> None:
        """`stream`: its name, as for cat."""
        self._link = link
        self._stream = stream
        self._decompressor = Decompressor()
        self.manifest: Manifest | None = None

    async def fetch(self, at: int) -> bytes:
        """Fetch the chunk that begins at a raw offset. Returns: its raw bytes: none at the end.

        Raises: ChunkError; as Link.receive.
        """
        raw = b""
        fetch = messages.Fetch(stream=self._stream, offset=at, until=at + 1)
        manifest = (await self._link.ask(fetch, messages.Sending)).manifest
        self.manifest = self.manifest or manifest
        if manifest.file_sha256 != self.manifest.file_sha256:
            raise ChunkError("it continues with another stream")
        while True:
            match await self._link.receive():
                case ChunkArriving():
                    pass
                case Chunk() as chunk:
                    raw = await asyncio.to_thread(self._decompressor.decompress, chunk.frame, chunk.raw_length)
                case messages.Done():
                    return raw
                case other:
                    raise self._link.unexpected(other)

    async def opening(self) -> StoredOpening:
        """Fetch the beginning of the stream. Raises: DamagedStream if no stream begins so; as `fetch`."""
        start = bytearray()
        while (found := opening(start)) is None:
            raw = await self.fetch(len(start))
            if not raw or len(start) > _OPENING_MAX:
                raise DamagedStream("the stored stream does not begin as one")
            start += raw
        package, begin = found
        return StoredOpening(package, begin, bytes(start[len(package) + len(begin) :]))
