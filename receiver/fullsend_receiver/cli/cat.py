"""`fullsendd cat`: one stream on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fullsend_cli.output import writing_output
from fullsend_protocol.shared.errors import ChunkError, StreamError, UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import PurePosixPath

    from fullsend_cli.running import Commands
    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.store.local import LocalStore
    from fullsend_receiver.store.playback import DamagedChunk


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("cat", help="write one stored stream to stdout, decoded and checked")
    sub.add_argument("stream", metavar="SENDER/STREAM")
    sub.add_argument(
        "--skip-damaged",
        action="store_true",
        help="write what is whole of a damaged stream, and name each hole; also of SENDER/aside:NAME (list --damaged)",
    )
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the stream. Returns: the exit code, FAILED if something was skipped. Raises: FullsendError,
    BrokenPipeError.
    """
    from fullsend_receiver.cli.selection import find, find_aside

    _settings, store = open_store(options)
    breaks: list[str] = []
    aside = find_aside(store, options.stream)
    if aside is not None:
        file, manifest = aside
    else:
        catalogue, stored = find(store, options.stream)
        file, manifest = stored.file, stored.manifest
        breaks = [str(each.file) for each in catalogue.dependents(stored)]
    if sys.stdout is None or sys.stdout.isatty():
        msg = "a send stream is binary: pipe it into `zfs receive`, or into a file"
        raise UsageError(msg)
    if options.skip_damaged:
        return _salvage(store, file, breaks)
    _write_all(store, file, manifest)
    return Exit.OK


def _write_all(store: LocalStore, file: PurePosixPath, manifest: Manifest) -> None:
    """Write a stream up to its end, or up to what is damaged. Raises: DamagedChunk, OSError."""
    from fullsend_protocol.format.proof import Proof
    from fullsend_receiver.store.playback import DamagedChunk, checked_chunks

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


def _salvage(store: LocalStore, file: PurePosixPath, breaks: list[str]) -> int:
    """Write what is whole, and name each hole. Returns: the exit code."""
    from fullsend_protocol.shared.units import plural, printable
    from fullsend_receiver.cli.results import complain
    from fullsend_receiver.store.playback import DamagedChunk

    holes = 0
    for piece in _whole_pieces(store, file):
        if isinstance(piece, DamagedChunk):
            holes += 1
            complain(f"{file}: hole: {printable(str(piece))}")
        else:
            _write(piece)
    if not holes:
        return Exit.OK
    for broken in breaks:
        complain(f"{file}: breaks {broken}")
    complain(f"{file}: {plural(holes, 'hole')}; `zfs receive` refuses the stream at the first one")
    return Exit.FAILED


def _whole_pieces(store: LocalStore, file: PurePosixPath) -> Iterator[bytes | DamagedChunk]:
    """Yield the raw bytes of what is whole, and the error of what is not."""
    from fullsend_receiver.store.playback import DamagedChunk, checked_chunks
    from fullsend_receiver.store.salvage import salvaged_frames
    from fullsend_receiver.store.seekable import FileDamaged

    begun = False
    try:
        hole: DamagedChunk | None = None
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
    from fullsend_receiver.store.playback import DamagedChunk

    first = hole.place.entry.first_key if hole.place else None
    if first is None or after is None:
        return hole
    return DamagedChunk(f"{hole}; it has records of the objects {first[0]} to {after[0]}", hole.place)


def _write(raw: bytes) -> None:
    from fullsend_receiver.store.durable import write_all

    with writing_output():
        write_all(sys.stdout.fileno(), raw)
