from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests import streams
from tests.receiver.helpers import (
    SENDER,
    chunks_from,
    chunks_of,
    cut,
    decode,
    finish_of,
    long_stream,
    push_of,
    segments_of,
    take,
    take_one,
)
from tests.streams import broken, each, whole

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    ChunkError,
    DamagedStream,
    FullsendError,
    IncompleteStream,
    NotASendStream,
    StreamError,
    TrailingBytes,
    UnsupportedStream,
)
from fullsend_protocol.stream.chunks import Compressor, SegmentHash
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.arrival import ingest as ingest_module
from fullsend_receiver.arrival.decode_queue import decode_chunk
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.streams import Genuine

    from fullsend_receiver.store.local import LocalStore

RAW = long_stream(2, tail=2)
PLAIN = streams.substream(streams.object_(1), streams.write(1, 0, b"x" * 512))


@pytest.fixture
def ingest(store: LocalStore) -> Iterator[Ingest]:
    """An arriving stream of which nothing has come."""
    push = push_of(PLAIN)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    yield ingest
    ingest.partial.close(keep=True)


def written(ingest: Ingest, store: LocalStore) -> bytes:
    return (store.partial / f"{ingest.partial.key}.data").read_bytes()


def take_all(ingest: Ingest, chunks: Iterable[Chunk]) -> None:
    for chunk in chunks:
        take_one(ingest, chunk)


def in_pieces(*pieces: bytes) -> list[Chunk]:
    """Chunks cut wherever a liar likes, all else right."""
    segment, compressor = SegmentHash(0), Compressor(3)
    chunks = []
    offset = 0
    for piece in pieces:
        chunks.append(Chunk(offset, len(piece), segment.update(piece), compressor.compress(piece)))
        offset += len(piece)
    return chunks


# --- what is right ----------------------------------------------------------------------------------------------


@each(whole)
def test_genuine_stream_is_taken_and_its_frames_are_written_as_they_came(
    store: LocalStore, ingest: Ingest, stream: Genuine
) -> None:
    raw = stream.read()
    chunks = list(chunks_of(raw))
    take_all(ingest, chunks)
    about = ingest.conclude(finish_of(raw))
    assert written(ingest, store) == b"".join(bytes(chunk.frame) for chunk in chunks)
    assert ingest.offset == len(raw)
    assert ingest.chunks == len(chunks)
    (last,) = (begin for begin in stream.begins[-1:])
    assert f"{about.dataset}@{about.snapshot}" == stream.begins[0]["toname"]
    assert about.guid in {begin["toguid"] for begin in stream.begins}
    assert about.created == last["creation"] or len(stream.begins) > 2


def test_segment_proves_what_has_arrived(ingest: Ingest) -> None:
    offset = 0
    for chunk in chunks_of(RAW):
        take_one(ingest, chunk)
        offset += chunk.raw_length
        sha256 = hashlib.sha256(RAW[:offset]).hexdigest()
        assert ingest.segments() == [Segment(start=0, end=offset, sha256=sha256)]


def test_batch_has_the_chunks_since_the_last_one(ingest: Ingest) -> None:
    chunks = list(chunks_of(RAW))
    take_all(ingest, chunks[:2])
    assert ingest.unsynced == sum(len(chunk.frame) for chunk in chunks[:2])
    batch = ingest.batch()
    assert ingest.unsynced == 0
    assert (batch.offset, batch.stored) == (sum(chunk.raw_length for chunk in chunks[:2]), ingest.partial.size)
    assert [written.entry.sha256 for written in batch.chunks] == [chunk.sha256 for chunk in chunks[:2]]
    take_one(ingest, chunks[2])
    batch = ingest.batch()
    assert batch.offset == len(RAW)
    assert [written.entry.sha256 for written in batch.chunks] == [chunks[2].sha256]
    assert ingest.batch().chunks == ()


def test_chunk_may_be_views_into_a_buffer(store: LocalStore, ingest: Ingest) -> None:
    (chunk,) = chunks_of(PLAIN)
    views = replace(chunk, sha256=memoryview(bytes(chunk.sha256)), frame=memoryview(bytearray(chunk.frame)))
    take_one(ingest, views)
    assert decode(written(ingest, store)) == PLAIN


