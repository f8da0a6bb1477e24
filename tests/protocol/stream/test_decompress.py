"""Genuine blocks of every codec, and what damage and malice make of them."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.data.load import HERE, stream

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import BlockDamaged, DamagedStream
from fullsend_protocol.stream.decompress import Compression, decompress
from fullsend_protocol.stream.records import HEADER_SIZE, RecordType, payload_length

SECTOR: Final = 512
#: BPE_PAYLOAD_SIZE of OpenZFS (include/sys/spa.h).
EMBEDDED_MAX: Final = 112
LZ4, LZJB, ZLE, ZSTD, GZIP = Compression.LZ4, Compression.LZJB, Compression.ZLE, Compression.ZSTD, Compression.GZIP_6
CODECS: Final = (LZ4, LZJB, ZLE, ZSTD, GZIP)
#: Of all that begin with the number of their bytes: how many bytes are before the compressed ones.
HEADERS: Final = {LZ4: 4, ZSTD: 8}


@dataclass(frozen=True)
class Block:
    """A block that OpenZFS compressed, and what OpenZFS says that it holds."""

    codec: str
    compression: int
    embedded: bool
    data: bytes
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)


def label(block: Block) -> str:
    """For pytest."""
    return f"{block.codec}-{block.compression}-{len(block.data)}{'-embedded' * block.embedded}"


def stored_blocks() -> list[Block]:
    """Those of tests/data/blocks."""
    folder = HERE / "blocks"
    payloads = (folder / "blocks").read_bytes()
    contents = zstandard.ZstdDecompressor().decompressobj().decompress((folder / "contents.zst").read_bytes())
    blocks = []
    for entry in json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8")):
        content = contents[entry["content_at"] : entry["content_at"] + entry["size"]]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        data = payloads[entry["at"] : entry["at"] + entry["stored"]]
        blocks.append(Block(entry["codec"], entry["compression"], entry["embedded"], data, content))
    return blocks


BLOCKS: Final = stored_blocks()
#: Small enough to be decoded once for each of their bytes.
SMALL: Final = [block for block in BLOCKS if len(block.data) <= 2 * SECTOR or block.compression == ZLE]


def outcome(compression: int, data: bytes, size: int) -> bytes | None:
    """Return the contents, or None if the block is refused. Nothing else may happen."""
    try:
        content = decompress(compression, data, size)
    except BlockDamaged:
        return None
    assert type(content) is bytes
    assert len(content) == size
    return content


def lz4(block: bytes) -> bytes:
    """As ZFS has an LZ4 block."""
    return len(block).to_bytes(4, "big") + block


def zstd(frame: bytes) -> bytes:
    """As ZFS has a frame. The version and level are those of a genuine one."""
    return struct.pack(">II", len(frame), 0x289E03) + frame


# --- genuine blocks ------------------------------------------------------------------------------------------------


def test_every_codec_has_genuine_blocks_of_both_kinds() -> None:
    for embedded in (False, True):
        found = {block.compression for block in BLOCKS if block.embedded is embedded}
        assert found == {LZJB, Compression.GZIP_1, GZIP, Compression.GZIP_9, ZLE, LZ4, ZSTD}
    assert all(len(block.data) <= EMBEDDED_MAX for block in BLOCKS if block.embedded)
    assert all(len(block.data) % SECTOR == 0 for block in BLOCKS if not block.embedded)


@pytest.mark.parametrize("block", BLOCKS, ids=label)
def test_a_genuine_block_decodes_to_what_zfs_says(block: Block) -> None:
    assert decompress(block.compression, block.data, block.size) == block.content
    assert decompress(block.compression, memoryview(bytearray(block.data)), block.size) == block.content


def records(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header and payload of each record."""
    at = 0
    while at < len(raw):
        end = at + HEADER_SIZE + (payload_length(raw, at) or 0)
        yield raw[at : at + HEADER_SIZE], raw[at + HEADER_SIZE : end]
        at = end


