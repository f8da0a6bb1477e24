from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import streams
from tests.streams import Genuine, each, free, named, object_, substream, whole, write, write_embedded

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, DamagedStream
from fullsend_protocol.stream.chunks import (
    LEVEL_DEFAULT,
    LEVEL_MAX,
    LEVEL_MIN,
    Compressor,
    Cutter,
    Decompressor,
    SegmentCheck,
    SegmentHash,
)
from fullsend_protocol.stream.records import HEADER_SIZE, Walker

if TYPE_CHECKING:
    from collections.abc import Iterable

MIN, MAX = limits.CHUNK_MIN, limits.CHUNK_MAX


# --- where a stream is cut ---------------------------------------------------------------------------------------


def by_the_sentence(raw: bytes, least: int, most: int) -> list[int]:
    """Return the ends of chunks, by the design's sentence and nothing else: slow and plain.

    "A chunk closes after the first resumable record (OBJECT, WRITE, WRITE_EMBEDDED) whose end lies 4,194,304 bytes or
    more from the chunk's start; else at exactly 20,971,520 bytes, wherever in a record that falls (the next chunk then
    starts inside that record); else at the stream's end."
    """
    resumable = [record.end for record in streams.split(raw) if record.key]
    ends = []
    start = 0
    while start < len(raw):
        far_enough = (end for end in resumable if end - start >= least)
        end = min(next(far_enough, len(raw)), start + most, len(raw))
        ends.append(end)
        start = end
    return ends


def cut(parts: Iterable[bytes]) -> list[int]:
    """Return the ends of chunks as a sender finds them."""
    cutter = Cutter(Walker())
    ends = []
    for part in parts:
        position = 0
        while position < len(part):
            position = cutter.walk(part, position, len(part))
            assert cutter.size == cutter.walker.offset - cutter.start
            if cutter.closed:
                ends.append(cutter.walker.offset)
                cutter.next()
                assert cutter.size == 0
            else:
                assert position == len(part)
    if cutter.size:
        ends.append(cutter.walker.offset)
    assert cutter.walker.done
    return ends


def walk_cut(raw: bytes, ends: list[int]) -> None:
    """Walk over chunks as a receiver does; raises where one does not end by the rule."""
    cutter = Cutter(Walker())
    start = 0
    for number, end in enumerate(ends):
        assert number == 0 or cutter.closed, "only the last chunk may end otherwise"
        cutter.next()
        cutter.walk_chunk(raw[start:end])
        start = end
    assert cutter.walker.done


