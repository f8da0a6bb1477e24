from __future__ import annotations

import pytest
from tests import streams
from tests.sender.peer import chunks_of, manifest_of

from fullsend_protocol.format.proof import Proof
from fullsend_protocol.shared.errors import ChunkError, IncompleteStream
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.wire.connection import Chunk


def large() -> bytes:
    return streams.substream(*(streams.write(7, i << 20, bytes([i]) * (1 << 20)) for i in range(14)))


def decoded(chunks: list[Chunk]) -> list[tuple[bytes, bytes | memoryview]]:
    decompressor = Decompressor()
    return [(decompressor.decompress(chunk.frame, chunk.raw_length), chunk.sha256) for chunk in chunks]


@streams.each(streams.whole)
def test_genuine_streams(stream: streams.Genuine) -> None:
    raw = stream.read()
    proof = Proof(manifest_of(raw))
    for part in decoded(list(chunks_of(raw))):
        proof.take(*part)
    proof.finish()


def test_segments_are_hashed_one_by_one() -> None:
    raw = large()
    cuts = [chunk.raw_offset for chunk in chunks_of(raw)][1:3]
    proof = Proof(manifest_of(raw, *cuts))
    for part in decoded(list(chunks_of(raw, *cuts))):
        proof.take(*part)
    proof.finish()


def test_a_chunk_without_its_hash() -> None:
    raw = large()
    (first, sha256), *_ = decoded(list(chunks_of(raw)))
    with pytest.raises(ChunkError, match=r"the chunk at 0 .* does not have the SHA-256 that came with it"):
        Proof(manifest_of(raw)).take(first[:-1] + b"?", sha256)


def test_a_consistent_stream_that_is_not_the_manifests() -> None:
    raw = large()
    other = raw[:-400] + b"?" + raw[-399:]
    proof = Proof(manifest_of(raw))
    *parts, last = decoded(list(chunks_of(other)))
    for part in parts:
        proof.take(*part)
    with pytest.raises(ChunkError, match="do not have the manifest's SHA-256"):
        proof.take(*last)


def test_a_chunk_beyond_the_end_of_its_segment() -> None:
    raw = large()
    proof = Proof(manifest_of(raw, 1000))
    with pytest.raises(ChunkError, match="reaches beyond its segment"):
        proof.take(*decoded(list(chunks_of(raw)))[0])


def test_more_than_the_stream() -> None:
    raw = streams.substream()
    proof = Proof(manifest_of(raw))
    (part,) = decoded(list(chunks_of(raw)))
    proof.take(*part)
    with pytest.raises(ChunkError, match="reaches beyond"):
        proof.take(*part)


def test_less_than_the_stream() -> None:
    raw = large()
    proof = Proof(manifest_of(raw))
    proof.take(*decoded(list(chunks_of(raw)))[0])
    with pytest.raises(ChunkError, match=rf"ended after \d+ of {len(raw)} bytes"):
        proof.finish()


def test_a_stored_stream_that_never_was_whole() -> None:
    raw = large()[:-312]
    proof = Proof(manifest_of(raw))
    for part in decoded(list(chunks_of(raw))):
        proof.take(*part)
    with pytest.raises(IncompleteStream):
        proof.finish()


def test_a_whole_stream_under_another_ones_manifest() -> None:
    raw = streams.substream(guid=5)
    proof = Proof(manifest_of(raw).model_copy(update={"guid": "6"}))
    proof.take(*decoded(list(chunks_of(raw)))[0])
    with pytest.raises(ChunkError, match="guid 5, which is not what the manifest says"):
        proof.finish()


@pytest.mark.parametrize("change", [{"raw_bytes": 5}, {"segments": []}])
def test_segments_that_do_not_cover_the_stream(change: dict[str, object]) -> None:
    with pytest.raises(ChunkError, match="do not cover the stream"):
        Proof(manifest_of(streams.substream()).model_copy(update=change))


def test_segments_with_a_gap() -> None:
    manifest = manifest_of(large(), 1000)
    first, second = manifest.segments
    gap = [first, second.model_copy(update={"start": 1001})]
    with pytest.raises(ChunkError, match="do not cover the stream"):
        Proof(manifest.model_copy(update={"segments": gap}))
