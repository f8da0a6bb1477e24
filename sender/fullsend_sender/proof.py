"""Holds a stream that comes back against its manifest: every chunk before it is used, and the whole at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.chunks import SegmentHash
from fullsend_protocol.errors import ChunkError
from fullsend_protocol.facts import conclude
from fullsend_protocol.records import Walker

if TYPE_CHECKING:
    from fullsend_protocol.manifest import Manifest


class Proof:
    """The running proof of one stored stream.

    Two independent hashes stand against each chunk: what the sender of that time put beside it, and, at each
    segment's end, what the manifest says. After any error the proof is of no more use.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Raises: ChunkError where the manifest's segments do not cover its stream without gap."""
        at = 0
        for segment in manifest.segments:
            if segment.start != at or segment.end <= at:
                at = -1
                break
            at = segment.end
        if at != manifest.raw_bytes:
            raise ChunkError("the manifest's segments do not cover the stream without gap: it proves nothing")
        self._manifest = manifest
        self._remaining = list(reversed(manifest.segments))
        self._hash = SegmentHash(0)
        self._walker = Walker()

    @property
    def raw_bytes(self) -> int:
        """Raw bytes proven so far."""
        return self._hash.end

    def take(self, raw: bytes | memoryview, sha256: bytes | memoryview) -> None:
        """Take the next chunk: its raw bytes, and the hash that came with it. Raises: ChunkError, StreamError."""
        start = self._hash.end
        if not self._remaining or start + len(raw) > self._remaining[-1].end:
            raise ChunkError(f"the chunk at {start} reaches beyond its segment, or the stream")
        digest = self._hash.update(raw)
        if digest != sha256:
            raise ChunkError(f"the chunk at {start} ({len(raw)} bytes) does not have the SHA-256 that came with it")
        segment = self._remaining[-1]
        if self._hash.end == segment.end:
            if digest.hex() != segment.sha256:
                raise ChunkError(f"the bytes {segment.start} to {segment.end} do not have the manifest's SHA-256")
            self._remaining.pop()
            self._hash = SegmentHash(segment.end)
        self._walker.walk(raw, 0, len(raw), 1 << 63)

    def finish(self) -> None:
        """The stream's bytes have ended. Raises: ChunkError, StreamError where they are not what was stored."""
        if self._remaining:
            raise ChunkError(f"the stream ended after {self.raw_bytes} of {self._manifest.raw_bytes} bytes")
        self._walker.finish()
        facts = conclude(self._walker.begins)
        if str(facts.guid) != self._manifest.guid or facts.flags != self._manifest.flags:
            raise ChunkError(
                f"the bytes are those of {facts.dataset}@{facts.snapshot}, guid {facts.guid}, which is not what the"
                " manifest says"
            )
