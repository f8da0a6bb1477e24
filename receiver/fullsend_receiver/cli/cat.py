"""`fullsendd cat`: one stream on stdout."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from fullsend_cli.output import writing_output
from fullsend_protocol.shared.errors import ChunkError, StreamError, UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("cat", help="write one stored stream to stdout, decoded and checked")
    sub.add_argument("stream", metavar="SENDER/STREAM")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the stream. Returns: the exit code. Raises: FullsendError, BrokenPipeError."""
    from fullsend_protocol.format.proof import Proof
    from fullsend_receiver.cli.selection import find
    from fullsend_receiver.store.durable import write_all
    from fullsend_receiver.store.playback import DamagedChunk, checked_chunks

    _settings, store = open_store(options)
    _catalogue, stored = find(store, options.stream)
    if sys.stdout is None or sys.stdout.isatty():
        msg = "a send stream is binary: pipe it into `zfs receive`, or into a file"
        raise UsageError(msg)
    hold = store.hold()
    try:
        with contextlib.suppress(OSError):  # a full disk, or one that is read-only, must not prevent reading
            hold.add(stored.file)
        proof = Proof(stored.manifest)
        for chunk in checked_chunks(store, stored.file):
            if isinstance(chunk, DamagedChunk):
                raise chunk
            proof.take(chunk.raw, chunk.place.entry.sha256)
            with writing_output():
                write_all(sys.stdout.fileno(), chunk.raw)
        proof.finish()
    except (ChunkError, StreamError, DamagedChunk) as error:
        msg = f"{stored.file}: {error}; what follows was not written"
        raise DamagedChunk(msg) from None
    finally:
        hold.close()
    return Exit.OK
