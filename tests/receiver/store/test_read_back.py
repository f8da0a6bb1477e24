from __future__ import annotations

import pytest
from tests.receiver.helpers import chunks_from, chunks_of, long_stream

from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.store.errors import PartialDamaged
from fullsend_receiver.store.read_back import ReadBack
from fullsend_receiver.store.seekable import IndexEntry

RAW = long_stream(2, tail=1)
CHUNKS = list(chunks_of(RAW))
#: The same stream, resumed at its second chunk.
RESUMED = [CHUNKS[0], *chunks_from(RAW, CHUNKS[1].raw_offset)]


def reading(chunks: list[Chunk]) -> ReadBack:
    return ReadBack(
        IndexEntry(each.raw_length, len(each.frame), True, None, each.starts_segment, bytes(each.sha256))
        for each in chunks
    )


@pytest.mark.parametrize("chunks", [CHUNKS, RESUMED], ids=["one segment", "two segments"])
def test_what_is_as_it_arrived_comes_back(chunks: list[Chunk]) -> None:
    data = b"".join(bytes(each.frame) for each in chunks)
    back = reading(chunks)
    frames = [back.next(lambda start, size: data[start : start + size]) for _each in chunks]
    assert frames == [each.frame for each in chunks]
    with pytest.raises(PartialDamaged, match=f"its journal ends at byte {len(data)}"):
        back.next(lambda start, size: data[start : start + size])
    back.close()


def test_what_a_disk_has_changed_is_damage_of_the_partial() -> None:
    data = bytearray(b"".join(bytes(each.frame) for each in CHUNKS))
    second = len(CHUNKS[0].frame)
    data[second + 40] ^= 1
    back = reading(CHUNKS)
    back.next(lambda start, size: bytes(data[start : start + size]))
    start, end = CHUNKS[1].raw_offset, CHUNKS[1].raw_offset + CHUNKS[1].raw_length
    with pytest.raises(PartialDamaged, match=rf"chunk 1 \(raw bytes {start} to {end}\) is not as it arrived: a zstd"):
        back.next(lambda start, size: bytes(data[start : start + size]))
    back.close()


def test_a_good_frame_of_other_bytes_is_damage_too() -> None:
    data = CHUNKS[1].frame
    other = IndexEntry(CHUNKS[1].raw_length, len(data), True, None, True, bytes(CHUNKS[0].sha256))
    back = ReadBack(iter([other]))
    with pytest.raises(PartialDamaged, match="its SHA-256 is not the proven one"):
        back.next(lambda start, size: bytes(data[start : start + size]))
    back.close()


def test_a_file_that_was_cut_is_damage() -> None:
    back = reading(CHUNKS)
    with pytest.raises(PartialDamaged, match="its data file ends in chunk 0, at 3"):
        back.next(lambda _start, _size: b"abc")
    back.close()
