"""The versions of one path over snapshots: which of them have it, and what differs from one to the next.

The judgement rests on what each snapshot has of the file: object number, generation, and all its attributes. Contents
are not read, and streams do not have the births of blocks. So "none seen" means just that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from fullsend_protocol.dataset.nodes import Node
from fullsend_protocol.shared.errors import FullsendError
from fullsend_receiver.files.index import NoSuchFile, components

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.files.index import FileIndex

#: How a file differs from that in the snapshot before. `first`: no snapshot before can be read; `created`: it had none;
#: `replaced`: another object, or another generation, has the path; `written`: size or mtime differ; `attributes`:
#: others do; `none seen`: nothing does; `removed`: it had one, and this has none; `missing`: neither has one;
#: `unreadable`: not known.
Judgement = Literal[
    "first", "created", "replaced", "written", "attributes", "none seen", "removed", "missing", "unreadable"
]
#: A change of these means that contents were written, or that somebody set the time.
_WRITTEN = frozenset({"size", "mtime"})
#: To read a file changes its atime; to give it a second name elsewhere changes its parent.
_IGNORED = frozenset({"atime", "parent"})


@dataclass(frozen=True, slots=True)
class Version:
    """A path in one snapshot. `node`: None, if it is not there, or not known; `since`: the snapshot with which it is
    compared, None: none; `differs`: the attributes that differ, by the names of Node's fields; `trouble`: why the
    snapshot cannot be read.
    """

    summary: Summary
    node: Node | None
    change: Judgement
    since: str | None
    differs: tuple[str, ...] = ()
    trouble: FullsendError | OSError | None = None


def snapshots(summaries: Iterable[Summary]) -> list[list[Summary]]:
    """Return the streams of a dataset, given in order of reception, by their snapshots, the oldest snapshot first."""
    found: dict[str, list[Summary]] = {}
    for each in summaries:
        found.setdefault(each.guid, []).append(each)
    return sorted(found.values(), key=lambda streams: streams[0].created)


def versions(
    path: bytes, streams: Iterable[list[Summary]], opened: Callable[[Summary], FileIndex]
) -> Iterator[Version]:
    """Yield a path's version in each snapshot. `opened`: returns the index of a stream's snapshot, which is closed
    here; if it fails for one stream of a snapshot, the next one is tried.

    Raises: NoSuchFile for a volume, or an impossible path.
    """
    components(path)
    before: tuple[str, Node | None] | None = None
    for each in streams:
        try:
            node = _found(path, each, opened)
        except NoSuchFile:
            raise
        except (FullsendError, OSError) as error:
            yield Version(each[0], None, "unreadable", None, trouble=error)
            continue
        if before is None:
            yield Version(each[0], node, "missing" if node is None else "first", None)
        else:
            change, differs = judged(before[1], node)
            yield Version(each[0], node, change, before[0], differs)
        before = each[0].snapshot, node


def _found(path: bytes, streams: list[Summary], opened: Callable[[Summary], FileIndex]) -> Node | None:
    for number, stream in enumerate(streams, 1):
        try:
            index = opened(stream)
        except (FullsendError, OSError):
            if number < len(streams):
                continue
            raise
        try:
            return index.lookup(path)
        except NoSuchFile:
            if index.volume_size is not None:
                raise
            return None
        finally:
            index.close()
    return None


def judged(before: Node | None, now: Node | None) -> tuple[Judgement, tuple[str, ...]]:
    """Compare a path in two snapshots. Returns: how it differs, and in which attributes."""
    if now is None:
        return ("missing" if before is None else "removed"), ()
    if before is None:
        return "created", ()
    differs = tuple(
        field.name
        for field in fields(Node)
        if field.name not in _IGNORED and getattr(before, field.name) != getattr(now, field.name)
    )
    if "number" in differs or "generation" in differs:
        return "replaced", differs
    if _WRITTEN & set(differs):
        return "written", differs
    return ("attributes" if differs else "none seen"), differs