@pytest.mark.parametrize("level", [-7, 1, 3, 19])
def test_level_is_the_senders_business(ingest: Ingest, level: int) -> None:
    take_all(ingest, chunks_of(PLAIN, level))
    assert isinstance(ingest.conclude(finish_of(PLAIN)), Facts)


# --- chunks that lie --------------------------------------------------------------------------------------------


def refused(store: LocalStore, ingest: Ingest, chunk: Chunk, error: type[FullsendError], match: str) -> None:
    """The chunk is refused, and nothing of it is written or counted."""
    before = written(ingest, store), ingest.chunks, ingest.partial.size
    with pytest.raises(error, match=match):
        take_one(ingest, chunk)
    assert (written(ingest, store), ingest.chunks, ingest.partial.size) == before


@pytest.mark.parametrize("at", [0, 31])
def test_chunk_with_a_wrong_hash_is_refused(store: LocalStore, ingest: Ingest, at: int) -> None:
    first, second, _ = chunks_of(RAW)
    take_one(ingest, first)
    wrong = bytearray(second.sha256)
    wrong[at] ^= 1
    refused(store, ingest, replace(second, sha256=bytes(wrong)), ChunkError, "its SHA-256 differs from the sender's")


def test_chunk_with_the_hash_of_its_own_bytes_alone_is_refused(store: LocalStore, ingest: Ingest) -> None:
    """The hash runs: a chunk that was swapped for another one of the same stream has the wrong one."""
    first, second, _ = chunks_of(RAW)
    take_one(ingest, first)
    alone = hashlib.sha256(RAW[second.raw_offset : second.raw_offset + second.raw_length]).digest()
    refused(store, ingest, replace(second, sha256=alone), ChunkError, "SHA-256 differs")


@pytest.mark.parametrize("at", [0, 4, 5, 20, -1])
def test_chunk_with_a_wrong_byte_in_its_frame_is_refused(store: LocalStore, ingest: Ingest, at: int) -> None:
    (chunk,) = chunks_of(PLAIN)
    frame = bytearray(chunk.frame)
    frame[at] ^= 1
    refused(store, ingest, replace(chunk, frame=bytes(frame)), ChunkError, "zstd frame")


def test_chunk_whose_frame_is_none_is_refused(store: LocalStore, ingest: Ingest) -> None:
    (chunk,) = chunks_of(PLAIN)
    without_checksum = zstandard.ZstdCompressor(write_checksum=False).compress(PLAIN)
    without_size = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(PLAIN)
    for frame in (
        b"",
        b"no frame",
        bytes(chunk.frame)[:-1],
        bytes(chunk.frame) + b"\0",
        bytes(chunk.frame) * 2,
        b"\x50\x2a\x4d\x18\0\0\0\0" + bytes(chunk.frame),
        bytes(chunk.frame) + b"\x50\x2a\x4d\x18\0\0\0\0",
        without_checksum,
        without_size,
    ):
        refused(store, ingest, replace(chunk, frame=frame), ChunkError, "zstd frame")


@pytest.mark.parametrize("more", [-1, 1, 1 << 20])
def test_chunk_of_another_length_than_announced_is_refused(store: LocalStore, ingest: Ingest, more: int) -> None:
    (chunk,) = chunks_of(PLAIN)
    refused(store, ingest, replace(chunk, raw_length=chunk.raw_length + more), ChunkError, "were announced")


# --- chunks that are cut in the wrong place ---------------------------------------------------------------------


def test_chunk_that_is_too_short_is_refused_with_the_next_one(store: LocalStore, ingest: Ingest) -> None:
    """By itself it could be the stream's last."""
    first, second = in_pieces(RAW[:1_000_000], RAW[1_000_000:1_000_100])
    take_one(ingest, first)
    refused(store, ingest, second, DamagedStream, "the one before it ended where none may end")


def test_chunk_that_continues_beyond_its_end_is_refused(store: LocalStore, ingest: Ingest) -> None:
    (_, first), *_rest = cut(RAW)
    (chunk,) = in_pieces(RAW[: len(first) + 1])
    refused(store, ingest, chunk, DamagedStream, f"which must end at {len(first)}")


