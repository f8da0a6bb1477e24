"""`fullsendd ls`: the files of a stored snapshot."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.snapshot_choice import add_snapshot, open_snapshot

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fullsend_cli.running import Commands
    from fullsend_protocol.dataset.nodes import Node
    from fullsend_receiver.files.index import FileIndex


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("ls", help="list the files of a stored snapshot, without ZFS")
    add_snapshot(sub)
    sub.add_argument("-l", "--long", action="store_true", help="mode, links, owner, size and time, too")
    sub.add_argument("-R", "--recursive", action="store_true", help="all below; --name means it, too")
    sub.add_argument("--json", action="store_true", help="one JSON object a line, with all that is known")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List. Returns: the exit code. Raises: FullsendError, OSError, BrokenPipeError."""
    _source, index, paths = open_snapshot(options)
    with contextlib.closing(index):
        return _list(options, index, paths)


def _list(options: argparse.Namespace, index: FileIndex, paths: list[bytes]) -> int:
    from fullsend_cli.output import write_line
    from fullsend_protocol.shared.units import format_size
    from fullsend_receiver.cli.results import print_note
    from fullsend_receiver.files.choice import matcher

    if index.volume_size is not None and not paths:
        size = index.volume_size
        write_line(json.dumps({"volume": size}) if options.json else f"a volume of {format_size(size)}")
        print_note("a volume has no files: `get --volume FILE` writes its image")
        return Exit.OK
    fits = matcher(options.name)
    recursive = options.recursive or bool(options.name)
    for path in paths or [b""]:
        for inside, node in _found(index, path, recursive=recursive):
            if not fits(inside):
                continue
            if options.json:
                write_line(json.dumps(facts(index, inside, node)))
            else:
                name = inside if recursive or inside == path else inside.rpartition(b"/")[2]
                write_line(_line(name, node) if options.long else _text(name))
    return Exit.OK


def _found(index: FileIndex, path: bytes, *, recursive: bool) -> Iterator[tuple[bytes, Node]]:
    """Yield what a path names, or of a directory what it has."""
    from fullsend_receiver.files.index import components, joined

    top = index.lookup(path)
    here = b"/".join(components(path))
    if not top.is_directory:
        yield here, top
    elif recursive:
        yield from index.walk(here, top)
    else:
        for name, node in index.children(top):
            yield joined(here, name), node


def _text(name: bytes) -> str:
    from fullsend_protocol.shared.units import printable

    return printable(os.fsdecode(name))


def _line(name: bytes, node: Node) -> str:
    from fullsend_protocol.shared.units import format_time

    what = ",".join(map(str, node.device_numbers)) if node.device is not None else str(node.size)
    target = "" if node.target is None else f" -> {_text(node.target)}"
    owner = f"{node.uid:>5} {node.gid:>5}"
    return (
        f"{stat.filemode(node.mode)} {node.links:>3} {owner} {what:>12} {format_time(node.mtime.seconds)} "
        f"{_text(name)}{target}"
    )


def facts(index: FileIndex, path: bytes, node: Node) -> dict[str, object]:
    """Return all that is known of a file, for JSON. Raises: StreamError."""
    from fullsend_protocol.dataset import acl

    found: dict[str, object] = {
        "path": os.fsdecode(path),
        "object": node.number,
        "generation": node.generation,
        "mode": f"{node.mode:o}",
        "links": node.links,
        "uid": node.uid,
        "gid": node.gid,
        "size": node.size,
        "atime": node.atime.total,
        "mtime": node.mtime.total,
        "ctime": node.ctime.total,
        "created": node.created.total,
    }
    if node.target is not None:
        found["target"] = os.fsdecode(node.target)
    if node.device is not None:
        found["device"] = list(node.device_numbers)
    if node.project is not None:
        found["project"] = node.project
    xattrs = index.xattrs(node)
    if xattrs:
        found["xattrs"] = {os.fsdecode(name): None if value is None else value.hex() for name, value in xattrs.items()}
    if node.acl is not None and not acl.is_trivial(node.flags):
        found["acl"] = [
            {"type": each.kind, "who": each.who, "flags": each.flags, "mask": each.mask}
            for each in acl.entries(node.acl, node.number)
        ]
    return found
