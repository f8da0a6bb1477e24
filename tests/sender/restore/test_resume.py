from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests import resumed, streams
from tests.protocol.cut_streams import several_objects
from tests.resumed import Sent
from tests.sender.peer import Peer, Receiving, manifest_of, receiving
from tests.sender.restore.test_cat import reading

from fullsend_cli.progress import Progress
from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.errors import (
    ChunkError,
    ErrorCode,
    NotTheSameStream,
    PeerError,
    StreamError,
    Unreachable,
)
from fullsend_protocol.stream.chunks import Compressor
from fullsend_protocol.stream.rejoin import Rejoiner, opening
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, ConnectionEnded
from fullsend_sender.host.identity import Identity
from fullsend_sender.restore.cat import DamagedTransfer, cat
from fullsend_sender.restore.resume import Rest, find_rest

NAME = "tank/data@now"


class Shelf:
    """A receiver with one stream, in chunks that end at these raw offsets. `given`: what it gave, by raw offset;
    `later`: the manifest that it has from the second time on.

    `hang_up`: instead of giving the chunk of this number, counted from 1, it goes, once.
    """

    def __init__(self, raw: bytes, ends: list[int], segments: list[int] | None = None, hang_up: int = 0) -> None:
        self.raw = raw
        self.manifest = manifest_of(raw, *(segments or []))
        self.given: list[int] = []
        self.hang_up = hang_up
        self.later: Manifest | None = None
        self._segments = segments or []
        self._ends = [*ends, len(raw)]
        self.chunks = list(self._cut())

    def sending(self) -> messages.Sending:
        said = messages.Sending(manifest=self.manifest)
        self.manifest = self.later or self.manifest
        return said

    def _cut(self) -> Iterator[Chunk]:
        compressor = Compressor(1)
        for start, end in itertools.pairwise([0, *self._ends]):
            first = max(segment for segment in [0, *self._segments] if segment <= start)
            sha256 = hashlib.sha256(self.raw[first:end]).digest()
            yield Chunk(start, end - start, sha256, compressor.compress(self.raw[start:end]), start == first)

    def where(self, key: tuple[int, int]) -> int:
        borders = {0, *(record.end for record in streams.split(self.raw) if record.key)}
        keys = [(record.start, record.key) for record in streams.split(self.raw) if record.key]
        firsts = {
            chunk.raw_offset: next((k for at, k in keys if at >= chunk.raw_offset), None) for chunk in self.chunks
        }
        return max([at for at, first in firsts.items() if at in borders and first and first < key], default=0)

    async def __call__(self, peer: Peer) -> None:
        await peer.greet()
        while True:
            match await peer.hear():
                case messages.Locate(stream=stream, object=number, offset=offset):
                    assert stream == NAME
                    await peer.say(messages.Located(raw_offset=self.where((number, offset))))
                case messages.Fetch(stream=stream, offset=offset, until=until):
                    assert stream == NAME
                    await peer.say(self.sending())
                    for chunk in self.chunks:
                        if offset <= chunk.raw_offset < (until or len(self.raw)):
                            if len(self.given) + 1 == self.hang_up:
                                self.hang_up = 0
                                return
                            self.given.append(chunk.raw_offset)
                            await peer.say(chunk)
                    await peer.say(messages.Done())
                case ConnectionEnded():
                    return
                case messages.Error():
                    await peer.gone()
                    return
                case other:
                    raise AssertionError(other)


def ends_of(of: Sent, size: int) -> list[int]:
    """Chunks of about so many bytes, each second of which ends amid a record."""
    ends = [0]
    for index in of.points():
        if of.records[index].end - ends[-1] > size:
            ends += [of.records[index].end - 17, of.records[index].end]
    return [end for end in ends[1:] if end < len(of.raw)]


def expected(of: Sent, key: tuple[int, int]) -> bytes:
    found = opening(of.raw)
    assert found is not None
    package, begin = found
    rejoiner = Rejoiner(begin, of.token(key), package)
    return b"".join(map(bytes, rejoiner.feed(of.raw[len(package + begin) :])))


async def find(receiver: Receiving, identity: Identity, token: ResumeToken, retry_for: float = 0) -> Rest:
    return await find_rest(receiver.endpoint, identity, NAME, token, retry_for=retry_for)


async def bring(receiver: Receiving, identity: Identity, rest: Rest, retry_for: float = 0) -> bytes:
    progress = Progress(0.0)
    async with reading() as pipe:
        await cat(receiver.endpoint, identity, NAME, pipe.write, progress, retry_for=retry_for, rest=rest)
    return bytes(pipe.data)


KEYS = [(1, 0), (3, 0), (40, 4096), (41, 0), (42, 50 << 12), (42, 99 << 12)]


@pytest.mark.parametrize("raw", [False, True], ids=["plain", "raw"])
@pytest.mark.slow
async def test_what_the_target_has_does_not_come_again(
    identity: Identity, receiver_identity: Identity, *, raw: bool
) -> None:
    of = several_objects(raw=raw)
    for key in KEYS:
        shelf = Shelf(of.raw, ends_of(of, 30_000))
        async with receiving(receiver_identity, shelf, shelf) as receiver:
            rest = await find(receiver, identity, of.token(key))
            assert rest.start in {len(of.raw), *(chunk.raw_offset for chunk in shelf.chunks)}
            assert await bring(receiver, identity, rest) == expected(of, key)
        assert len(shelf.given) == len(set(shelf.given))
        # BEGIN, OBJECT_RANGE, OBJECT, and where the record begins: a chunk or two for each, and then the rest.
        behind = [at for at in shelf.given if at >= rest.start]
        assert len(shelf.given) <= len(behind) + 9
        assert rest.manifest == shelf.manifest


