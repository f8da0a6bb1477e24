"""Compares a stream that is read back with its manifest: every chunk before it is used, and the whole at its end.

Both programs read stored streams with this module. That a stream's file is valid and has the right length proves
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import ChunkError
from fullsend_protocol.stream.chunks import SegmentHash
from fullsend_protocol.stream.facts import conclude
from fullsend_protocol.stream.records import Walker

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_protocol.stream.checksums import Piece


class Hashes:
    """Compares the chunks of a stored stream, from one of them on, with their hashes.

    Each chunk has two independent hashes: the one that its sender sent with it, and, at each segment's end, the one in
    the manifest. Both cover the segment up to there. So if the first chunk is inside a segment, nothing can be compared
    up to the next segment. After any error the object is unusable.
    """

    def __init__(self, manifest: Manifest, start: int = 0) -> None:
        """`start`: the raw offset at which the first chunk begins.

        Raises: ChunkError if the manifest's segments do not cover its stream without gap.
        """
        at = 0
        for segment in manifest.segments:
            if segment.start != at or segment.end <= at:
                at = -1
                break
            at = segment.end
        if at != manifest.raw_bytes:
            raise ChunkError("the manifest's segments do not cover the stream without gap: it proves nothing")
        self._at = start  # the raw offset reached
        self._raw_bytes = manifest.raw_bytes
        self._remaining = [segment for segment in reversed(manifest.segments) if segment.end > start]
        inside = self._remaining and self._remaining[-1].start < start
        self._hash = None if inside else SegmentHash(start)

    def take(self, raw: bytes | memoryview, sha256: bytes | memoryview) -> None:
        """Take the next chunk: its raw bytes, and the SHA-256 that came with it. Raises: ChunkError."""
        start = self._at
        self._at += len(raw)
        if not self._remaining or self._at > self._remaining[-1].end:
            raise ChunkError(f"the chunk at {start} reaches beyond its segment, or the stream")
        digest = None if self._hash is None else self._hash.update(raw)
        if digest is not None and digest != sha256:
            raise ChunkError(f"the chunk at {start} ({len(raw)} bytes) does not have the SHA-256 that came with it")
        segment = self._remaining[-1]
        if self._at == segment.end:
            if digest is not None and digest.hex() != segment.sha256:
                raise ChunkError(f"the bytes {segment.start} to {segment.end} do not have the manifest's SHA-256")
            self._remaining.pop()
            self._hash = SegmentHash(segment.end)

    def finish(self) -> None:
        """Note the end of the chunks. Raises: ChunkError if some are missing."""
        if self._remaining:
            raise ChunkError(f"the stream ended after {self._at} of {self._raw_bytes} bytes")


class Proof:
    """The running proof of one stored stream, from its start. After any error the object is unusable."""

    #: The raw offset at which it begins.
    start: Final = 0

    def __init__(self, manifest: Manifest) -> None:
        """Raises: ChunkError if the manifest proves nothing."""
        self.manifest = manifest
        self._hashes = Hashes(manifest)
        self._walker = Walker()

    def take(self, raw: bytes, sha256: bytes | memoryview) -> list[Piece]:
        """Take the next chunk: its raw bytes, and the SHA-256 that came with it. Returns: the pieces to pass on: all of
        it. Raises: ChunkError, StreamError.
        """
        self._hashes.take(raw, sha256)
        self._walker.walk(raw, 0, len(raw), 1 << 63)
        return [raw]

    def finish(self) -> list[Piece]:
        """Note the end of the stream's bytes. Returns: the pieces still to pass on: none.

        Raises: ChunkError, StreamError if they are not what was stored.
        """
        self._hashes.finish()
        self._walker.finish()
        facts = conclude(self._walker.begins)
        if str(facts.guid) != self.manifest.guid or facts.flags != self.manifest.flags:
            raise ChunkError(
                f"the bytes are those of {facts.dataset}@{facts.snapshot}, guid {facts.guid}, which is not what the"
                " manifest says"
            )
        return []
