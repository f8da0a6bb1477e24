"""Finds where an interrupted `zfs receive -s` resumes inside a stored stream.

    start of the stream -> BEGIN -> find what `zfs receive` must see again, chunk by chunk -> the rest

It fetches the chunk with BEGIN, the one with the wanted record, and for a raw stream those with its OBJECT_RANGE and
its OBJECT; nothing else that the target has already.

**What is proven.** A chunk's SHA-256 covers its segment up to there. A reader that has not read the beginning of the
segment cannot compute it. So up to the next segment's start, usually to the end, two checks remain: the checksum of
each zstd frame, and the Fletcher-4 of each record. `zfs receive` checks the latter, and an error in the bytes stays
visible in it (fullsend_protocol.stream.checksums).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fullsend_protocol.format.proof import Hashes
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.stream.rejoin import Rejoiner
from fullsend_protocol.wire import messages
from fullsend_sender.restore.chunks import StoredChunks
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.retry import RetryTimer

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_protocol.stream.checksums import Piece
    from fullsend_protocol.stream.resume_token import ResumeToken
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.transfer.link import Link


class Rest:
    """The rest of a stored stream, for cat.

    `manifest`: of the stream. `start`: the raw offset at which the next chunk begins.
    """

    def __init__(self, manifest: Manifest, start: int, rejoiner: Rejoiner, pieces: list[Piece]) -> None:
        """`pieces`: the rejoiner's output for the chunks before `start`."""
        self.manifest = manifest
        self.start = start
        self._rejoiner = rejoiner
        self._pieces = pieces
        self._hashes = Hashes(manifest, start)

    def take(self, raw: bytes, sha256: bytes | memoryview) -> list[Piece]:
        """Take the next chunk, as proof.Proof.take. Returns: the bytes for `zfs receive`, up to there."""
        self._hashes.take(raw, sha256)
        pieces, self._pieces = self._pieces, []
        return pieces + self._rejoiner.feed(raw)

    def finish(self) -> list[Piece]:
        """Note the end of the stream's bytes, as proof.Proof.finish."""
        self._hashes.finish()
        self._rejoiner.finish()
        pieces, self._pieces = self._pieces, []
        return pieces


async def find_rest(
    endpoint: Endpoint,
    identity: Identity,
    stream: str,
    token: ResumeToken,
    *,
    retry_for: float,
    onto_base: bool = False,
) -> Rest:
    """Find where a stored stream resumes after the part that `zfs receive` has written.

    `stream`: its name, as for cat; `token`: the target's; `retry_for`: seconds that the receiver may stay away;
    `onto_base`: as Rejoiner.

    Raises: StreamError if that stream cannot resume there; PeerError, ChunkError, Unreachable, RemoteProtocolError.
    """
    retry_timer = RetryTimer(retry_for)
    while True:
        try:
            async with connect(endpoint, identity) as (link, _name):
                return await _Search(link, stream).run(token, onto_base=onto_base)
        except FullsendError as error:
            await retry_timer.wait(error)


class _Search:
    """Finds the place, over one connection."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link = link
        self._stream = stream
        self._chunks = StoredChunks(link, stream)

    async def run(self, token: ResumeToken, *, onto_base: bool) -> Rest:
        found = await self._chunks.opening()
        rejoiner = Rejoiner(found.begin, token, found.package, onto_base=onto_base)
        pieces = await asyncio.to_thread(rejoiner.feed, found.rest)
        at, key = found.size, None
        while not rejoiner.found:
            if rejoiner.seek is not None and rejoiner.seek != key:
                key = rejoiner.seek
                if (where := await self._located(*key)) > at:
                    rejoiner.jump()
                    at = where
            raw = await self._chunks.fetch(at)
            if not raw:
                rejoiner.finish()  # which raises the error about what is missing
            pieces = await asyncio.to_thread(rejoiner.feed, raw)
            at += len(raw)
        manifest = self._chunks.manifest
        assert manifest is not None  # noqa: S101 - for mypy: there was a chunk, so there was a manifest
        return Rest(manifest, at, rejoiner, pieces)

    async def _located(self, number: int, offset: int) -> int:
        """Ask from where the stream must be read for a record. Returns: the raw offset of a chunk."""
        located = await self._link.ask(
            messages.Locate(stream=self._stream, object=number, offset=offset), messages.Located
        )
        return located.raw_offset
