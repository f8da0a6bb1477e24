"""Chunks: where a stream is cut, how a chunk is compressed and decoded, and the running hash of a segment.

The cut rule depends on the raw bytes alone. So every version cuts any two sends of the same stream alike, at any level.
That is what makes an interrupted transfer resumable.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final, Literal

import zstandard

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, DamagedStream
from fullsend_protocol.stream.records import Walker

#: zstd's own default; the range is that of `zstd --fast=7` to `zstd --ultra -22`.
LEVEL_DEFAULT: Final = 3
LEVEL_MIN: Final = -7
LEVEL_MAX: Final = 22
#: A level of zstd, or "light": zstd's fast strategy, which finds matches with one table and in one step, with a table
#: four times that of level 1, and the window of level 3. Measured beside level 3: 1.45 to 1.6 times as fast, for 1 to 8
#: % more bytes (docs/performance.md). Level 1 takes 6 to 14 % more bytes.
Level = int | Literal["light"]
LIGHT: Final = "light"


class Cutter:
    """Finds the ends of chunks while a walker reads the stream.

    A chunk closes after the first resumable record whose end lies CHUNK_MIN or more from the chunk's start; else at
    exactly CHUNK_MAX, wherever in a record that falls; else at the stream's end (there the caller closes it).
    """

    def __init__(self, walker: Walker) -> None:
        """Start a chunk at the walker's position."""
        self.walker = walker
        self.start = walker.offset

    @property
    def size(self) -> int:
        """Raw bytes in the open chunk."""
        return self.walker.offset - self.start

    @property
    def closed(self) -> bool:
        """Whether the chunk ends at the walker's position, by the rule."""
        size = self.size
        return size == limits.CHUNK_MAX or (size >= limits.CHUNK_MIN and self.walker.at_resume_point)

    def next(self) -> None:
        """Open the next chunk at the walker's position."""
        self.start = self.walker.offset
        self.walker.first_key = None

    def walk(self, data: bytes | bytearray | memoryview, start: int, stop: int) -> int:
        """Walk over data[start:stop], at most to the end of the open chunk.

        Returns: the position reached; `closed` says whether the chunk ends there. Raises: as Walker.walk.
        """
        stop = min(stop, start + limits.CHUNK_MAX - self.size)
        return self.walker.walk(data, start, stop, self.start + limits.CHUNK_MIN)

    def walk_chunk(self, data: bytes | bytearray | memoryview) -> None:
        """Walk over one whole chunk that the peer, or an earlier run, has cut.

        Afterwards `closed` says whether the chunk ended by the rule; one that did not must be the stream's last.
        Raises: DamagedStream if the chunk continues beyond its end by the rule; as Walker.walk.
        """
        if self.walk(data, 0, len(data)) != len(data):
            msg = f"chunk at raw offset {self.start} of {len(data)} bytes, which must end at {self.walker.offset}"
            raise DamagedStream(msg)


class SegmentHash:
    """The running SHA-256 of a segment, from raw offset `start`."""

    def __init__(self, start: int) -> None:
        """Begin a segment."""
        self.start = start
        self.end = start
        self._hash = hashlib.sha256()

    def update(self, raw: bytes | bytearray | memoryview) -> bytes:
        """Add a chunk's raw bytes. Returns: the 32-byte SHA-256 of the segment through this chunk."""
        self._hash.update(raw)
        self.end += len(raw)
        return self.digest()

    def copy(self) -> SegmentHash:
        """Return an independent copy of the current state."""
        other = SegmentHash(self.start)
        other.end, other._hash = self.end, self._hash.copy()
        return other

    def digest(self) -> bytes:
        """Return the 32-byte SHA-256 of the segment so far."""
        return self._hash.copy().digest()


class SegmentCheck:
    """Compares the chunks of a stream, in order, with the running SHA-256 that was proven when they arrived.

    Behind a chunk that is lost the hash of its segment is not known: until the next segment nothing is compared.
    """

    def __init__(self) -> None:
        """Begin at raw offset 0, with a segment."""
        self._segment: SegmentHash | None = SegmentHash(0)

    @property
    def knows(self) -> bool:
        """Whether the last chunk was compared, and fits."""
        return self._segment is not None

    def begin(self, start: int) -> None:
        """The next chunk starts a segment, at raw offset `start`."""
        self._segment = SegmentHash(start)

    def lose(self) -> None:
        """The next chunk is lost: its raw bytes are not known."""
        self._segment = None

    def fits(self, raw: bytes | bytearray | memoryview, sha256: bytes | memoryview) -> bool:
        """Whether the next chunk is not known to be wrong. `raw`: its bytes; `sha256`: the proven one, of its segment
        through this chunk. A chunk that is wrong is lost.
        """
        if self._segment is not None and self._segment.update(raw) != sha256:
            self.lose()
            return False
        return True


