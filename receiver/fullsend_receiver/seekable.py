"""The layout of a stored `.zst` file (docs/format.md): frames of chunks, our index, the seek table.

    chunk frames            one zstd frame each
    index                   skippable frame 0x184D2A5D: what we know of each chunk
    seek table              skippable frame 0x184D2A5E: the zstd seekable format, for anybody's reader

All numbers in the two tables are little-endian, as everywhere in zstd. The seek table has an entry for each chunk
and one for the index (raw size 0), so that adding up its entries leads from the file's start to the seek table.
Source: facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fullsend_protocol import limits
from fullsend_protocol.errors import FullsendError

_SKIPPABLE: Final = struct.Struct("<II")  # magic, size of what follows
_INDEX_MAGIC: Final = 0x184D2A5D
_SEEK_MAGIC: Final = 0x184D2A5E
_SEEKABLE_MAGIC: Final = 0x8F92EAB1
_INDEX_HEAD: Final = struct.Struct("<8sIIQ")  # name, version, entry size, number of entries
_INDEX_NAME: Final = b"fullsend"
_INDEX_VERSION: Final = 1
_ENTRY: Final = struct.Struct("<IIIIQQ32s")
_CRC: Final = struct.Struct("<I")
_SEEK_ENTRY: Final = struct.Struct("<II")  # compressed size, raw size
_SEEK_FOOT: Final = struct.Struct("<IBI")  # number of entries, descriptor, magic

_ENDS_AT_RESUME_POINT: Final = 1
_HAS_KEY: Final = 2
_STARTS_SEGMENT: Final = 4

#: Entries read or written at a time: 64 KiB.
_PAGE: Final = 1024


class FileDamaged(FullsendError):  # noqa: N818 - reads as a noun, like the stream errors
    """A stored file's tables cannot be read."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the index says of one chunk.

    `raw_length`, `stored_length`: bytes before and after compression. `ends_at_resume_point`: the chunk ends with
    a resumable record. `first_key`: (object, offset) of the first resumable record whose header ends in the
    chunk, None where there is none. `starts_segment`: the running hash began anew with this chunk. `sha256`: that
    running hash, through this chunk.
    """

    raw_length: int
    stored_length: int
    ends_at_resume_point: bool
    first_key: tuple[int, int] | None
    starts_segment: bool
    sha256: bytes

    def pack(self) -> bytes:
        """Return the entry's 64 bytes."""
        flags = _ENDS_AT_RESUME_POINT * self.ends_at_resume_point | _STARTS_SEGMENT * self.starts_segment
        key = (0, 0)
        if self.first_key is not None:
            flags |= _HAS_KEY
            key = self.first_key
        return _ENTRY.pack(self.raw_length, self.stored_length, flags, 0, *key, self.sha256)

    @classmethod
    def unpack(cls, data: bytes) -> IndexEntry:
        """Read an entry from its 64 bytes."""
        raw_length, stored_length, flags, _zero, object_number, offset, sha256 = _ENTRY.unpack(data)
        key = (object_number, offset) if flags & _HAS_KEY else None
        return cls(
            raw_length, stored_length, bool(flags & _ENDS_AT_RESUME_POINT), key, bool(flags & _STARTS_SEGMENT), sha256
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is: its number, where its raw bytes begin in the stream, and its frame in the file."""

    number: int
    raw_offset: int
    file_offset: int
    entry: IndexEntry


def tables(entries: Iterable[IndexEntry], count: int) -> Iterator[bytes]:
    """Yield, piece by piece, what follows the chunk frames: index, then seek table. `entries` are `count` entries;
    they are gone over once, and only their sizes are kept (8 bytes each).
    """
    index_size = _INDEX_HEAD.size + count * _ENTRY.size + _CRC.size
    head = _INDEX_HEAD.pack(_INDEX_NAME, _INDEX_VERSION, _ENTRY.size, count)
    crc = zlib.crc32(head)
    yield _SKIPPABLE.pack(_INDEX_MAGIC, index_size) + head
    seek = bytearray()
    page = bytearray()
    for entry in entries:
        page += entry.pack()
        seek += _SEEK_ENTRY.pack(entry.stored_length, entry.raw_length)
        if len(page) >= _PAGE * _ENTRY.size:
            crc = zlib.crc32(page, crc)
            yield bytes(page)
            page.clear()
    crc = zlib.crc32(page, crc)
    yield bytes(page) + _CRC.pack(crc)
    seek += _SEEK_ENTRY.pack(_SKIPPABLE.size + index_size, 0)
    yield _SKIPPABLE.pack(_SEEK_MAGIC, len(seek) + _SEEK_FOOT.size)
    yield bytes(seek)
    yield _SEEK_FOOT.pack(count + 1, 0, _SEEKABLE_MAGIC)


def tables_size(count: int) -> int:
    """Return the bytes that `tables` takes for `count` chunks."""
    index = _SKIPPABLE.size + _INDEX_HEAD.size + count * _ENTRY.size + _CRC.size
    return index + _SKIPPABLE.size + (count + 1) * _SEEK_ENTRY.size + _SEEK_FOOT.size


def places(descriptor: int) -> Iterator[Place]:
    """Yield the chunks of a stored file, from its index, a page at a time.

    Raises: FileDamaged where the tables are missing, do not fit the file, or have a wrong CRC; the last of these
    shows only after the last entry.
    """
    size = os.fstat(descriptor).st_size
    foot = os.pread(descriptor, _SEEK_FOOT.size, max(0, size - _SEEK_FOOT.size))
    if len(foot) < _SEEK_FOOT.size or _SEEK_FOOT.unpack(foot)[1:] != (0, _SEEKABLE_MAGIC):
        msg = "no seek table at the end: the file is cut, or not one of fullsend's"
        raise FileDamaged(msg)
    count = _SEEK_FOOT.unpack(foot)[0] - 1
    index_at = size - tables_size(count)
    if count < 0 or index_at < 0:
        msg = f"a seek table of {count} chunks in a file of {size} bytes"
        raise FileDamaged(msg)
    expected = _SKIPPABLE.pack(_INDEX_MAGIC, _INDEX_HEAD.size + count * _ENTRY.size + _CRC.size)
    head = _INDEX_HEAD.pack(_INDEX_NAME, _INDEX_VERSION, _ENTRY.size, count)
    if os.pread(descriptor, len(expected) + len(head), index_at) != expected + head:
        msg = "no index where the seek table says it is"
        raise FileDamaged(msg)
    crc = zlib.crc32(head)
    at = index_at + len(expected) + len(head)
    raw_offset = file_offset = 0
    for first in range(0, count, _PAGE):
        length = min(_PAGE, count - first) * _ENTRY.size
        page = os.pread(descriptor, length, at)
        if len(page) != length:
            msg = "the index ends early"
            raise FileDamaged(msg)
        crc = zlib.crc32(page, crc)
        at += length
        for number in range(first, first + length // _ENTRY.size):
            begin = (number - first) * _ENTRY.size
            entry = IndexEntry.unpack(page[begin : begin + _ENTRY.size])
            if entry.raw_length > limits.CHUNK_MAX or entry.stored_length > limits.CHUNK_FRAME_MAX:
                msg = f"the index says that chunk {number} has {entry.raw_length} raw bytes"
                raise FileDamaged(msg)
            yield Place(number, raw_offset, file_offset, entry)
            raw_offset += entry.raw_length
            file_offset += entry.stored_length
    if os.pread(descriptor, _CRC.size, at) != _CRC.pack(crc):
        msg = "the index has a wrong CRC"
        raise FileDamaged(msg)
    if file_offset != index_at:
        msg = "the index does not cover the file"
        raise FileDamaged(msg)
