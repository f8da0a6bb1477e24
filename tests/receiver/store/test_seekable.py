from __future__ import annotations

import os
import re
import resource
import struct
import subprocess
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests import streams
from tests.receiver.helpers import (
    SENDER,
    chunks_of,
    cut,
    decode,
    hash_path,
    long_stream,
    make_store,
    program,
    read_manifest,
    store_stream,
    zstd_decode,
)
from tests.streams import ROOT, each, whole

from fullsend_protocol.shared import limits
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.seekable import CHUNKS_MAX, FileDamaged, IndexEntry, Place, places, tables, tables_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.streams import Genuine

    from fullsend_receiver.store.local import LocalStore

GOLDEN: Final = IndexEntry(
    raw_length=936,
    stored_length=100,
    ends_at_resume_point=True,
    first_key=(1, 0),
    starts_segment=True,
    sha256=b"\x11" * 32,
)

entries = st.builds(
    IndexEntry,
    raw_length=st.integers(1, limits.CHUNK_MAX),
    stored_length=st.integers(1, 300),
    ends_at_resume_point=st.booleans(),
    first_key=st.none() | st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)),
    starts_segment=st.booleans(),
    sha256=st.binary(min_size=32, max_size=32),
)


def write(path: Path, listed: list[IndexEntry]) -> bytes:
    """Write a file with invalid frames and correct tables."""
    content = bytes(sum(entry.stored_length for entry in listed)) + b"".join(tables(iter(listed), len(listed)))
    path.write_bytes(content)
    return content


def read(path: Path) -> list[Place]:
    with closing(LocalBlob(path)) as blob:
        return list(places(blob))


def run(name: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must succeed. Returns: its output."""
    return subprocess.run([program(name), *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout


def foreign_seek_table(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield file offset, compressed and raw size of each frame, as zstd_seekable_compression_format.md has it.

    Written from that document alone: Skippable_Magic_Number, Frame_Size, [Seek_Table_Entries], Seek_Table_Footer, all
    little-endian; the footer is Number_Of_Frames (4), Seek_Table_Descriptor (1; bit 7: entries have checksums, bits 6-2
    reserved and zero), Seekable_Magic_Number (4).
    """
    content = path.read_bytes()
    number, descriptor, magic = struct.unpack("<IBI", content[-9:])
    assert magic == 0x8F92EAB1
    assert descriptor & 0b0111_1100 == 0
    entry_size = 12 if descriptor & 0x80 else 8
    start = len(content) - 9 - number * entry_size
    assert struct.unpack("<II", content[start - 8 : start]) == (0x184D2A5E, number * entry_size + 9)
    at = 0
    for index in range(number):
        compressed, raw = struct.unpack_from("<II", content, start + index * entry_size)
        yield at, compressed, raw
        at += compressed
    assert at == start - 8, "the entries do not lead to the seek table"


# --- layout -----------------------------------------------------------------------------------------------------


def test_golden_bytes_are_those_of_the_format_document() -> None:
    document = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- golden: tables -->\s*```\n(.*?)```", document, re.DOTALL)
    assert block is not None
    assert b"".join(tables([GOLDEN], 1)) == bytes.fromhex(block[1])


def test_entry_is_packed_as_the_format_document_has_it() -> None:
    entry = IndexEntry(0x01020304, 0x05060708, False, (0x1112131415161718, 0x2122232425262728), True, bytes(range(32)))
    assert entry.pack() == bytes.fromhex(
        "04030201 08070605 06000000 00000000 1817161514131211 2827262524232221" + bytes(range(32)).hex()
    )
    assert replace(entry, first_key=None).pack()[8:32] == bytes.fromhex("04000000 00000000" + "00" * 16)


@given(entries)
def test_entry_comes_back_as_it_was(entry: IndexEntry) -> None:
    assert len(entry.pack()) == 64
    assert IndexEntry.unpack(entry.pack()) == entry


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 2048, 3000])
def test_tables_of_any_number_of_chunks_come_back(tmp_path: Path, count: int) -> None:
    listed = [replace(GOLDEN, stored_length=1 + number % 7, raw_length=1 + number) for number in range(count)]
    content = write(tmp_path / "file", listed)
    assert len(content) == sum(entry.stored_length for entry in listed) + tables_size(count)
    found = read(tmp_path / "file")
    assert [place.entry for place in found] == listed
    assert [place.number for place in found] == list(range(count))
    raw_offset = file_offset = 0
    for place in found:
        assert (place.raw_offset, place.file_offset) == (raw_offset, file_offset)
        raw_offset += place.entry.raw_length
        file_offset += place.entry.stored_length


