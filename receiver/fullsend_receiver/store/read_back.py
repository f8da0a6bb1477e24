"""Reads the frames of a partial back, and compares them with the hashes that were proven when they arrived.

The SHA-256 of the whole file goes into its `.sha256`. Computed from bytes that a disk has changed meanwhile, it would
confirm the damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fullsend_protocol.shared.errors import ChunkError
from fullsend_protocol.stream.chunks import Decompressor, SegmentCheck
from fullsend_receiver.store.errors import PartialDamaged
from fullsend_receiver.store.seekable import IndexEntry


class ReadBack:
    """The chunks of one partial, in order. After any error the object is unusable."""

    def __init__(self, entries: Iterator[IndexEntry]) -> None:
        """`entries`: the index entries of all durable chunks, from the journal."""
        self._entries = entries
        self._decompressor = Decompressor()
        self._segment = SegmentCheck()
        self._number = self._raw_offset = self._offset = 0

    def next(self, read: Callable[[int, int], bytes]) -> bytes:
        """Return the frame of the next chunk, of which there is one. `read`: returns bytes of the data file, from an
        offset, up to a size.

        Raises: PartialDamaged if it is not what arrived; OSError.
        """
        entry = next(self._entries, None)
        if entry is None:
            msg = f"its journal ends at byte {self._offset} of its data file, and more was acknowledged"
            raise PartialDamaged(msg)
        frame = read(self._offset, entry.stored_length)
        if len(frame) < entry.stored_length:
            msg = f"its data file ends in chunk {self._number}, at {self._offset + len(frame)}"
            raise PartialDamaged(msg)
        try:
            raw = self._decompressor.decompress(frame, entry.raw_length)
            why = ""
        except ChunkError as error:
            raw, why = b"", str(error)
        if entry.starts_segment:
            self._segment.begin(self._raw_offset)
        if not why and not self._segment.fits(raw, entry.sha256):
            why = "its SHA-256 is not the proven one"
        if why:
            end = self._raw_offset + entry.raw_length
            msg = f"chunk {self._number} (raw bytes {self._raw_offset} to {end}) is not as it arrived: {why}"
            raise PartialDamaged(msg)
        self._number += 1
        self._raw_offset += entry.raw_length
        self._offset += entry.stored_length
        return frame

    def close(self) -> None:
        """Close the journal."""
        close = getattr(self._entries, "close", None)
        if close is not None:
            close()
