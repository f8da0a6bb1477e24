from __future__ import annotations

from dataclasses import replace

import pytest
from tests import streams
from tests.sender.peer import receiving
from tests.sender.restore.test_resume import NAME, Shelf

from fullsend_protocol.shared.errors import ChunkError, DamagedStream
from fullsend_protocol.stream.chunks import Compressor
from fullsend_protocol.stream.records import HEADER_SIZE
from fullsend_sender.host.identity import Identity
from fullsend_sender.restore.chunks import StoredChunks
from fullsend_sender.transfer.link import connect

PACKAGE = streams.package(
    streams.substream(name=NAME, guid=1),
    streams.substream(name="tank/data/a@now", guid=2),
    name=NAME,
    nvlist=streams.tree("now", streams.file_system("tank/data", {"now": 1})),
)


async def test_chunks_are_fetched_one_by_one(identity: Identity, receiver_identity: Identity) -> None:
    shelf = Shelf(PACKAGE, [100, 1000, 1500])
    async with receiving(receiver_identity, shelf) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        chunks = StoredChunks(link, NAME)
        assert chunks.manifest is None
        found = await chunks.opening()
        assert chunks.manifest == shelf.manifest
        assert found.package + found.begin + found.rest == PACKAGE[: found.size]
        assert (len(found.begin), found.package[-HEADER_SIZE:]) == (HEADER_SIZE, streams.CLOSING_END)
        assert found.size in {1500, len(PACKAGE)}
        assert await chunks.fetch(100) == PACKAGE[100:1000]
        assert await chunks.fetch(len(PACKAGE)) == b""
        shelf.manifest = shelf.manifest.model_copy(update={"file_sha256": "00" * 32})
        with pytest.raises(ChunkError, match="continues with another stream"):
            await chunks.fetch(0)


async def test_a_stream_that_does_not_begin_as_one(identity: Identity, receiver_identity: Identity) -> None:
    shelf = Shelf(PACKAGE, [])
    raw = bytes(len(PACKAGE))
    shelf.chunks[0] = replace(shelf.chunks[0], frame=Compressor(1).compress(raw))
    async with receiving(receiver_identity, shelf) as receiver, connect(receiver.endpoint, identity) as (link, _name):
        with pytest.raises(DamagedStream, match="does not begin as one"):
            await StoredChunks(link, NAME).opening()