def test_chunk_that_ends_a_byte_early_is_refused_with_the_next_one(store: LocalStore, ingest: Ingest) -> None:
    (_, first), *_rest = cut(RAW)
    one, other = in_pieces(RAW[: len(first) - 1], RAW[len(first) - 1 : len(first)])
    take_one(ingest, one)
    refused(store, ingest, other, DamagedStream, "the one before it ended where none may end")


def test_run_without_a_resumable_record_is_cut_at_exactly_chunk_max(store: LocalStore, ingest: Ingest) -> None:
    raw = streams.substream(streams.free(1) * (limits.CHUNK_MAX // 312 + 10))
    chunks = list(chunks_of(raw))
    assert [chunk.raw_length for chunk in chunks] == [limits.CHUNK_MAX, len(raw) - limits.CHUNK_MAX]
    take_all(ingest, chunks)
    assert [written.entry.ends_at_resume_point for written in ingest.batch().chunks] == [False, False]
    ingest.conclude(finish_of(raw))
    assert decode(written(ingest, store)) == raw


# --- no streams, or streams that are not whole ------------------------------------------------------------------


@each(broken)
def test_genuine_stream_that_is_not_whole_is_refused(ingest: Ingest, stream: Genuine) -> None:
    raw = stream.read()
    expected = {"cut": IncompleteStream, "resumed": UnsupportedStream}.get(stream.sort, StreamError)

    def push() -> None:
        take_all(ingest, in_pieces(*(raw[at : at + (4 << 20)] for at in range(0, len(raw), 4 << 20))))
        ingest.conclude(finish_of(raw))

    with pytest.raises(expected):
        push()


def test_resumed_stream_is_refused_at_its_first_chunk(store: LocalStore, ingest: Ingest) -> None:
    raw = streams.named("full-rest").read()
    (chunk,) = in_pieces(raw)
    refused(store, ingest, chunk, UnsupportedStream, "resumed stream")


@pytest.mark.parametrize(
    ("raw", "error", "match"),
    [
        (b"garbage", NotASendStream, "only 7 bytes"),
        (bytes(1000), NotASendStream, "does not begin with a BEGIN record"),
        (PLAIN[100:], NotASendStream, "does not begin with a BEGIN record"),
        (PLAIN[:8], NotASendStream, "only 8 bytes"),
        (PLAIN[:300], IncompleteStream, "ends inside its first records, after 300 bytes"),
        (streams.begin(payload=bytes(100))[:400], IncompleteStream, "ends inside its first records, after 400 bytes"),
        (streams.package()[:700], IncompleteStream, "before the closing END record of the package"),
        (streams.package(), IncompleteStream, "a package without a single snapshot"),
    ],
    ids=["a word", "zeros", "a tail", "8 bytes", "300 bytes", "no whole BEGIN", "half a package", "an empty package"],
)
def test_what_is_no_stream_is_refused_at_its_first_chunk(
    store: LocalStore, ingest: Ingest, raw: bytes, error: type[StreamError], match: str
) -> None:
    refused(store, ingest, in_pieces(raw)[0], error, match)


def test_stream_with_a_damaged_record_is_refused_at_its_chunk(store: LocalStore, ingest: Ingest) -> None:
    first, second, _ = (piece for _offset, piece in cut(RAW))
    at = 312 + (1 << 20)  # the second record of the second chunk
    damaged = second[:at] + b"\x63" + second[at + 1 :]  # type 99
    one, other = in_pieces(first, damaged)
    take_one(ingest, one)
    refused(store, ingest, other, DamagedStream, "unknown record type 99")


@pytest.mark.parametrize("tail", [b"\0", PLAIN])
def test_bytes_behind_the_end_are_refused(store: LocalStore, ingest: Ingest, tail: bytes) -> None:
    refused(store, ingest, in_pieces(PLAIN + tail)[0], TrailingBytes, "follow the stream's end")


@pytest.mark.parametrize("length", [400, len(PLAIN) - 312, len(PLAIN) - 1])
def test_stream_that_was_cut_is_incomplete(ingest: Ingest, length: int) -> None:
    take_all(ingest, in_pieces(PLAIN[:length]))
    with pytest.raises(IncompleteStream, match="it was cut, or its producer died"):
        ingest.conclude(finish_of(PLAIN[:length]))


def test_stream_without_a_byte_is_none(ingest: Ingest) -> None:
    with pytest.raises(NotASendStream, match="not a single byte"):
        ingest.conclude(finish_of(b""))


def test_package_that_lacks_a_snapshot_is_incomplete(ingest: Ingest) -> None:
    inner = streams.substream(name="tank/data@now", guid=7)
    nvlist = streams.tree("now", streams.file_system("tank/data", {"now": 7, "before": 6}))
    raw = streams.package(inner, nvlist=nvlist)
    take_all(ingest, in_pieces(raw))
    with pytest.raises(IncompleteStream, match="tank/data@before, which did not arrive"):
        ingest.conclude(finish_of(raw))


def test_begin_records_that_fill_the_first_chunk_are_no_reason_to_refuse(ingest: Ingest) -> None:
    """A package's nvlist may take 16 MiB, and that of its first substream as much again."""
    filler: dict[str, streams.NvValue] = {f"filler {number}": "x" * 60_000 for number in range(250)}
    named = streams.tree("now", streams.file_system("tank/data", {"now": streams.GUID}))
    outer = streams.xdr({**named, "more": filler})
    inner = streams.native(filler)
    raw = (
        streams.begin("tank/data@now", 0, header_type=streams.COMPOUND, payload=outer)
        + streams.CLOSING_END
        + streams.substream(payload=inner)
        + streams.CLOSING_END
    )
    chunks = list(chunks_of(raw))
    assert len(outer) + len(inner) > chunks[0].raw_length == limits.CHUNK_MAX
    take_all(ingest, chunks)
    assert ingest.conclude(finish_of(raw)).guid == streams.GUID


@pytest.mark.parametrize(
    "change",
    [
        {"raw_bytes": len(PLAIN) - 1},
        {"raw_bytes": len(PLAIN) + 1},
        {"segments": []},
        {"segments": [Segment(start=0, end=len(PLAIN), sha256="00" * 32)]},
        {"segments": [Segment(start=1, end=len(PLAIN), sha256=hashlib.sha256(PLAIN).hexdigest())]},
        {"segments": [Segment(start=0, end=len(PLAIN) + 1, sha256=hashlib.sha256(PLAIN).hexdigest())]},
        {"segments": [Segment(start=0, end=len(PLAIN), sha256=hashlib.sha256(PLAIN).hexdigest())] * 2},
    ],
)
def test_last_word_that_does_not_fit_what_arrived_is_refused(ingest: Ingest, change: dict[str, object]) -> None:
    take_all(ingest, chunks_of(PLAIN))
    with pytest.raises(ChunkError, match="differs from the sender's"):
        ingest.conclude(finish_of(PLAIN).model_copy(update=change))


def test_stream_of_more_chunks_than_a_file_can_have_is_refused(
    store: LocalStore, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "CHUNKS_MAX", 2)
    first, second, third = chunks_of(RAW)
    take_all(ingest, (first, second))
    refused(store, ingest, third, UnsupportedStream, "more than 2 chunks")


def test_what_is_checked_and_not_written_yet_is_in_no_batch(ingest: Ingest) -> None:
    """The next chunk may be checked, and refused, before the one before it is written."""
    first, second, third = chunks_of(RAW)
    checked = ingest.check(first, decode_chunk(first))
    ahead = ingest.check(second, decode_chunk(second))
    assert (ingest.offset, ingest.chunks, ingest.unsynced, ingest.batch().chunks) == (0, 0, 0, ())
    ingest.write(checked)
    with pytest.raises(ChunkError, match="differs from the sender's"):
        ingest.check(replace(third, sha256=bytes(32)), decode_chunk(third))
    batch = ingest.batch()
    assert (batch.offset, batch.stored, len(batch.chunks)) == (second.raw_offset, len(first.frame), 1)
    assert batch.walker.offset == second.raw_offset
    ingest.write(ahead)
    batch = ingest.batch()
    assert (batch.offset, len(batch.chunks), ingest.chunks) == (third.raw_offset, 1, 2)


# --- resuming ---------------------------------------------------------------------------------------------------


def test_stream_that_resumes_has_a_segment_more_and_its_batches_resume(store: LocalStore, ingest: Ingest) -> None:
    first, second, third = chunks_of(RAW)
    take(ingest, [first])
    ingest.partial.close(keep=True)
    found = store.reopen(ingest.partial.key, at_resume_point=False)
    assert found is not None
    again = Ingest(*found)
    assert (again.offset, again.chunks, again.unsynced) == (second.raw_offset, 1, 0)
    assert again.segments() == segments_of(RAW[: second.raw_offset])
    assert again.batch().chunks == ()
    take_one(again, rest := next(chunks_from(RAW, second.raw_offset)))
    assert again.segments() == segments_of(RAW[: third.raw_offset], second.raw_offset)
    batch = again.batch()
    assert [each.entry.starts_segment for each in batch.chunks] == [True]
    assert (batch.offset, batch.stored, batch.begins) == (third.raw_offset, len(first.frame) + len(rest.frame), ())
    # A sender may start one whenever it likes.
    take_one(again, next(chunks_from(RAW, third.raw_offset)))
    assert [each.entry.starts_segment for each in again.batch().chunks] == [True]
    again.conclude(finish_of(RAW, second.raw_offset, third.raw_offset))
    with pytest.raises(ChunkError, match="differs from the sender's"):
        again.conclude(finish_of(RAW, second.raw_offset))
    again.partial.close(keep=True)


def test_stream_that_is_whole_resumes_with_its_last_word_alone(store: LocalStore, ingest: Ingest) -> None:
    take(ingest, chunks_of(PLAIN))
    ingest.partial.close(keep=True)
    found = store.reopen(ingest.partial.key, at_resume_point=False)
    assert found is not None
    again = Ingest(*found)
    assert again.conclude(finish_of(PLAIN)).guid == streams.GUID
    refused(
        store, again, replace(next(chunks_of(PLAIN)), starts_segment=True), TrailingBytes, "follow the stream's end"
    )
    again.partial.close(keep=True)


def test_stream_that_resumes_with_other_bytes_is_refused_where_they_cannot_follow(
    store: LocalStore, ingest: Ingest
) -> None:
    first, second, _third = chunks_of(RAW)
    take(ingest, [first])
    ingest.partial.close(keep=True)
    found = store.reopen(ingest.partial.key, at_resume_point=False)
    assert found is not None
    again = Ingest(*found)
    (other,) = in_pieces(PLAIN)  # from its BEGIN on
    refused(store, again, replace(other, raw_offset=second.raw_offset), DamagedStream, "in a wrong place")
    again.partial.close(keep=True)


def test_segments_are_bounded(store: LocalStore, ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENTS_MAX", 2)
    for chunk in list(chunks_of(RAW))[:2]:
        take_one(ingest, next(chunks_from(RAW, chunk.raw_offset)))
    third = next(chunks_from(RAW, ingest.offset))
    refused(store, ingest, third, UnsupportedStream, "of more than 2 segments: it was interrupted too often")


def test_batch_stands_where_the_last_chunk_ended_that_was_written(store: LocalStore, ingest: Ingest) -> None:
    """The walker has walked into the chunk that was refused."""
    first, second, _third = chunks_of(RAW)
    take_one(ingest, first)
    state = ingest.walker.state
    damaged = RAW[second.raw_offset :][: 312 + (1 << 20)] + b"\x63" * 400
    one, other = in_pieces(RAW[: second.raw_offset], damaged)
    assert one.sha256 == first.sha256
    refused(store, ingest, other, DamagedStream, "unknown record type")
    assert ingest.walker.offset > second.raw_offset
    batch = ingest.batch()
    assert (batch.offset, batch.walker, len(batch.chunks)) == (second.raw_offset, state, 1)
    assert ingest.offset == second.raw_offset