def pieces(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def of_length(length: int) -> bytes:
    """A stream of one WRITE record whose end lies exactly there, and an END."""
    opening = streams.begin()
    return opening + write(1, 0, bytes(length - len(opening) - HEADER_SIZE)) + streams.end()


@each(whole)
def test_genuine_stream_is_cut_by_the_sentence_and_walked_by_the_receiver(stream: Genuine) -> None:
    raw = stream.read()
    ends = cut([raw])
    assert ends == by_the_sentence(raw, MIN, MAX)
    assert ends[-1] == len(raw)
    assert cut(pieces(raw, 1 << 20)) == ends
    assert cut(pieces(raw, 65_537)) == ends
    walk_cut(raw, ends)


def test_genuine_stream_of_fifteen_mebibytes_is_cut_into_several_chunks() -> None:
    ends = cut([named("long").read()])
    assert len(ends) > 2
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert all(MIN <= size < MIN + (128 << 10) + 2 * HEADER_SIZE for size in sizes[:-1])


def test_genuine_run_of_free_records_is_cut_at_exactly_20_mebibytes_inside_a_record() -> None:
    raw = named("free-run").read()
    assert cut([raw])[0] == MAX
    assert MAX not in {record.end for record in streams.split(raw)}


@pytest.mark.parametrize(
    ("reached", "ends"), [(MIN - 1, [MIN - 1 + HEADER_SIZE]), (MIN, [MIN, MIN + HEADER_SIZE]), (MIN + 1, [MIN + 1])]
)
def test_record_that_ends_at_4_mebibytes_closes_its_chunk(reached: int, ends: list[int]) -> None:
    raw = of_length(reached)
    assert cut([raw])[0] == ends[0]
    assert cut([raw]) == by_the_sentence(raw, MIN, MAX)


def test_records_that_are_not_resumable_close_nothing() -> None:
    raw = substream(
        object_(1),
        write(1, 0, bytes(MIN - 5000)),
        streams.spill(1, bytes(8000)),
        streams.freeobjects(2, 9),
        streams.redact(1),
        streams.object_range(),
        free(1),
        write(1, 1 << 30, b"x" * 512),
        free(1),
    )
    after = next(record.end for record in streams.split(raw) if record.key and record.end > MIN)
    assert cut([raw]) == by_the_sentence(raw, MIN, MAX) == [after, len(raw)]
    assert cut(pieces(raw, 1000)) == [after, len(raw)]


def test_border_of_substreams_closes_nothing() -> None:
    parts = [
        substream(write(1, 0, bytes(MIN // 2)), name=f"t@{number}", guid=number, base_guid=number - 1)
        for number in range(1, 6)
    ]
    raw = streams.package(*parts, name="t@5")
    ends = cut([raw])
    assert ends == by_the_sentence(raw, MIN, MAX)
    assert len(ends) == 3


def test_embedded_records_and_objects_close_a_chunk_too() -> None:
    for last in (object_(9), object_(9, b"bonus"), write_embedded(9, 0, b""), write_embedded(9, 0, b"embedded")):
        raw = substream(write(1, 0, bytes(MIN - 312 - HEADER_SIZE - 1)), free(1), last, free(1))
        assert cut([raw]) == by_the_sentence(raw, MIN, MAX)
        assert cut([raw])[0] == len(raw) - 2 * HEADER_SIZE


@pytest.mark.parametrize("before", [MIN - HEADER_SIZE, MIN - 311, MIN - 2, MIN - 1])
def test_record_of_16_mebibytes_that_begins_just_before_4_is_cut_at_20(before: int) -> None:
    """Its header does not fit before CHUNK_MIN: the chunk ends inside its payload, and the next one continues there."""
    opening = streams.begin()
    first = write(1, 0, bytes(before - len(opening) - HEADER_SIZE))
    raw = opening + first + write(1, 1, bytes(limits.RECORD_PAYLOAD_MAX)) + object_(2) + streams.end()
    ends = cut([raw])
    assert ends == by_the_sentence(raw, MIN, MAX) == cut(pieces(raw, 1 << 20))
    assert ends[0] == min(before + HEADER_SIZE + limits.RECORD_PAYLOAD_MAX, MAX)
    walk_cut(raw, ends)


def test_long_run_of_free_records_is_cut_every_20_mebibytes() -> None:
    raw = substream(free(1) * (2 * MAX // HEADER_SIZE + 100))
    ends = cut([raw])
    assert ends == by_the_sentence(raw, MIN, MAX) == [MAX, 2 * MAX, len(raw)]
    assert cut(pieces(raw, 999_999)) == ends
    walk_cut(raw, ends)


def test_run_of_records_of_16_mebibytes_is_cut_by_the_sentence() -> None:
    big = limits.RECORD_PAYLOAD_MAX
    raw = substream(write(1, 0, bytes(big)), streams.spill(1, bytes(big)), write(1, big, bytes(big)), object_(2))
    ends = cut([raw])
    assert ends == by_the_sentence(raw, MIN, MAX) == cut(pieces(raw, 3 << 20))
    walk_cut(raw, ends)


def test_stream_that_ends_exactly_at_20_mebibytes_has_no_empty_chunk_behind() -> None:
    frees = MAX // HEADER_SIZE - 4
    filling = MAX - (frees + 3) * HEADER_SIZE
    raw = substream(streams.spill(1, bytes(filling)), free(1) * frees)
    assert len(raw) == MAX
    assert cut([raw]) == by_the_sentence(raw, MIN, MAX) == [MAX]
    walk_cut(raw, [MAX])


@st.composite
def small_streams(draw: st.DrawFn) -> bytes:
    """Streams of records with payloads of up to 2,000 bytes, for the rule with small numbers."""
    records = draw(
        st.lists(
            st.one_of(
                st.builds(lambda size: write(1, size, bytes(size)), st.integers(0, 2000)),
                st.builds(lambda size: object_(size, bytes(size)), st.integers(0, 300)),
                st.builds(lambda size: write_embedded(1, size, bytes(size)), st.integers(0, 100)),
                st.builds(lambda size: streams.spill(1, bytes(size)), st.integers(1, 2000)),
                st.builds(lambda count: free(1) * count, st.integers(1, 12)),
                st.sampled_from([streams.end() + streams.begin(), streams.redact(1), streams.object_range()]),
            ),
            max_size=30,
        )
    )
    raw = substream(*records)
    if streams.end() + streams.begin() in records:
        raw = streams.package(raw)
    return raw


@pytest.mark.slow
@settings(max_examples=300)
@given(small_streams(), st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_any_stream_is_cut_by_the_sentence_however_it_comes(
    raw: bytes, least: int, more: int, data: st.DataObject
) -> None:
    """With small bounds, so that many chunks of each sort come of a stream of a few KiB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "CHUNK_MIN", least)
        patch.setattr(limits, "CHUNK_MAX", least + more)
        expected = by_the_sentence(raw, least, least + more)
        assert cut([raw]) == expected
        places = [0, *sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6))), len(raw)]
        assert cut([raw[start:stop] for start, stop in itertools.pairwise(places)]) == expected
        walk_cut(raw, expected)


@settings(max_examples=300)
@given(small_streams(), st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_chunk_that_is_cut_elsewhere_is_seen_by_the_receiver(
    raw: bytes, least: int, more: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "CHUNK_MIN", least)
        patch.setattr(limits, "CHUNK_MAX", least + more)
        ends = by_the_sentence(raw, least, least + more)
        number = data.draw(st.integers(0, len(ends) - 1))
        start = ends[number - 1] if number else 0
        moved = data.draw(st.integers(start + 1, len(raw)).filter(lambda end: end != ends[number]))
        cutter = Cutter(Walker())
        for before, end in zip([0, *ends], ends[:number], strict=False):
            cutter.next()
            cutter.walk_chunk(raw[before:end])
        cutter.next()
        if moved > ends[number]:
            with pytest.raises(DamagedStream, match=f"which must end at {ends[number]}"):
                cutter.walk_chunk(raw[start:moved])
        else:
            cutter.walk_chunk(raw[start:moved])
            assert not cutter.closed
            assert not cutter.walker.done


def test_first_key_is_that_of_the_first_resumable_record_of_each_chunk() -> None:
    raw = substream(*(free(number) + write(number, number << 20, bytes(MIN // 2)) for number in range(1, 6)), free(9))
    cutter = Cutter(Walker())
    keys = []
    position = 0
    while position < len(raw):
        position = cutter.walk(raw, position, len(raw))
        keys.append(cutter.walker.first_key)
        cutter.next()
    assert keys == [(1, 1 << 20), (3, 3 << 20), (5, 5 << 20)]
    assert cutter.walker.first_key is None


# --- the running hash --------------------------------------------------------------------------------------------


def test_segment_hash_runs_from_its_start_through_each_chunk() -> None:
    segment = SegmentHash(1000)
    assert segment.digest() == hashlib.sha256().digest()
    assert segment.update(b"one") == hashlib.sha256(b"one").digest()
    assert segment.update(memoryview(b"two")) == hashlib.sha256(b"onetwo").digest() == segment.digest()
    assert (segment.start, segment.end) == (1000, 1006)


def test_behind_a_lost_chunk_nothing_is_compared_before_the_next_segment() -> None:
    first, second = hashlib.sha256(b"onetwo").digest(), hashlib.sha256(b"six").digest()
    check = SegmentCheck()
    assert check.fits(b"one", hashlib.sha256(b"one").digest())
    assert not check.fits(b"tvo", first)
    assert not check.knows
    assert check.fits(b"anything", first)
    check.begin(20)
    assert check.fits(b"six", second)
    assert check.knows
    check.lose()
    assert not check.knows
    assert check.fits(b"anything", second)


@given(st.lists(st.binary(max_size=50)))
def test_segment_hash_is_that_of_all_its_bytes(chunks: list[bytes]) -> None:
    segment = SegmentHash(0)
    for number, chunk in enumerate(chunks, 1):
        assert segment.update(chunk) == hashlib.sha256(b"".join(chunks[:number])).digest()
    assert segment.end == len(b"".join(chunks))


# --- frames ------------------------------------------------------------------------------------------------------

RAW = EXAMPLE = bytes(range(256)) * 100


def frame(raw: bytes, **parameters: bool) -> bytes:
    """A frame such as another program might make."""
    return zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            3, **({"write_content_size": True, "write_checksum": True} | parameters)
        )
    ).compress(raw)


@pytest.mark.parametrize("level", [LEVEL_MIN, -1, 0, 1, LEVEL_DEFAULT, 9, 19, LEVEL_MAX])
@pytest.mark.parametrize("raw", [b"x", RAW, bytes(5 << 20)], ids=["byte", "bytes", "zeros"])
def test_frame_comes_out_as_it_went_in_at_every_level(level: int, raw: bytes) -> None:
    packed = Compressor(level).compress(raw)
    parameters = zstandard.get_frame_parameters(packed)
    assert (parameters.content_size, parameters.has_checksum, parameters.dict_id) == (len(raw), True, 0)
    assert parameters.window_size <= max(len(raw), 1 << limits.WINDOW_LOG_MAX)
    assert Decompressor().decompress(packed, len(raw)) == raw
    assert zstandard.decompress(packed) == raw


@given(st.binary(min_size=1, max_size=5000), st.sampled_from([bytes, bytearray, memoryview]))
def test_any_bytes_come_out_as_they_went_in(raw: bytes, form: type[bytes | bytearray | memoryview]) -> None:
    assert Decompressor().decompress(memoryview(Compressor(1).compress(form(raw))), len(raw)) == raw


def test_compressor_and_decompressor_serve_many_frames_even_after_a_bad_one() -> None:
    compressor, decompressor = Compressor(3), Decompressor()
    frames = [compressor.compress(RAW[:size]) for size in (1, 1000, 20_000)]
    assert compressor.compress(RAW[:1000]) == frames[1]  # no frame depends on those before it
    for packed, size in zip(frames, (1, 1000, 20_000), strict=True):
        with pytest.raises(ChunkError):
            decompressor.decompress(packed[:-1], size)
        assert decompressor.decompress(packed, size) == RAW[:size]


def test_incompressible_chunk_of_full_size_stays_within_the_frame_limit() -> None:
    noise = hashlib.shake_128(b"noise").digest(MAX)
    packed = Compressor(LEVEL_MIN).compress(noise)
    assert len(noise) < len(packed) <= limits.CHUNK_FRAME_MAX
    assert Decompressor().decompress(packed, MAX) == noise


def single_segment(content: bytes, claimed: int) -> bytes:
    """A frame of one raw block whose header claims another size."""
    block = struct.pack("<I", len(content) << 3 | 1)[:3] + content
    return b"\x28\xb5\x2f\xfd\xe4" + struct.pack("<Q", claimed) + block + bytes(4)


def windowed(window_descriptor: int, content: bytes) -> bytes:
    """A frame that asks for a window of its own choosing."""
    block = struct.pack("<I", len(content) << 3 | 1)[:3] + content
    return b"\x28\xb5\x2f\xfd\x84" + bytes([window_descriptor]) + struct.pack("<I", len(content)) + block + bytes(4)


BOMB = frame(bytes(64 << 20))


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (b"", "not a zstd frame"),
        (b"x" * 100, "not a zstd frame"),
        (b"\x28\xb5\x2f\xfd", "not a zstd frame"),
        (frame(RAW + b"x"), f"of {len(RAW) + 1} raw bytes: {len(RAW)} were announced"),
        (frame(RAW[:-1]), f"of {len(RAW) - 1} raw bytes"),
        (frame(RAW, write_content_size=False), "raw bytes: 25600 were announced"),
        (frame(RAW, write_checksum=False), "without checksum"),
        (frame(RAW) + b"x", "does not decode"),
        (frame(RAW) + frame(RAW), "does not decode"),
        (frame(RAW) + b"\x50\x2a\x4d\x18\0\0\0\0", "does not decode"),
        (b"\x50\x2a\x4d\x18" + struct.pack("<I", len(RAW)) + RAW, "without checksum"),
        (frame(RAW)[:-1], "does not decode"),
        (frame(RAW)[:-4], "does not decode"),
        (frame(RAW)[:20], "does not decode"),
        (BOMB, f"of {64 << 20} raw bytes"),
        (single_segment(b"x" * 1000, len(RAW)), "does not decode"),
        (single_segment(b"x" * 100_000, len(RAW)), "does not decode"),
    ],
    ids=[
        "nothing",
        "garbage",
        "magic",
        "longer",
        "shorter",
        "no size",
        "no checksum",
        "trailing byte",
        "two frames",
        "skippable behind",
        "skippable",
        "cut",
        "checksum cut",
        "head",
        "bomb",
        "false size, too few",
        "false size, too many",
    ],
)
def test_frame_that_is_not_what_was_announced_is_refused(packed: bytes, said: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ChunkError, match=said):
            Decompressor().decompress(packed, len(RAW))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_frame_with_a_dictionary_is_refused() -> None:
    dictionary = zstandard.train_dictionary(2000, [bytes([i]) * 50 + RAW[i : i + 200] for i in range(200)])
    packed = zstandard.ZstdCompressor(dict_data=dictionary, write_checksum=True).compress(RAW)
    assert zstandard.get_frame_parameters(packed).dict_id
    with pytest.raises(ChunkError, match="with a dictionary"):
        Decompressor().decompress(packed, len(RAW))


def test_frame_that_asks_for_more_window_than_a_chunk_is_refused() -> None:
    """Window descriptor 0x98 is 2^29 bytes, the most that zstd takes at all is 2^31."""
    decompressor = Decompressor()
    for descriptor in (0x98, 0xA8, 0xF8):
        with pytest.raises(ChunkError):
            decompressor.decompress(windowed(descriptor, b"x" * 1000), 1000)


@settings(max_examples=300)
@given(st.data())
def test_frame_with_any_bit_flipped_gives_the_right_bytes_or_is_refused(data: st.DataObject) -> None:
    packed = bytearray(frame(EXAMPLE[:3000]))
    bit = data.draw(st.integers(0, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ChunkError):
        assert Decompressor().decompress(bytes(packed), 3000) == EXAMPLE[:3000]


@given(st.binary(max_size=300), st.integers(1, 5000))
def test_any_bytes_are_a_chunk_or_a_chunk_error(packed: bytes, raw_length: int) -> None:
    for data in (packed, b"\x28\xb5\x2f\xfd" + packed):
        with contextlib.suppress(ChunkError):
            assert len(Decompressor().decompress(data, raw_length)) == raw_length