@pytest.mark.parametrize(
    ("sent", "plain"),
    [("full-lz4-c", "full-lz4"), ("full-large-Lec", "full-large-L"), ("full-embed-e", "full-embed")],
)
def test_a_compressed_stream_holds_what_the_plain_one_of_its_snapshot_holds(sent: str, plain: str) -> None:
    contents = {}
    for head, payload in records(stream(plain)):
        if head[0] == RecordType.WRITE:
            number, _, offset = struct.unpack_from("<3Q", head, 8)
            contents[number, offset] = payload
    compared = 0
    for head, payload in records(stream(sent)):
        if head[0] == RecordType.WRITE and head[50]:
            number, _, offset, size = struct.unpack_from("<4Q", head, 8)
            assert decompress(head[50], payload, size) == contents[number, offset]
            compared += 1
        elif head[0] == RecordType.WRITE_EMBEDDED:
            number, offset = struct.unpack_from("<2Q", head, 8)
            size, stored = struct.unpack_from("<2I", head, 48)
            assert decompress(head[40], payload[:stored], size) == contents[number, offset]
            compared += 1
    assert compared >= 15


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", SMALL, ids=label)
def test_a_block_is_refused_until_its_last_byte_is_there_and_padding_is_ignored(block: Block) -> None:
    lengths = range(len(block.data) + 1)
    whole = [outcome(block.compression, block.data[:length], block.size) for length in lengths]
    needed = whole.index(block.content)
    assert whole == [None] * needed + [block.content] * (len(lengths) - needed)
    if block.embedded:
        assert needed == len(block.data)
    else:
        assert needed > len(block.data) - SECTOR
    assert outcome(block.compression, block.data[:needed] + b"\xff" * 600, block.size) == block.content


@pytest.mark.parametrize("block", [block for block in SMALL if block.compression in HEADERS], ids=label)
def test_a_block_that_is_cut_and_whose_header_says_so_is_refused(block: Block) -> None:
    header = HEADERS[Compression(block.compression)]
    (length,) = struct.unpack_from(">I", block.data)
    for cut in range(length):
        data = cut.to_bytes(4, "big") + block.data[4 : header + cut]
        assert outcome(block.compression, data, block.size) is None
    more = (length + 1).to_bytes(4, "big") + block.data[4 : header + length] + b"\0"
    assert outcome(block.compression, more, block.size) is None


@pytest.mark.parametrize("block", SMALL, ids=label)
def test_a_changed_byte_is_an_error_or_other_bytes_of_the_same_number(block: Block) -> None:
    refused = 0
    for at in range(len(block.data)):
        for change in (0x01, 0x80, 0xFF):
            data = bytearray(block.data)
            data[at] ^= change
            content = outcome(block.compression, bytes(data), block.size)
            refused += content is None
    assert refused


@pytest.mark.parametrize("block", SMALL, ids=label)
@pytest.mark.parametrize("more", [-512, -1, 1, 4096])
def test_another_size_than_the_block_has_is_refused(block: Block, more: int) -> None:
    size = block.size + more
    if block.compression in {ZLE, LZJB}:  # they do not say where they end, and padding continues them
        expected = NAIVE[Compression(block.compression)](block.data, size) if size > 0 else None
    else:
        expected = None
    assert outcome(block.compression, block.data, size) == expected


@given(
    st.sampled_from(BLOCKS),
    st.lists(st.tuples(st.integers(0, 8192), st.integers(0, 20), st.binary(max_size=20)), min_size=1, max_size=4),
)
def test_bytes_that_are_replaced_lost_or_put_in_end_in_an_error_or_bytes_of_the_right_number(
    block: Block, edits: list[tuple[int, int, bytes]]
) -> None:
    data = bytearray(block.data)
    for at, lost, new in edits:
        at %= len(data) + 1  # noqa: PLW2901 - into the block, whatever its length
        data[at : at + lost] = new
    content = outcome(block.compression, bytes(data), block.size)
    if block.compression in NAIVE:
        assert content == NAIVE[Compression(block.compression)](bytes(data), block.size)


