"""Reads what is whole of a stored file whose tables are not: its frames, one after another, without an index.

A frame shows its own size and has a checksum of its content. Behind a damaged frame the next one is found by its magic
number, so its raw offset is not known, and nothing but that checksum proves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import Final

import zstandard

from fullsend_protocol.shared import limits
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.playback import DamagedChunk
from fullsend_receiver.store.seekable import Blob

_MAGIC: Final = zstandard.FRAME_HEADER
#: The magic numbers of skippable frames: the tables stand behind the last chunk.
_SKIPPABLE: Final = tuple((0x184D2A50 + low).to_bytes(4, "little") for low in range(16))
#: Bytes that are decoded at a time, and in which the next frame is looked for.
_STEP: Final = 1 << 17
#: Bytes that are skipped where nothing can be read: a page, in which the kernel reads.
_PAGE: Final = 4096


def salvaged_frames(store: Store, file: PurePosixPath) -> Iterator[bytes | DamagedChunk]:
    """Yield the raw bytes of each whole frame of a file, in order; in place of bytes that are none its error.

    Raises: FileDamaged if the file is missing; OSError.
    """
    with closing(store.open(file)) as blob:
        at, raw_offset = 0, "0"
        while at < blob.size:
            if _is_of_tables(blob, at):
                return
            found = _frame(blob, at)
            if found is None:
                end = _next_frame(blob, at + 1)
                where = f"bytes {at} to {end} of the file (from raw byte {raw_offset} on)"
                yield DamagedChunk(f"{where}: not a whole frame")
                at, raw_offset = end, "?"
                continue
            raw, length = found
            yield raw
            at += length
            raw_offset = raw_offset if raw_offset == "?" else str(int(raw_offset) + len(raw))
            del raw, found


def _is_of_tables(blob: Blob, at: int) -> bool:
    """Whether a skippable frame begins there."""
    try:
        return blob.read(at, 4) in _SKIPPABLE
    except OSError:  # an unreadable sector: what follows may be whole
        return False


def _frame(blob: Blob, at: int) -> tuple[bytes, int] | None:
    """Return the raw bytes of the frame that begins there, and its length; None: there is no whole one."""
    try:
        head = zstandard.get_frame_parameters(blob.read(at, _STEP))
        fits = 0 < head.content_size <= limits.CHUNK_MAX and head.window_size <= limits.CHUNK_MAX
        if not (fits and head.has_checksum):
            return None
        decoder = zstandard.ZstdDecompressor(max_window_size=limits.CHUNK_MAX).decompressobj()
        raw = bytearray()
        end = at
        while not decoder.eof:
            data = blob.read(end, _STEP)
            raw += decoder.decompress(data)
            end += len(data)
            if not data or len(raw) > head.content_size:
                return None
    except (zstandard.ZstdError, OSError):
        return None
    if len(raw) != head.content_size:
        return None
    return bytes(raw), end - at - len(decoder.unused_data)


def _next_frame(blob: Blob, start: int) -> int:
    """Return where the next frame may begin; the end of the file: there is none."""
    at = start
    while at < blob.size:
        try:
            data = blob.read(at, _STEP)
        except OSError:
            at += _PAGE - at % _PAGE  # an unreadable sector
            continue
        places = [data.find(magic) for magic in (_MAGIC, *_SKIPPABLE)]
        found = [place for place in places if place >= 0]
        if found:
            return at + min(found)
        at += max(1, len(data) - len(_MAGIC) + 1)
    return blob.size
