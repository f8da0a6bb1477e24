"""Decodes one compressed block, as `zfs send -c` leaves it in a WRITE record, and as a WRITE_EMBEDDED record has it.

    compression   what the payload is                                                            in OpenZFS
    lz4           4 bytes big-endian length, one LZ4 block                                       module/zfs/lz4_zfs.c
    zstd          4 bytes big-endian length, 4 of version and level, one frame without magic     module/zstd/zfs_zstd.c
    gzip-1 to -9  a zlib stream                                                                  module/zfs/gzip.c
    zle           runs of zeroes, and of other bytes                                             module/zfs/zle.c
    lzjb          groups of a byte of 8 flags, and 8 items                                       module/zfs/lzjb.c

A WRITE record's payload is padded to whole sectors, so bytes behind the compressed ones are ignored, as ZFS does. A
block that decodes is not proven: only gzip has a checksum, the weak Adler-32, and a changed bit of a genuine block was
seen to pass it. Compare the stream's own checksums.

The bytes come from outside: every length is compared with the bytes that are there, and no decoder produces more than
the block has.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Final, NoReturn

import zstandard

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import BlockDamaged


class Compression(IntEnum):
    """How a block is compressed: enum zio_compress of OpenZFS (include/sys/zio_compress.h)."""

    INHERIT = 0
    ON = 1
    OFF = 2
    LZJB = 3
    EMPTY = 4
    GZIP_1 = 5
    GZIP_2 = 6
    GZIP_3 = 7
    GZIP_4 = 8
    GZIP_5 = 9
    GZIP_6 = 10
    GZIP_7 = 11
    GZIP_8 = 12
    GZIP_9 = 13
    ZLE = 14
    LZ4 = 15
    ZSTD = 16


_LENGTH: Final = struct.Struct(">I")  # before an LZ4 block
_ZSTD_HEADER: Final = struct.Struct(">II")  # length; version and level, which decoding does not need
#: LZ4: a length of four bits that continues in the next bytes, and the shortest match.
_LZ4_LONG: Final = 15
_LZ4_MATCH_MIN: Final = 4
#: zle: a byte below this is one less than the number of bytes to copy. OpenZFS sets it in zio_compress_table.
_ZLE_LITERALS: Final = 64
#: lzjb: a match is two bytes: 6 bits of length, less the shortest, and 10 of offset.
_LZJB_MATCH_MIN: Final = 3
_LZJB_OFFSET: Final = (1 << 10) - 1
_BYTE_MAX: Final = 255


def decompress(compression: int, data: bytes | memoryview, size: int) -> bytes:
    """Return the contents of a block: exactly `size` bytes.

    `compression`: one of Compression; any other number is refused. `data`: the payload of a WRITE record, or the first
    psize bytes of that of a WRITE_EMBEDDED. `size`: the block's logical bytes, as the record says. Takes about three
    times `size` bytes of memory at most, whatever `data` claims.
    Raises: BlockDamaged.
    """
    if not 0 < size <= limits.RECORD_PAYLOAD_MAX:
        msg = f"a block of {size} bytes: ZFS has none above {limits.RECORD_PAYLOAD_MAX}, and none below 1"
        raise BlockDamaged(msg)
    if Compression.GZIP_1 <= compression <= Compression.GZIP_9:
        content = _gzip(data, size)
    elif compression == Compression.LZ4:
        content = _lz4(data, size)
    elif compression == Compression.ZSTD:
        content = _zstd(data, size)
    elif compression == Compression.LZJB:
        content = _lzjb(bytes(data), size)
    elif compression == Compression.ZLE:
        content = _zle(bytes(data), size)
    elif compression == Compression.OFF:
        content = bytes(data)
    else:
        msg = f"a block with compression {compression}: no block has it, or the stream is newer than this fullsend"
        raise BlockDamaged(msg)
    if len(content) != size:
        msg = f"a block that decodes to {len(content)} bytes: its record says {size}"
        raise BlockDamaged(msg)
    return content


def _refuse(codec: str, why: str) -> NoReturn:
    msg = f"a block that is not valid {codec}: {why}"
    raise BlockDamaged(msg) from None


def _body(codec: str, data: bytes | memoryview, header: struct.Struct) -> memoryview:
    """Return the compressed bytes behind a header whose first field is their number."""
    if len(data) < header.size:
        _refuse(codec, f"it has {len(data)} bytes, fewer than its header")
    (length, *_) = header.unpack_from(data)
    body = memoryview(data)[header.size :]
    if length > len(body):
        _refuse(codec, f"its header says {length} bytes, and {len(body)} are there")
    return body[:length]


def _gzip(data: bytes | memoryview, size: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(data, size + 1)  # one more: to see the end of a stream that fits
    except zlib.error as error:
        _refuse("gzip", str(error))
    if not decompressor.eof:
        _refuse("gzip", "it is cut off, or too long")
    return content


def _zstd(data: bytes | memoryview, size: int) -> bytes:
    frame = _body("zstd", data, _ZSTD_HEADER)
    try:
        parameters = zstandard.get_frame_parameters(frame, zstandard.FORMAT_ZSTD1_MAGICLESS)
        # The library allocates what a frame claims to hold. ZFS writes frames that do not say it.
        if parameters.content_size not in {zstandard.CONTENTSIZE_UNKNOWN, size}:
            _refuse("zstd", f"its frame says {parameters.content_size} bytes, and its record {size}")
        if parameters.window_size > limits.RECORD_PAYLOAD_MAX:
            _refuse("zstd", f"its window has {parameters.window_size} bytes, more than any block")
        decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
        return decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        _refuse("zstd", str(error))


def _lz4(data: bytes | memoryview, size: int) -> bytes:
    """Decode sequences of literals and a match, until the last, which has literals alone."""
    block = bytes(_body("lz4", data, _LENGTH))
    out = bytearray()
    at = position = 0  # position: the bytes of `out`
    end = len(block)
    try:
        while True:
            token = block[at]
            at += 1
            length = token >> 4
            if length:
                if length == _LZ4_LONG:
                    at, length = _lz4_length(block, at, length, size)
                stop = at + length
                out += block[at:stop]
                at = stop
                position += length
                if position > size:
                    _refuse("lz4", "its literals go beyond its end")
            if at == end:
                return bytes(out)
            offset = block[at] | block[at + 1] << 8
            at += 2
            length = token & _LZ4_LONG
            if length == _LZ4_LONG:
                at, length = _lz4_length(block, at, length, size)
            length += _LZ4_MATCH_MIN
            start = position - offset
            position += length
            if not offset or start < 0 or position > size:
                _refuse("lz4", "a match goes beyond its ends")
            if offset >= length:
                out += out[start : start + length]
            else:  # it overlaps itself: what is there repeats
                out += (out[start:] * (length // offset + 1))[:length]
    except IndexError:
        _refuse("lz4", "it is cut off")


def _lz4_length(block: bytes, at: int, length: int, size: int) -> tuple[int, int]:
    """Return the position behind a length that continues at `at`, and the length; one beyond `size` is not read on."""
    more = _BYTE_MAX
    while more == _BYTE_MAX and length <= size:
        more = block[at]
        at += 1
        length += more
    return at, length


def _zle(data: bytes, size: int) -> bytes:
    out = bytearray()
    at = 0
    try:
        while len(out) < size:
            count = data[at] + 1
            at += 1
            if count <= _ZLE_LITERALS:
                out += data[at : at + count]
                at += count
            else:
                out += bytes(count - _ZLE_LITERALS)
    except IndexError:
        _refuse("zle", "it is cut off")
    if at > len(data):  # in a run that would go beyond the block's end too
        _refuse("zle", "it is cut off")
    return bytes(out)


def _literals_before_matches(flags: int) -> tuple[tuple[int, ...], int]:
    """Return how many literals are before each match of a group, and how many are behind its last match."""
    runs = []
    literals = 0
    for bit in range(8):
        if flags >> bit & 1:
            runs.append(literals)
            literals = 0
        else:
            literals += 1
    return tuple(runs), literals


_LZJB_GROUPS: Final = tuple(_literals_before_matches(flags) for flags in range(256))


def _lzjb(data: bytes, size: int) -> bytes:
    """Decode groups: a byte whose bits, the lowest first, say whether an item is a match or a byte to copy.

    The last group ends where the block is full. There OpenZFS's encoder leaves the other flags at zero.
    """
    out = bytearray()
    at = position = 0  # position: the bytes of `out`, if none are missing
    try:
        while position < size:
            runs, literals = _LZJB_GROUPS[data[at]]
            at += 1
            for run in runs:
                if run:
                    out += data[at : at + run]
                    at += run
                    position += run
                length = (data[at] >> 2) + _LZJB_MATCH_MIN
                offset = (data[at] << 8 | data[at + 1]) & _LZJB_OFFSET
                at += 2
                start = position - offset
                position += length
                if not offset or start < 0 or position > size:
                    _refuse("lzjb", "a match goes beyond its ends")
                if offset >= length:
                    out += out[start : start + length]
                else:  # it overlaps itself: what is there repeats
                    out += (out[start:] * (length // offset + 1))[:length]
            if literals:
                literals = min(literals, size - position)
                out += data[at : at + literals]
                at += literals
                position += literals
    except IndexError:
        _refuse("lzjb", "it is cut off")
    return bytes(out)
