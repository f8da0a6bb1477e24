"""The layout of a stored `.zst` file (docs/format.md): frames of chunks, our index, the seek table.

    chunk frames            one zstd frame each
    index                   skippable frame 0x184D2A5D: what fullsend knows of each chunk
    seek table              skippable frame 0x184D2A5E: the zstd seekable format, for any reader of it

All numbers in the two tables are little-endian, as everywhere in zstd. The seek table has an entry for each chunk and
one for the index (raw size 0), so that the sum of its entries leads from the file's start to the seek table. Source:
facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import FullsendError

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

#: A skippable frame has a 32-bit size. Of chunks of CHUNK_MIN or more these are a stream of at least 256 TiB.
CHUNKS_MAX: Final = ((1 << 32) - 1 - _INDEX_HEAD.size - _CRC.size) // _ENTRY.size


class Blob(Protocol):
    """The bytes of a stored `.zst`, for reading. Thread-safe."""

    @property
    def size(self) -> int:
        """Its size in bytes. Raises: OSError."""

    def read(self, start: int, size: int) -> bytes:
        """Return its bytes from `start` on, at most `size`; fewer at its end. Raises: OSError."""

    def forget(self, start: int, size: int) -> None:
        """Drop the copy of these bytes that this host has in memory, so that the next `read` gets them from the disk.
        Whole pages only, in the range from `start` to `start + size`; nothing fails if it cannot be done.
        """

    def close(self) -> None:
        """Close it."""


class FileDamaged(FullsendError):  # noqa: N818 - reads as a noun, like the stream errors
    """A stored file's tables cannot be read."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """The index entry of one chunk.

    `raw_length`, `stored_length`: bytes before and after compression. `ends_at_resume_point`: the chunk ends with a
    resumable record. `first_key`: (object, offset) of the first resumable record whose header ends in the chunk, None
    if there is none. `starts_segment`: the running hash starts with this chunk. `sha256`: that running hash, through
    this chunk.
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
    """The place of a chunk: its number, the raw offset at which it begins, and its frame in the file."""

    number: int
    raw_offset: int
    file_offset: int
    entry: IndexEntry


def tables(entries: Iterable[IndexEntry], count: int) -> Iterator[bytes]:
    """Yield, piece by piece, what follows the chunk frames: index, then seek table. `entries` has `count` entries. They
    are read once, and only their sizes are kept (8 bytes each).
    """
    head = _index_head(count)
    crc = zlib.crc32(head[_SKIPPABLE.size :])
    yield head
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
    if len(seek) != count * _SEEK_ENTRY.size:
        msg = f"{len(seek) // _SEEK_ENTRY.size} index entries for {count} chunks"
        raise ValueError(msg)
    yield _seek_head(count)
    yield bytes(seek)
    yield _seek_end(count)


def tables_size(count: int) -> int:
    """Return the size of the tables for `count` chunks, in bytes."""
    return _index_size(count) + _SKIPPABLE.size + (count + 1) * _SEEK_ENTRY.size + _SEEK_FOOT.size


def file_size(chunks: Sequence[int]) -> int:
    """Return the size of a stored file with chunks of so many stored bytes each, in bytes."""
    return sum(chunks) + tables_size(len(chunks))


