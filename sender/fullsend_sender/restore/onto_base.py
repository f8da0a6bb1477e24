"""A stored increment on its way into the dataset that has its base: proven, and not a clone's (stream.reparent)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.proof import Proof
from fullsend_protocol.stream.reparent import Reparenter

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_protocol.stream.checksums import Piece


class OntoBase:
    """The proof of a stored stream, as proof.Proof, which passes on what `zfs receive` takes where the base is."""

    #: Where it begins, in raw bytes.
    start: Final = 0

    def __init__(self, manifest: Manifest) -> None:
        """Raises: ChunkError where the manifest proves nothing."""
        self.manifest = manifest
        self._proof = Proof(manifest)
        self._reparenter = Reparenter()

    def take(self, raw: bytes, sha256: bytes | memoryview) -> list[Piece]:
        """Take the next chunk, as Proof.take. Returns: what `zfs receive` gets."""
        return [piece for part in self._proof.take(raw, sha256) for piece in self._reparenter.feed(part)]

    def finish(self) -> list[Piece]:
        """The stream's bytes have ended, as Proof.finish. Returns: what `zfs receive` still gets."""
        return [*self._proof.finish(), *self._reparenter.finish()]
