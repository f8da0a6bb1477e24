"""`fullsendd diff`: what has changed between two stored snapshots, as `zfs diff` prints it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fullsend_cli.running import Commands
    from fullsend_receiver.files.difference import Change
    from fullsend_receiver.files.index import FileIndex

#: What `zfs diff` prints as it is: ASCII from here to there, but no backslash.
_FIRST_PLAIN, _LAST_PLAIN = 0x21, 0x7E
_KINDS = {"+": "created", "-": "removed", "M": "changed", "R": "renamed"}


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("diff", help="show which files differ between two stored snapshots, as `zfs diff` does")
    snapshots = "two stored snapshots, the older first; the second may be @SNAPSHOT alone"
    sub.add_argument("what", nargs="*", metavar="SENDER/DATASET@SNAPSHOT", help=snapshots)
    for option, which in (("--from", "older"), ("--to", "newer")):
        text = f"a file with the stream of the {which} snapshot instead of a stored one; again for each increment"
        sub.add_argument(option, dest=which, action="append", type=Path, metavar="FILE", help=text)
    sub.add_argument("-F", "--types", action="store_true", help="a column with the type: F / @ | = B C")
    sub.add_argument("-H", "--script", action="store_true", help="for programs: a tab instead of ' -> '")
    sub.add_argument("--prefix", default="", metavar="DIR", help="put this before each path, such as the mountpoint")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare. Returns: the exit code. Raises: FullsendError, OSError, BrokenPipeError."""
    from fullsend_cli.output import write_line
    from fullsend_receiver.files.difference import changes

    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(contextlib.closing(each)) for each in _indexes(options))
        prefix = os.fsencode(options.prefix.rstrip("/"))
        for each in changes(old, new):
            if options.json:
                write_line(json.dumps(facts(each, prefix)))
            else:
                write_line(line(each, prefix, types=options.types, script=options.script))
    return Exit.OK


def _indexes(options: argparse.Namespace) -> tuple[FileIndex, FileIndex]:
    from fullsend_receiver.cli.snapshot_choice import open_stored
    from fullsend_receiver.files.kept_indexes import index_of
    from fullsend_receiver.files.sources import FileSource

    what: Sequence[str] = options.what
    if options.older and options.newer and not what:
        old, new = (FileSource.of(each) for each in (options.older, options.newer))
        return index_of(old, None), index_of(new, None)
    if options.older or options.newer or len(what) != 2:  # noqa: PLR2004 - two snapshots
        msg = "name two stored snapshots, SENDER/DATASET@SNAPSHOT, or files with --from and --to"
        raise UsageError(msg)
    first, second = what
    if second.startswith("@"):
        second = first.partition("@")[0] + second
    return open_stored(options, first)[1], open_stored(options, second)[1]


def line(change: Change, prefix: bytes, *, types: bool, script: bool) -> str:
    """Return a change as `zfs diff` prints it, which is safe for a terminal. `types`: -F, `script`: -H."""
    from fullsend_receiver.files.object_paths import letter

    parts = [change.kind, *([letter(change.node.mode)] * types), _escaped(prefix + change.path)]
    if change.new_path is not None:
        new = _escaped(prefix + change.new_path)
        if script:
            parts.append(new)
        else:
            parts[-1] += f" -> {new}"
    if change.links:
        parts.append(f"({change.links:+d})")
    return "\t".join(parts)


def _escaped(name: bytes) -> str:
    return "".join(
        chr(byte) if _FIRST_PLAIN <= byte <= _LAST_PLAIN and byte != ord("\\") else f"\\{byte:04o}" for byte in name
    )


def facts(change: Change, prefix: bytes) -> dict[str, object]:
    """Return a change for JSON. `path` is null for an object that waits for its deletion, and has no name."""
    from fullsend_receiver.files.difference import DELETED
    from fullsend_receiver.files.object_paths import letter

    def named(path: bytes) -> str | None:
        return None if path == DELETED else os.fsdecode(prefix + path)

    found: dict[str, object] = {
        "change": _KINDS[change.kind],
        "type": letter(change.node.mode),
        "path": named(change.path),
        "object": change.node.number,
        "generation": change.node.generation,
        "size": change.node.size,
        "mtime": change.node.mtime.total,
        "ctime": change.node.ctime.total,
    }
    if change.new_path is not None:
        found["new_path"] = named(change.new_path)
    if change.links:
        found["links"] = change.links
    return found