# --- beside decoders that copy one byte after another ----------------------------------------------------------------


def naive_lz4(data: bytes, size: int) -> bytes | None:
    """As the description of the LZ4 block format has it, step by step."""
    if len(data) < 4 or int.from_bytes(data[:4], "big") > len(data) - 4:
        return None
    left = list(reversed(data[4 : 4 + int.from_bytes(data[:4], "big")]))
    out: list[int] = []

    def length(nibble: int) -> int:
        total, more = nibble, 255 if nibble == 15 else 0
        while more == 255:
            more = left.pop()
            total += more
        return total

    try:
        while True:
            token = left.pop()
            for _ in range(length(token >> 4)):
                out.append(left.pop())
                if len(out) > size:
                    return None
            if not left:
                return bytes(out) if len(out) == size else None
            offset = left.pop() + 256 * left.pop()
            matched = length(token & 15) + 4
            if not 1 <= offset <= len(out) or len(out) + matched > size:
                return None
            for _ in range(matched):
                out.append(out[-offset])
    except IndexError:
        return None


def naive_lzjb(data: bytes, size: int) -> bytes | None:
    """As module/zfs/lzjb.c, which would cut a match at the block's end: its encoder makes none."""
    left = list(reversed(data))
    out: list[int] = []
    flags: list[int] = []
    try:
        while len(out) < size:
            if not flags:
                flags = [int(bit) for bit in f"{left.pop():08b}"]
            if not flags.pop():
                out.append(left.pop())
                continue
            first, second = left.pop(), left.pop()
            offset = (first * 256 + second) % 1024
            if not 1 <= offset <= len(out):
                return None
            for _ in range(first // 4 + 3):
                out.append(out[-offset])
    except IndexError:
        return None
    return bytes(out) if len(out) == size and 1 not in flags else None


def naive_zle(data: bytes, size: int) -> bytes | None:
    """As module/zfs/zle.c."""
    left = list(reversed(data))
    out: list[int] = []
    try:
        while len(out) < size:
            count = left.pop() + 1
            out += [left.pop() for _ in range(count)] if count <= 64 else [0] * (count - 64)
    except IndexError:
        return None
    return bytes(out) if len(out) == size else None


NAIVE: Final[dict[Compression, Callable[[bytes, int], bytes | None]]] = {
    LZ4: naive_lz4,
    LZJB: naive_lzjb,
    ZLE: naive_zle,
}


def lz4_length(length: int) -> bytes:
    """The bytes that continue a length of 15 or more."""
    return b"" if length < 15 else b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


def lz4_block(sequences: list[tuple[bytes, int, int]], last: bytes) -> tuple[bytes, int]:
    """An LZ4 block of literals, offset and length of matches, and the size of its contents. An offset is taken into the
    bytes before it, or right beyond their ends.
    """
    block, size = b"", 0
    for literals, offset, match in sequences:
        size += len(literals)
        short = match - 4
        block += bytes([min(len(literals), 15) << 4 | min(short, 15)]) + lz4_length(len(literals)) + literals
        block += (offset % (size + 2)).to_bytes(2, "little") + lz4_length(short)
        size += match
    block += bytes([min(len(last), 15) << 4]) + lz4_length(len(last)) + last
    return lz4(block), size + len(last)


LITERALS: Final = st.binary(max_size=20) | st.binary(min_size=250, max_size=300)
SEQUENCES: Final = st.lists(
    st.tuples(LITERALS, st.integers(1, 20) | st.integers(0, 3000), st.integers(4, 30) | st.integers(200, 700)),
    max_size=6,
)


@given(SEQUENCES, LITERALS, st.sampled_from([0, 0, 0, -1, 1]))
def test_lz4_is_as_a_decoder_that_copies_bytes(sequences: list[tuple[bytes, int, int]], last: bytes, more: int) -> None:
    data, size = lz4_block(sequences, last)
    size = max(1, size + more)
    assert outcome(LZ4, data, size) == naive_lz4(data, size)


def lzjb_block(items: list[int | tuple[int, int]]) -> tuple[bytes, int]:
    """An lzjb block of bytes, and of length and offset of matches, and the size of its contents. Offsets as above."""
    block, size = b"", 0
    for first in range(0, len(items), 8):
        flags, body = 0, b""
        for bit, item in enumerate(items[first : first + 8]):
            if isinstance(item, int):
                body += bytes([item])
                size += 1
            else:
                length, offset = item
                flags |= 1 << bit
                body += ((length - 3) << 10 | offset % min(size + 2, 1024)).to_bytes(2, "big")
                size += length
        block += bytes([flags]) + body
    return block, size


BYTES: Final = st.integers(0, 255)
MATCHES: Final = st.tuples(st.integers(3, 66), st.integers(1, 20) | st.integers(0, 1023))


@given(st.lists(BYTES | BYTES | BYTES | MATCHES, min_size=1, max_size=80), st.sampled_from([0, 0, 0, -1, 1]))
def test_lzjb_is_as_a_decoder_that_copies_bytes(items: list[int | tuple[int, int]], more: int) -> None:
    data, size = lzjb_block(items)
    size = max(1, size + more)
    assert outcome(LZJB, data, size) == naive_lzjb(data, size)


@given(st.binary(max_size=200), st.integers(1, 2000))
def test_zle_is_as_a_decoder_that_copies_bytes(data: bytes, size: int) -> None:
    at = whole = 0
    while at < len(data):
        whole += data[at] + 1 if data[at] < 64 else data[at] - 63
        at += data[at] + 2 if data[at] < 64 else 1
    for each in (size, max(1, whole), whole + 1):
        assert outcome(ZLE, data, each) == naive_zle(data, each)


@given(st.sampled_from(CODECS), st.binary(max_size=300), st.integers(1, 5000))
def test_any_bytes_end_in_an_error_or_bytes_of_the_right_number(codec: Compression, data: bytes, size: int) -> None:
    for each in (data, lz4(data), zstd(data), zlib.compress(data)):
        outcome(codec, each, size)


# --- malice --------------------------------------------------------------------------------------------------------


def frame(size: int, *, claimed: int | None = None, window: int = 0x70, last: bool = True) -> bytes:
    """A zstd frame without magic, of one raw block. `window`: its window descriptor, as in RFC 8878; here of 16 MiB."""
    head = bytes([0, window]) if claimed is None else b"\xe0" + claimed.to_bytes(8, "little")
    return head + (size << 3 | last).to_bytes(3, "little") + b"z" * size


HOSTILE: Final[list[tuple[str, Compression, bytes, str]]] = [
    ("nothing", LZ4, b"", "fewer than its header"),
    ("part of a header", LZ4, b"\0\0\0", "fewer than its header"),
    ("an empty block", LZ4, lz4(b""), "cut off"),
    ("a length beyond the data", LZ4, b"\0\0\0\x09" + b"\x40aaaa\0\0\0", "its header says 9 bytes, and 8 are there"),
    ("the greatest length", LZ4, b"\xff" * 4 + b"\x40aaaa", "its header says 4294967295 bytes"),
    ("offset 0", LZ4, lz4(b"\x40aaaa\0\0\x00"), "beyond its ends"),
    ("an offset before the start", LZ4, lz4(b"\x40aaaa\x05\0\x00"), "beyond its ends"),
    ("a match first", LZ4, lz4(b"\x00\x01\0\x00"), "beyond its ends"),
    ("a match beyond the end", LZ4, lz4(b"\x1fa\x01\0" + b"\xff" * 20 + b"\0\x00"), "beyond its ends"),
    ("endless 255 of a match", LZ4, lz4(b"\x1fa\x01\0" + b"\xff" * (1 << 20)), "beyond its ends"),
    ("endless 255 of literals", LZ4, lz4(b"\xf0" + b"\xff" * (1 << 20)), "literals go beyond its end"),
    ("255 up to the end", LZ4, lz4(b"\xf0" + b"\xff" * 3), "cut off"),
    ("half an offset", LZ4, lz4(b"\x40aaaa\x01"), "cut off"),
    (
        "more literals than the block has",
        LZ4,
        lz4(b"\xf0\xff\xff\xff\xff\0" + b"a" * 5000),
        "literals go beyond its end",
    ),
    ("fewer bytes", LZ4, lz4(b"\x40aaaa"), "decodes to 4 bytes: its record says 1000"),
    ("nothing", LZJB, b"", "cut off"),
    ("offset 0", LZJB, b"\x02a\0\0", "beyond its ends"),
    ("an offset before the start", LZJB, b"\x02a\0\x02", "beyond its ends"),
    ("a match first", LZJB, b"\x01\0\x01", "beyond its ends"),
    ("half a match", LZJB, b"\x02a\0", "cut off"),
    ("part of a group", LZJB, b"\0abc", "cut off"),
    ("a match beyond the end", LZJB, b"\xfea" + b"\xfc\x01" * 7 + (b"\xff" + b"\xfc\x01" * 8) * 2, "its ends"),
    ("nothing", ZLE, b"", "cut off"),
    ("a run that is cut", ZLE, b"\x3fabc", "cut off"),
    ("a run that is cut beyond the end", ZLE, (b"\x3f" + b"a" * 64) * 15 + b"\x3f" + b"a" * 40, "cut off"),
    ("zeroes beyond the end", ZLE, b"\xff" * 100, "decodes to 1152 bytes"),
    ("bytes beyond the end", ZLE, (b"\x3f" + b"a" * 64) * 16, "decodes to 1024 bytes"),
    ("nothing", GZIP, b"", "cut off"),
    ("more bytes", GZIP, zlib.compress(bytes(1001)), "decodes to 1001 bytes"),
    ("a thousand times more", GZIP, zlib.compress(bytes(1 << 20)), "cut off, or too long"),
    ("fewer bytes", GZIP, zlib.compress(bytes(999)), "decodes to 999 bytes"),
    ("a wrong checksum", GZIP, zlib.compress(bytes(1000))[:-1] + b"\0", "incorrect data check"),
    ("a dictionary", GZIP, b"\x78\xbb\0\0\0\0", "not valid gzip"),
    ("no zlib stream", GZIP, b"\x1f\x8b\x08\0", "incorrect header check"),
    ("nothing", ZSTD, b"", "fewer than its header"),
    (
        "a length beyond the data",
        ZSTD,
        (99).to_bytes(4, "big") + bytes(20),
        "its header says 99 bytes, and 16 are there",
    ),
    ("an empty frame", ZSTD, zstd(b""), "not valid zstd"),
    ("2^40 bytes claimed", ZSTD, zstd(frame(1000, claimed=1 << 40)), "its frame says 1099511627776 bytes"),
    ("one more claimed", ZSTD, zstd(frame(1000, claimed=1001)), "its frame says 1001 bytes"),
    ("none claimed", ZSTD, zstd(frame(1000, claimed=0)), "its frame says 0 bytes"),
    ("claimed, and not there", ZSTD, zstd(frame(999, claimed=1000)), "not valid zstd"),
    ("a window above 16 MiB", ZSTD, zstd(frame(1000, window=0x71)), "its window has 18874368 bytes"),
    ("the widest window", ZSTD, zstd(frame(1000, window=0xFF)), "not valid zstd"),
    ("more bytes", ZSTD, zstd(frame(1001)), "not valid zstd"),
    ("fewer bytes", ZSTD, zstd(frame(999)), "decodes to 999 bytes"),
    ("no last block", ZSTD, zstd(frame(1000, last=False)), "not valid zstd"),
    ("bytes behind the frame", ZSTD, zstd(frame(1000) + b"\0"), "unused data"),
    ("two frames", ZSTD, zstd(frame(500) + frame(500)), "decodes to 500 bytes"),
    ("a frame with magic", ZSTD, zstd(zstandard.compress(bytes(1000))), "not valid zstd"),
    ("fewer bytes", Compression.OFF, bytes(999), "decodes to 999 bytes"),
    ("more bytes", Compression.OFF, bytes(1001), "decodes to 1001 bytes"),
]


def refusal(compression: int, data: bytes, size: int) -> tuple[str, int]:
    """Return the message of the refusal, and the bytes that were allocated at most."""
    message = ""
    tracemalloc.start()
    try:
        decompress(compression, data, size)
    except BlockDamaged as error:
        message = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return message, peak


@pytest.mark.parametrize(
    ("codec", "data", "why"),
    [pytest.param(codec, data, why, id=f"{codec.name}: {what}") for what, codec, data, why in HOSTILE],
)
def test_a_block_that_nobody_compressed_is_refused_with_its_reason_and_little_memory(
    codec: Compression, data: bytes, why: str
) -> None:
    message, peak = refusal(codec, data, 1000)
    assert why in message
    assert "\n" not in message
    assert peak < len(data) + 60_000  # zlib's own window has 32 KiB


#: The largest block there can be, of zeroes, as each codec has it.
LARGEST: Final = {
    LZ4: lz4(b"\x1f\0\x01\0" + lz4_length(limits.RECORD_PAYLOAD_MAX - 1 - 4 - 5) + b"\x50" + bytes(5)),
    LZJB: bytes(18) + (b"\xff" + b"\xfc\x01" * 8) * (limits.RECORD_PAYLOAD_MAX // 528),
    ZLE: b"\xff" * (limits.RECORD_PAYLOAD_MAX // 192) + b"\x7f",
    ZSTD: zstd(b"\0\x70" + (b"\x02\0\x10" + b"\0") * 127 + b"\x03\0\x10" + b"\0"),
    GZIP: zlib.compress(bytes(limits.RECORD_PAYLOAD_MAX)),
}


def test_a_frame_that_claims_what_the_block_has_is_decoded() -> None:
    assert decompress(ZSTD, zstd(frame(1000)), 1000) == b"z" * 1000
    assert decompress(ZSTD, zstd(frame(1000, claimed=1000)), 1000) == b"z" * 1000


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [-1, 0, limits.RECORD_PAYLOAD_MAX + 1, 1 << 64])
def test_a_size_that_no_block_has_is_refused_before_anything_is_allocated(codec: Compression, size: int) -> None:
    message, peak = refusal(codec, LARGEST[codec], size)
    assert f"a block of {size} bytes" in message
    assert peak < 20_000


@pytest.mark.parametrize(
    "codec", [LZ4, ZLE, ZSTD, GZIP]
)  # lzjb: a match has 66 bytes at most, so it takes seconds here
def test_the_largest_block_takes_at_most_three_times_its_bytes(codec: Compression) -> None:
    tracemalloc.start()
    try:
        content = decompress(codec, LARGEST[codec], limits.RECORD_PAYLOAD_MAX)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert content == bytes(limits.RECORD_PAYLOAD_MAX)
    assert peak < limits.RECORD_PAYLOAD_MAX * 3.3


def test_lzjb_decodes_the_largest_block() -> None:
    assert decompress(LZJB, LARGEST[LZJB], limits.RECORD_PAYLOAD_MAX) == bytes(limits.RECORD_PAYLOAD_MAX)


@pytest.mark.parametrize("compression", [-1, *(Compression.INHERIT, Compression.ON, Compression.EMPTY), 17, 128, 255])
def test_a_compression_that_no_block_has_is_refused(compression: int) -> None:
    with pytest.raises(BlockDamaged, match=f"a block with compression {compression}: "):
        decompress(compression, bytes(1000), 1000)


def test_a_block_that_is_not_compressed_is_returned() -> None:
    assert decompress(Compression.OFF, memoryview(b"abc"), 3) == b"abc"


def test_a_damaged_block_is_a_damaged_stream() -> None:
    assert issubclass(BlockDamaged, DamagedStream)
