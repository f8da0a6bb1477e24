"""Passes on what is whole of a damaged stream, and names each hole.

A chunk is whole if it decodes, and has the running SHA-256 that was proven when it arrived. Behind a hole that hash
cannot be computed before the next segment; until then only the checksum of its zstd frame proves a chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.stream.chunks import SegmentCheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_protocol.stream.checksums import Piece
    from fullsend_protocol.wire.connection import Chunk


class Salvage:
    """The chunks of one stream, in order. `holes`: the number of holes so far; `unproven`: raw bytes behind one that
    only a checksum proves.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        """`told`: is called with each hole, in words."""
        self.holes = self.unproven = 0
        self._told = told
        self._number = 0
        self._segment = SegmentCheck()

    def take(self, chunk: Chunk, raw: bytes | None, why: str = "") -> list[Piece]:
        """Take the next chunk. `raw`: its bytes, None: it does not decode, for the reason `why`. Returns: the pieces to
        pass on.
        """
        number, self._number = self._number, self._number + 1
        if chunk.starts_segment:
            self._segment.begin(chunk.raw_offset)
        if raw is not None and not self._segment.fits(raw, chunk.sha256):
            raw, why = None, "its SHA-256 is not the proven one"
        if raw is None:
            self._segment.lose()
            self.holes += 1
            end = chunk.raw_offset + chunk.raw_length
            self._told(f"hole: chunk {number} (raw bytes {chunk.raw_offset} to {end}): {why}")
            return []
        if not self._segment.knows:
            self.unproven += len(raw)
        return [raw]