def compression_parameters(level: Level) -> zstandard.ZstdCompressionParameters:
    """Return zstd's parameters for chunks. `level`: LEVEL_MIN to LEVEL_MAX, or LIGHT."""
    if level == LIGHT:
        return zstandard.ZstdCompressionParameters(
            strategy=zstandard.STRATEGY_FAST,
            window_log=21,
            hash_log=16,  # 256 KiB, which fit into the second-level cache of a core
            chain_log=16,  # not used by this strategy
            search_log=1,
            min_match=7,
            write_content_size=True,
            write_checksum=True,
            write_dict_id=False,
        )
    return zstandard.ZstdCompressionParameters(
        compression_level=level,
        window_log=min(_of_level(level).window_log, limits.WINDOW_LOG_MAX),
        write_content_size=True,
        write_checksum=True,
        write_dict_id=False,
    )


@functools.cache
def compression_memory(level: Level) -> int:
    """Return the bytes that zstd takes for one thread that compresses chunks. It is asked for each chunk."""
    parameters = compression_parameters(level) if level == LIGHT else _of_level(level)
    return int(parameters.estimated_compression_context_size())


def _of_level(level: int) -> zstandard.ZstdCompressionParameters:
    """Return all parameters that zstd chooses for a chunk at this level."""
    return zstandard.ZstdCompressionParameters.from_level(level, source_size=limits.CHUNK_MIN)


class Compressor:
    """Makes the zstd frames of chunks. For one thread at a time; frames do not depend on each other."""

    def __init__(self, level: Level) -> None:
        """`level`: LEVEL_MIN to LEVEL_MAX, or LIGHT."""
        self._compressor = zstandard.ZstdCompressor(compression_params=compression_parameters(level))

    def compress(self, raw: bytes | bytearray | memoryview) -> bytes:
        """Return one frame with content size and checksum. `raw`: a chunk. Releases the GIL meanwhile."""
        frame = self._compressor.compress(raw)
        # The frame lies at the start of a block that had room for the worst case. A frame that is kept gets a block of
        # its own size. Otherwise free memory lies in pieces between frames, each too small for the next block.
        return bytes(memoryview(frame))


class Decompressor:
    """Decodes frames of chunks, and checks that they are as the protocol requires. For one thread at a time."""

    def __init__(self) -> None:
        """Allocate the context for all frames."""
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=limits.CHUNK_MAX)

    def decompress(self, frame: bytes | memoryview, raw_length: int) -> bytes:
        """Return the raw bytes of a chunk. Allocates `raw_length` bytes, no more, whatever the frame claims.

        Raises: ChunkError if it is not exactly one frame with content size `raw_length` and a correct checksum.
        """
        try:
            parameters = zstandard.get_frame_parameters(frame)
        except zstandard.ZstdError as error:
            msg = f"not a zstd frame: {error}"
            raise ChunkError(msg) from None
        if parameters.content_size != raw_length:
            msg = f"a zstd frame of {parameters.content_size} raw bytes: {raw_length} were announced"
            raise ChunkError(msg)
        if parameters.window_size > limits.CHUNK_MAX:
            # It would decode here, in one step; stock `zstd -d` refuses to use that much memory.
            msg = f"a zstd frame with a window of {parameters.window_size} bytes: {limits.CHUNK_MAX} are allowed"
            raise ChunkError(msg)
        if not parameters.has_checksum or parameters.dict_id:
            msg = "a zstd frame without checksum, or with a dictionary"
            raise ChunkError(msg)
        try:
            raw = self._decompressor.decompress(frame, max_output_size=raw_length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            msg = f"a zstd frame that does not decode: {error}"
            raise ChunkError(msg) from None
        if len(raw) != raw_length:  # pragma: no cover - zstd itself checks the content size
            msg = f"a zstd frame that decodes to {len(raw)} bytes: {raw_length} were announced"
            raise ChunkError(msg)
        return raw