@pytest.mark.parametrize("count", [0, 2])
def test_tables_are_not_made_for_another_number_of_entries(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 index entries for {count} chunks"):
        b"".join(tables([GOLDEN], count))


# --- stored files, read by others -------------------------------------------------------------------------------


@each(whole)
def test_stored_file_is_read_by_stock_programs(tmp_path: Path, stream: Genuine) -> None:
    store = make_store(tmp_path)
    file = store_stream(store, SENDER, stream.read())
    path = store.root / file
    assert zstd_decode(path) == stream.read()
    assert read_manifest(store, file).sha256 == stream.sha256
    run("zstd", "-tq", path)
    run("zstd", "-l", path)
    assert run("sha256sum", "-c", hash_path(store, file), cwd=path.parent) == f"{path.name}: OK\n"


@each(whole)
def test_seek_table_leads_anybody_to_every_chunk(tmp_path: Path, stream: Genuine) -> None:
    store = make_store(tmp_path)
    path = store.root / store_stream(store, SENDER, stream.read())
    content = path.read_bytes()
    *frames, index = foreign_seek_table(path)
    assert struct.unpack_from("<I", content, index[0])[0] == 0x184D2A5D
    assert index[2] == 0
    decoded = [zstandard.ZstdDecompressor().decompress(content[at : at + size]) for at, size, _raw in frames]
    assert [len(raw) for raw in decoded] == [raw for _at, _size, raw in frames]
    assert decoded == [piece for _offset, piece in cut(stream.read())]


def test_seek_table_leads_into_the_middle_of_a_long_stream(store: LocalStore) -> None:
    raw = long_stream(4)
    path = store.root / store_stream(store, SENDER, raw)
    wanted = len(raw) // 2
    before = 0
    for at, size, length in foreign_seek_table(path):
        if before <= wanted < before + length:
            frame = path.read_bytes()[at : at + size]
            assert zstandard.ZstdDecompressor().decompress(frame) == raw[before : before + length]
            return
        before += length
    pytest.fail("no frame holds the byte")


def test_index_says_of_every_chunk_what_the_sender_said(store: LocalStore) -> None:
    raw = long_stream(2, tail=3)
    found = read(store.root / store_stream(store, SENDER, raw))
    assert [(place.raw_offset, place.entry.raw_length, place.entry.sha256) for place in found] == [
        (chunk.raw_offset, chunk.raw_length, chunk.sha256) for chunk in chunks_of(raw)
    ]
    assert [place.entry.first_key for place in found] == [(1, 0), (1, 4 << 20), (2, 0)]
    assert [place.entry.ends_at_resume_point for place in found] == [True, True, False]
    assert [place.entry.starts_segment for place in found] == [True, False, False]


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small stored file of one genuine chunk."""
    store = make_store(tmp_path)
    return store.root / store_stream(store, SENDER, streams.named("incr-2").read())


def test_any_wrong_bit_in_the_tables_is_found_before_the_first_chunk_is_told_of(small: Path) -> None:
    content = small.read_bytes()
    for at in range(len(content) - tables_size(1), len(content)):
        for bit in range(8):
            small.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            with closing(LocalBlob(small)) as blob, pytest.raises(FileDamaged):
                next(places(blob))


def test_file_cut_anywhere_is_damaged(small: Path) -> None:
    for length in reversed(range(small.stat().st_size)):
        os.truncate(small, length)
        with pytest.raises(FileDamaged):
            read(small)


@pytest.mark.parametrize("more", [b"\0", b"\0" * 9, b"more", "itself"])
def test_file_with_something_behind_it_is_damaged(small: Path, more: bytes | str) -> None:
    content = small.read_bytes()
    small.write_bytes(content + (content if isinstance(more, str) else more))
    with pytest.raises(FileDamaged):
        read(small)


def test_file_that_lost_or_gained_a_byte_among_its_frames_is_damaged(small: Path) -> None:
    content = small.read_bytes()
    for changed in (content[1:], content[:50] + b"\0" + content[50:]):
        small.write_bytes(changed)
        with pytest.raises(FileDamaged):
            read(small)


@pytest.mark.parametrize(
    ("listed", "what"),
    [
        ([replace(GOLDEN, raw_length=limits.CHUNK_MAX + 1)], "chunk 0 has 20971521 raw bytes"),
        ([GOLDEN, replace(GOLDEN, stored_length=limits.CHUNK_FRAME_MAX + 1)], "chunk 1 has 936 raw bytes"),
    ],
)
def test_chunk_larger_than_any_can_be_is_damage_even_where_all_checksums_agree(
    tmp_path: Path, listed: list[IndexEntry], what: str
) -> None:
    """Its reader would take so much memory."""
    path = tmp_path / "file"
    ends = b"".join(tables(listed, len(listed)))
    with path.open("wb") as file:
        file.seek(sum(entry.stored_length for entry in listed))  # a hole
        file.write(ends)
    with pytest.raises(FileDamaged, match=what):
        read(path)


def test_tables_of_another_file_are_damage(tmp_path: Path) -> None:
    one = b"".join(tables([GOLDEN], 1))
    other = b"".join(tables([replace(GOLDEN, raw_length=937)], 1))
    seek_at = len(one) - 8 - 2 * 8 - 9
    (tmp_path / "file").write_bytes(bytes(100) + one[:seek_at] + other[seek_at:])
    with pytest.raises(FileDamaged, match="index and seek table differ"):
        read(tmp_path / "file")


def test_index_that_is_right_but_for_its_crc_is_damage(tmp_path: Path) -> None:
    content = b"".join(tables([GOLDEN], 1))
    at = content.index(struct.pack("<I", 0x184D2A5E)) - 4
    assert struct.unpack_from("<I", content, at)[0] == zlib.crc32(content[8:at])
    (tmp_path / "file").write_bytes(bytes(100) + content[:at] + bytes(4) + content[at + 4 :])
    with pytest.raises(FileDamaged, match="wrong CRC"):
        read(tmp_path / "file")


@pytest.mark.parametrize("count", [CHUNKS_MAX, CHUNKS_MAX + 1, (1 << 32) - 2, (1 << 32) - 1])
def test_huge_number_of_chunks_is_damage_and_takes_no_memory(tmp_path: Path, count: int) -> None:
    """In a file that is large enough for such tables: a sparse one."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(tables_size(count) + 1000)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<IBI", (count + 1) & 0xFFFFFFFF, 0, 0x8F92EAB1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileDamaged):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 << 10  # KiB


def test_most_chunks_that_a_file_can_have_are_a_stream_of_256_tebibytes() -> None:
    assert CHUNKS_MAX * limits.CHUNK_MIN > 255 << 40
    assert struct.pack("<I", 24 + 64 * CHUNKS_MAX + 4)
    with pytest.raises(struct.error):
        struct.pack("<I", 24 + 64 * (CHUNKS_MAX + 1) + 4)


@given(st.binary(max_size=300))
def test_no_bytes_are_anything_but_damage(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any bytes"
    path.write_bytes(content)
    with pytest.raises(FileDamaged):
        read(path)


def test_empty_stream_of_chunks_decodes_to_nothing(tmp_path: Path) -> None:
    assert decode(write(tmp_path / "file", [])) == b""
