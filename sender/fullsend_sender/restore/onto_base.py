"""Proves a stored increment, and rewrites a clone's for the dataset that has its base (stream.reparent)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.proof import Proof
from fullsend_protocol.stream.reparent import Reparenter

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_protocol.stream.checksums import Piece


class OntoBase:
    """The proof of a stored stream, as proof.Proof. It passes on what `zfs receive` accepts in the base's dataset."""

    #: The raw offset at which it begins.
    start: Final = 0

    def __init__(self, manifest: Manifest) -> None:
        """Raises: ChunkError if the manifest proves nothing."""
        self.manifest = manifest
        self._proof = Proof(manifest)
        self._reparenter = Reparenter()

    def take(self, raw: bytes, sha256: bytes | memoryview) -> list[Piece]:
        """Take the next chunk, as Proof.take. Returns: the pieces for `zfs receive`."""
        return [piece for part in self._proof.take(raw, sha256) for piece in self._reparenter.feed(part)]

    def finish(self) -> list[Piece]:
        """Note the end of the stream's bytes, as Proof.finish. Returns: the last pieces for `zfs receive`."""
        return [*self._proof.finish(), *self._reparenter.finish()]
