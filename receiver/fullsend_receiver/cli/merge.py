"""`fullsendd merge`: files with streams -> one stream."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from fullsend_cli.running import Commands
    from fullsend_protocol.stream.checksums import Piece
    from fullsend_receiver.maintenance.merge_inputs import MergeFile


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser(
        "merge", help="merge files with a full and increments, or increments alone, into one stream"
    )
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="raw, or compressed by zstd; in any order")
    sub.add_argument(
        "--output", type=Path, metavar="FILE.zst", help="write it there, as in a store; default: raw on stdout"
    )
    sub.add_argument("--manifest", metavar="SENDER", help="write a manifest beside it, as of a stream of SENDER")
    sub.add_argument("--level", type=int, default=3, metavar="N", help="zstd level of the output (default: 3)")
    sub.add_argument(
        "--sha256", action="store_true", help="write nothing, and print the SHA-256 of the raw stream, as of `zfs send`"
    )
    sub.add_argument(
        "--without-frees",
        action="store_true",
        help="with --sha256: leave out the FREE records that may be redundant; one FILE may be alone",
    )
    sub.add_argument("--json", action="store_true", help="one JSON object")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Merge. Returns: the exit code. Raises: UsageError, FullsendError, OSError, BrokenPipeError."""
    from fullsend_cli.output import write_line, writing_output
    from fullsend_receiver.maintenance.merge_inputs import MergeFile, in_order, proving

    _check(options)
    files = [MergeFile(path) for path in options.files]
    with proving(files):
        files = in_order(files)
        pieces = _pieces(files, alone=options.without_frees)
        if options.sha256:
            write_line(_sha256(pieces, files[-1], without_frees=options.without_frees))
        elif options.output is None:
            with writing_output():
                for piece in pieces:
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        else:
            write_line(_write(options, pieces, files))
    return Exit.OK


def _pieces(files: Sequence[MergeFile], *, alone: bool) -> Iterable[Piece]:
    """Yield the merged stream. `alone`: one file may also be alone."""
    from fullsend_protocol.stream.merge import MergeInput, merge

    if alone and len(files) == 1:
        return files[0].pieces()
    return merge([MergeInput(str(each.path), each.pieces()) for each in files])


def _sha256(pieces: Iterable[Piece], last: MergeFile, *, without_frees: bool) -> str:
    """Hash a stream: all of it, or without the FREE records that may be redundant."""
    from fullsend_protocol.stream.without_frees import HashWithoutFrees

    if without_frees:
        form = HashWithoutFrees(str(last.path))
        for piece in pieces:
            form.feed(piece)
        return form.finish()
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _write(options: argparse.Namespace, pieces: Iterable[Piece], files: Sequence[MergeFile]) -> str:
    """Write the file. Returns: the line about it."""
    from fullsend_protocol.shared.units import format_size, plural
    from fullsend_receiver.maintenance.merge_files import write_packed

    done = write_packed(options.output, pieces, level=options.level, merged=files, sender=options.manifest)
    if not options.json:
        sizes = f"{format_size(done.raw_bytes)} raw, {format_size(done.stored_bytes)} stored"
        return f"{done.path}: merged from {plural(len(files), 'stream')}, {sizes}"
    row = {
        "file": str(done.path),
        "raw_bytes": done.raw_bytes,
        "stored_bytes": done.stored_bytes,
        "sha256": done.sha256,
        "merged": [each.merged.model_dump() | {"proof": each.proof} for each in files if each.merged],
    }
    return json.dumps(row)


def _check(options: argparse.Namespace) -> None:
    """Check the options. Raises: UsageError."""
    from fullsend_protocol.stream.chunks import LEVEL_MAX, LEVEL_MIN
    from fullsend_protocol.wire.invitation import is_sender_name

    if not LEVEL_MIN <= options.level <= LEVEL_MAX:
        msg = f"--level {options.level}: it is a number from {LEVEL_MIN} to {LEVEL_MAX}"
        raise UsageError(msg)
    if options.sha256 and (options.output is not None or options.manifest is not None or options.json):
        msg = "--sha256 writes nothing: it excludes --output, --manifest and --json"
        raise UsageError(msg)
    if options.without_frees and not options.sha256:
        msg = "--without-frees belongs to --sha256: without FREE records a stream cannot be received"
        raise UsageError(msg)
    if options.sha256:
        return
    if options.output is None:
        if options.manifest is not None or options.json:
            msg = "--manifest and --json belong to --output: there is no file to describe"
            raise UsageError(msg)
        if sys.stdout is None or sys.stdout.isatty():
            msg = "a send stream is binary: pipe it into `zfs receive`, or name a file with --output"
            raise UsageError(msg)
    elif options.output.suffix != ".zst":
        msg = f"{options.output}: the output is compressed, so its name must end with .zst"
        raise UsageError(msg)
    if options.manifest is not None and not is_sender_name(options.manifest):
        msg = f"{options.manifest} is not a sender's name: small letters, digits and hyphens"
        raise UsageError(msg)