@pytest.mark.parametrize("hang_up", [1, 3, 4, 6])
async def test_a_wire_that_breaks_while_it_is_looked_for_or_amid_the_rest(
    identity: Identity, receiver_identity: Identity, hang_up: int
) -> None:
    of = several_objects(raw=True)
    key = (42, 4096)
    shelf = Shelf(of.raw, ends_of(of, 100_000), hang_up=hang_up)
    async with receiving(receiver_identity, always=shelf) as receiver:
        rest = await find(receiver, identity, of.token(key), retry_for=60)
        assert await bring(receiver, identity, rest, retry_for=60) == expected(of, key)
    assert shelf.hang_up == 0


async def test_properties_come_in_the_package_around_it(identity: Identity, receiver_identity: Identity) -> None:
    plain = several_objects(raw=False)
    raw = streams.package(plain.raw, nvlist=streams.tree("now", streams.file_system("tank/data", {"now": plain.guid})))
    (of,) = resumed.sent(raw)
    shelf = Shelf(raw, ends_of(of, 100_000))
    async with receiving(receiver_identity, shelf, shelf) as receiver:
        rest = await find(receiver, identity, of.token((41, 0)))
        got = await bring(receiver, identity, rest)
    assert got == expected(of, (41, 0))
    assert got.startswith(raw[: of.records[0].start])
    assert got.endswith(streams.CLOSING_END)


async def test_what_can_be_proven_is(identity: Identity, receiver_identity: Identity) -> None:
    """The segment in which it begins cannot; each one that follows is."""
    of = several_objects(raw=False)
    ends = ends_of(of, 50_000)
    shelf = Shelf(of.raw, ends, segments=[ends[9]])
    amid = next(place for place, chunk in enumerate(shelf.chunks) if chunk.raw_offset == ends[5])
    behind = next(place for place, chunk in enumerate(shelf.chunks) if chunk.raw_offset == ends[11])
    key = (3, 4096)

    async def try_with(place: int, **changes: Any) -> bytes:
        wrong = Shelf(of.raw, ends, segments=[ends[9]])
        wrong.chunks[place] = replace(wrong.chunks[place], **changes)
        async with receiving(receiver_identity, wrong, wrong) as receiver:
            return await bring(receiver, identity, await find(receiver, identity, of.token(key)))

    assert await try_with(amid, sha256=bytes(32)) == expected(of, key)
    with pytest.raises(
        DamagedTransfer, match=f"the chunk at {ends[11]} .* does not have the SHA-256 that came with it"
    ):
        await try_with(behind, sha256=bytes(32))
    with pytest.raises(DamagedTransfer, match="not a zstd frame"):
        await try_with(amid, frame=b"no frame")


async def test_what_cannot_resume_is_refused_before_anything_is_received(
    identity: Identity, receiver_identity: Identity
) -> None:
    of = several_objects(raw=True)
    ends = ends_of(of, 50_000)
    shelf = Shelf(of.raw, ends)

    async def refused(token: ResumeToken, error: type[Exception], said: str) -> None:
        async with receiving(receiver_identity, always=shelf) as receiver:
            with pytest.raises(error, match=said):
                await find(receiver, identity, token)

    await refused(of.token((41, 123)), NotTheSameStream, "has no record for object 41, offset 123")
    await refused(of.token((99, 0)), NotTheSameStream, "has no record for object 99, offset 0")
    await refused(replace(of.token((41, 0)), guid=5), NotTheSameStream, "GUID 5")
    await refused(replace(of.token((41, 0)), features=0), NotTheSameStream, "with other flags")
    shelf = Shelf(of.raw, ends)
    shelf.chunks[0] = replace(shelf.chunks[0], frame=b"no frame")
    await refused(of.token((41, 0)), ChunkError, "zstd frame")
    # Something else has taken its name.
    shelf = Shelf(of.raw, ends)
    shelf.later = shelf.manifest.model_copy(update={"file_sha256": "00" * 32})
    await refused(of.token((41, 0)), ChunkError, "continues with another stream")


async def test_what_does_not_begin_as_a_stream_is_none(identity: Identity, receiver_identity: Identity) -> None:
    of = several_objects(raw=False)
    for broken in (streams.end() + of.raw[312:], of.raw[:312]):
        shelf = Shelf(of.raw, [])
        shelf.chunks = [
            Chunk(0, len(broken), hashlib.sha256(broken).digest(), Compressor(1).compress(broken), starts_segment=True)
        ]
        shelf.manifest = shelf.manifest.model_copy(update={"raw_bytes": len(broken)})
        shelf.raw = broken
        async with receiving(receiver_identity, shelf) as receiver:
            with pytest.raises(StreamError):
                await find(receiver, identity, of.token((41, 0)))


async def test_a_receiver_that_is_gone_or_has_it_no_more(identity: Identity, receiver_identity: Identity) -> None:
    token = several_objects(raw=False).token((41, 0))

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Error(code=ErrorCode.NOT_FOUND, message="no such stream"))
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        with pytest.raises(PeerError, match="no such stream"):
            await find(receiver, identity, token, retry_for=60)
    with pytest.raises(Unreachable):
        await find(receiver, identity, token)
