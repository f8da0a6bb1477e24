"""Writes a stream to stdout: all of it, or what is whole of a damaged one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fullsend_cli.output import writing_output
from fullsend_protocol.format.proof import Proof
from fullsend_protocol.shared.errors import ChunkError, StreamError
from fullsend_protocol.shared.units import plural, printable
from fullsend_receiver.cli.results import complain
from fullsend_receiver.store.durable import write_all
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks
from fullsend_receiver.store.salvage import salvaged_frames
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import PurePosixPath

    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.store.api import Store


def write_whole(store: Store, file: PurePosixPath, manifest: Manifest) -> None:
    """Write a stream up to its end, or up to what is damaged. Raises: DamagedChunk, FullsendError, OSError."""
    try:
        proof = Proof(manifest)
        for chunk in checked_chunks(store, file):
            if isinstance(chunk, DamagedChunk):
                raise chunk
            proof.take(chunk.raw, chunk.place.entry.sha256)
            _write(chunk.raw)
        proof.finish()
    except (ChunkError, StreamError, DamagedChunk) as error:
        msg = f"{file}: {error}; what follows was not written"
        raise DamagedChunk(msg) from None


def write_salvage(store: Store, file: PurePosixPath, breaks: Sequence[str]) -> bool:
    """Write what is whole of a stream, and name each hole on stderr. `breaks`: the files that build on it.

    Returns: whether there was no hole. Raises: OSError.
    """
    holes = 0
    for piece in _pieces(store, file):
        if isinstance(piece, DamagedChunk):
            holes += 1
            complain(f"{file}: hole: {printable(str(piece))}")
        else:
            _write(piece)
    if holes:
        for broken in breaks:
            complain(f"{file}: breaks {broken}")
        complain(f"{file}: {plural(holes, 'hole')}; `zfs receive` refuses the stream at the first one")
    return not holes


def _pieces(store: Store, file: PurePosixPath) -> Iterator[bytes | DamagedChunk]:
    """Yield the raw bytes of what is whole, and the error of what is not."""
    begun = False
    hole: DamagedChunk | None = None
    try:
        for chunk in checked_chunks(store, file):
            begun = True
            if isinstance(chunk, DamagedChunk):
                if hole is not None:
                    yield hole
                hole = chunk
                continue
            if hole is not None:
                yield _with_objects(hole, chunk.place.entry.first_key)
                hole = None
            yield chunk.raw
        if hole is not None:
            yield hole
    except FileDamaged as error:
        yield DamagedChunk(str(error))
        if not begun:
            yield from salvaged_frames(store, file)


def _with_objects(hole: DamagedChunk, after: tuple[int, int] | None) -> DamagedChunk:
    """Return the error with the objects whose records are lost, as far as the index shows them."""
    first = hole.place.entry.first_key if hole.place else None
    if first is None or after is None:
        return hole
    return DamagedChunk(f"{hole}; it has records of the objects {first[0]} to {after[0]}", hole.place)


def _write(raw: bytes) -> None:
    with writing_output():
        write_all(sys.stdout.fileno(), raw)