def reads(chunks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield offset and size of all that is read of a stored file with chunks of so many stored bytes each: what
    `places` reads, and each chunk at its turn.
    """
    count, index_at, size = len(chunks), sum(chunks), file_size(chunks)
    seek_at = index_at + _index_size(count)
    yield size - _SEEK_FOOT.size, _SEEK_FOOT.size
    yield index_at, len(_index_head(count))
    yield seek_at, _SKIPPABLE.size
    seek_at += _SKIPPABLE.size
    entries_at = index_at + len(_index_head(count))
    pages = [(first, min(_PAGE, count - first)) for first in range(0, count, _PAGE)]
    for first, entries in pages:
        yield entries_at + first * _ENTRY.size, entries * _ENTRY.size
        yield seek_at + first * _SEEK_ENTRY.size, entries * _SEEK_ENTRY.size
    yield index_at + _index_size(count) - _CRC.size, _CRC.size
    yield seek_at + count * _SEEK_ENTRY.size, len(_seek_end(count))
    at = 0
    for first, entries in pages:
        yield entries_at + first * _ENTRY.size, entries * _ENTRY.size
        for chunk in chunks[first : first + entries]:
            yield at, chunk
            at += chunk


def places(blob: Blob) -> Iterator[Place]:
    """Yield the chunks of a stored file, from its index, a page at a time.

    Both tables are compared with each other, the CRC and the file's size before the first chunk is yielded. Raises:
    FileDamaged if they are missing, cut, or have a wrong bit; OSError.
    """
    count, index_at = _find_tables(blob)
    _check_tables(blob, count, index_at)
    raw_offset = file_offset = number = 0
    for page in _pages(blob, count, index_at):
        for entry in _entries(page):
            yield Place(number, raw_offset, file_offset, entry)
            number += 1
            raw_offset += entry.raw_length
            file_offset += entry.stored_length


def _find_tables(blob: Blob) -> tuple[int, int]:
    """Return the number of chunks, and the offset at which the index begins."""
    size = blob.size
    foot = blob.read(max(0, size - _SEEK_FOOT.size), _SEEK_FOOT.size)
    if len(foot) < _SEEK_FOOT.size or _SEEK_FOOT.unpack(foot)[1:] != (0, _SEEKABLE_MAGIC):
        msg = "no seek table at the end: the file is cut, or was not written by fullsend"
        raise FileDamaged(msg)
    count = _SEEK_FOOT.unpack(foot)[0] - 1
    index_at = size - tables_size(count)
    if not 0 <= count <= CHUNKS_MAX or index_at < 0:
        msg = f"a seek table of {count} chunks in a file of {size} bytes"
        raise FileDamaged(msg)
    return count, index_at


def _check_tables(blob: Blob, count: int, index_at: int) -> None:
    head = _index_head(count)
    if blob.read(index_at, len(head)) != head:
        msg = "no index where the seek table says it is"
        raise FileDamaged(msg)
    seek_at = index_at + _index_size(count)
    if blob.read(seek_at, _SKIPPABLE.size) != _seek_head(count):
        msg = "no seek table behind the index"
        raise FileDamaged(msg)
    seek_at += _SKIPPABLE.size
    crc = zlib.crc32(head[_SKIPPABLE.size :])
    number = frames = 0
    for page in _pages(blob, count, index_at):
        crc = zlib.crc32(page, crc)
        seek = bytearray()
        for entry in _entries(page):
            if entry.raw_length > limits.CHUNK_MAX or entry.stored_length > limits.CHUNK_FRAME_MAX:
                msg = f"the index says that chunk {number} has {entry.raw_length} raw bytes"
                raise FileDamaged(msg)
            seek += _SEEK_ENTRY.pack(entry.stored_length, entry.raw_length)
            frames += entry.stored_length
            number += 1
        if blob.read(seek_at, len(seek)) != seek:
            msg = f"index and seek table differ on the chunks before {number}"
            raise FileDamaged(msg)
        seek_at += len(seek)
    if blob.read(index_at + _index_size(count) - _CRC.size, _CRC.size) != _CRC.pack(crc):
        msg = "the index has a wrong CRC"
        raise FileDamaged(msg)
    if frames != index_at:
        msg = f"the index counts {frames} bytes of chunks, and stands behind {index_at}"
        raise FileDamaged(msg)
    end = _seek_end(count)
    if blob.read(seek_at, len(end)) != end:
        msg = "the seek table does not end as it must"
        raise FileDamaged(msg)


def _pages(blob: Blob, count: int, index_at: int) -> Iterator[bytes]:
    """Yield the entries of the index, packed, a page at a time."""
    at = index_at + _SKIPPABLE.size + _INDEX_HEAD.size
    end = at + count * _ENTRY.size
    while at < end:
        page = blob.read(at, min(_PAGE * _ENTRY.size, end - at))
        if not page or len(page) % _ENTRY.size:
            msg = "the index ends early"
            raise FileDamaged(msg)
        yield page
        at += len(page)


def _entries(page: bytes) -> Iterator[IndexEntry]:
    for begin in range(0, len(page), _ENTRY.size):
        yield IndexEntry.unpack(page[begin : begin + _ENTRY.size])


def _index_size(count: int) -> int:
    return _SKIPPABLE.size + _INDEX_HEAD.size + count * _ENTRY.size + _CRC.size


def _index_head(count: int) -> bytes:
    """Return the bytes before the entries of the index."""
    head = _INDEX_HEAD.pack(_INDEX_NAME, _INDEX_VERSION, _ENTRY.size, count)
    return _SKIPPABLE.pack(_INDEX_MAGIC, _index_size(count) - _SKIPPABLE.size) + head


def _seek_head(count: int) -> bytes:
    """Return the bytes before the entries of the seek table."""
    return _SKIPPABLE.pack(_SEEK_MAGIC, (count + 1) * _SEEK_ENTRY.size + _SEEK_FOOT.size)


def _seek_end(count: int) -> bytes:
    """Return the seek table's last entry, which is the index, and its footer."""
    return _SEEK_ENTRY.pack(_index_size(count), 0) + _SEEK_FOOT.pack(count + 1, 0, _SEEKABLE_MAGIC)
