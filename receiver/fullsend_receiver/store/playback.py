"""Reads a stored stream, chunk by chunk."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, ErrorCode, FullsendError
from fullsend_protocol.stream.chunks import Decompressor, SegmentCheck
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.seekable import Blob, FileDamaged, Place, places


class DamagedChunk(FullsendError):  # noqa: N818 - reads as a noun
    """A chunk of a stored file is not as written; the message names it and its raw range. `place`: where it is; None:
    that is not known.
    """

    code = ErrorCode.DAMAGED

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class RawChunk:
    """A decoded and checked chunk. `raw`: its bytes."""

    place: Place
    raw: bytes


def stored_chunks(
    store: Store, file: PurePosixPath, offset: int = 0, until: int = limits.OFFSET_END
) -> Generator[Chunk, None, None]:
    """Yield a file's chunks in wire form, neither decoded nor checked: the reader does that. They begin at raw offset
    `offset`, at which a chunk must begin, and before `until`. Raises: FileDamaged, OSError.
    """
    end = 0
    with closing(store.open(file)) as blob:
        for place in places(blob):
            end = place.raw_offset + place.entry.raw_length
            if end <= offset:
                continue
            if max(place.raw_offset, offset) >= until:
                return
            if place.raw_offset < offset:
                raise FileDamaged(f"no chunk begins at raw offset {offset}")
            try:
                frame = _read(blob, place)
            except ChunkError as error:
                msg = f"{describe(place)}: {error}"
                raise FileDamaged(msg) from None
            entry = place.entry
            yield Chunk(place.raw_offset, entry.raw_length, entry.sha256, frame, entry.starts_segment)
            del frame  # here and below: never two chunks in memory
        if end < offset:
            raise FileDamaged(f"no chunk begins at raw offset {offset}")


def locate(store: Store, file: PurePosixPath, key: tuple[int, int]) -> int:
    """Return the raw offset of a chunk. The resumable records of this key (object, offset), if any, are in that chunk
    or later: it is the last one that begins with a record and whose first key is smaller, otherwise the first chunk.

    Records are in the order of their keys. A chunk that begins with the key itself does not do: OBJECT and WRITE at
    offset 0 have the same key, and the former may end the chunk before. Raises: FileDamaged, OSError.
    """
    with closing(store.open(file)) as blob:
        found = 0
        at_record = True
        for place in places(blob):
            first = place.entry.first_key
            if first is not None and first >= key:
                break
            if at_record and first is not None:
                found = place.raw_offset
            at_record = place.entry.ends_at_resume_point
        return found


def checked_chunks(store: Store, file: PurePosixPath) -> Iterator[RawChunk | DamagedChunk]:
    """Yield a file's chunks, decoded, with their running hash compared; in place of a bad one its error.

    Frames are independent, so chunks behind a bad one decode. Their running hash cannot be compared before the next
    segment; until then only their zstd checksum is checked. Raises: FileDamaged, OSError.
    """
    with closing(store.open(file)) as blob:
        yield from checked_chunks_of(blob)


def checked_chunks_of(blob: Blob) -> Iterator[RawChunk | DamagedChunk]:
    """The same of an open file, in a store or not."""
    decompressor = Decompressor()
    segment = SegmentCheck()
    for place in places(blob):
        if place.entry.starts_segment:
            segment.begin(place.raw_offset)
        try:
            raw = decompressor.decompress(_read(blob, place), place.entry.raw_length)
        except ChunkError as error:
            segment.lose()
            yield DamagedChunk(f"{describe(place)}: {error}", place)
            continue
        if not segment.fits(raw, place.entry.sha256):
            yield DamagedChunk(f"{describe(place)}: its SHA-256 is not the proven one", place)
            continue
        yield RawChunk(place, raw)
        del raw


def _read(blob: Blob, place: Place) -> bytes:
    """Return a chunk's frame. Raises: ChunkError if it cannot be read: a bad sector damages one chunk, and not the ones
    behind it.
    """
    try:
        frame = blob.read(place.file_offset, place.entry.stored_length)
    except OSError as error:
        msg = f"cannot be read: {error.strerror}"
        raise ChunkError(msg) from None
    if len(frame) != place.entry.stored_length:
        msg = "the file ends inside it"
        raise ChunkError(msg)
    return frame


def describe(place: Place) -> str:
    """Return the name of a chunk for messages: its number from 0, and its raw range."""
    return f"chunk {place.number} (raw bytes {place.raw_offset} to {place.raw_offset + place.entry.raw_length})"
