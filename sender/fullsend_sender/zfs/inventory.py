"""The datasets of this host with their snapshots and bookmarks, from one `zfs list`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fullsend_sender.zfs.commands import COLUMNS
from fullsend_sender.zfs.selection import pool_of


class Snapshot(NamedTuple):
    """A snapshot, or a bookmark, which records one.

    `name`: after the @ or #; `guid`: decimal, of the snapshot; `createtxg`: their order; `created`: seconds since
    the epoch; `userrefs`: number of holds; `written`: bytes since the snapshot before it, None: unknown.
    """

    name: str
    guid: str
    createtxg: int
    created: int
    userrefs: int
    written: int | None


@dataclass(slots=True)
class Dataset:
    """A filesystem or volume.

    `written`: bytes since its newest snapshot, None: unknown; `referenced`: bytes that it holds. `snapshots` and
    `bookmarks`: oldest first. `unreadable`: a line about it in the listing that cannot be parsed, so its snapshots are
    not known; "" if all lines can be.
    """

    name: str
    type: Literal["filesystem", "volume"]
    guid: str
    written: int | None
    referenced: int
    encrypted: bool
    key_loaded: bool
    snapshots: list[Snapshot] = field(default_factory=list)
    bookmarks: list[Snapshot] = field(default_factory=list)
    unreadable: str = ""

    @property
    def pool(self) -> str:
        return pool_of(self.name)

    def has(self, snapshot: str) -> bool:
        """Whether it has a snapshot of this name (after the @)."""
        return any(each.name == snapshot for each in self.snapshots)


def parse_snapshots(listing: str) -> dict[str, Snapshot]:
    """Parse the result of `Zfs.list_snapshots`. Returns: snapshots by their full names, without lines that cannot be
    parsed.
    """
    found: dict[str, Snapshot] = {}
    for line in listing.splitlines():
        with contextlib.suppress(ValueError):
            found[line.partition("\t")[0]] = _snapshot(_columns(line))
    return found


def parse(listing: str) -> dict[str, Dataset]:
    """Parse the result of `Zfs.listing`. Returns: datasets by name, in the order of the listing, parents first. A line
    that cannot be parsed marks its dataset, and no other.
    """
    datasets: dict[str, Dataset] = {}
    snapshots: list[tuple[str, str, Snapshot]] = []
    unreadable: dict[str, str] = {}
    for line in listing.splitlines():
        name = line.partition("\t")[0]
        mark = "@" if "@" in name else "#"
        owner = name.partition(mark)[0]
        try:
            columns = _columns(line)
            kind = columns[1]
            if kind in {"filesystem", "volume"}:
                datasets[name] = _dataset(columns)
            else:
                snapshots.append((owner, mark, _snapshot(columns)))
        except ValueError:
            unreadable[owner] = line
            if owner == name:
                datasets[name] = Dataset(name, "filesystem", "0", 0, 0, encrypted=False, key_loaded=False)
    # `zfs list -d 1` also lists the children, but not their snapshots; and sorting by name puts snapshots anywhere.
    for owner, mark, found in snapshots:
        if owner in datasets:
            (datasets[owner].snapshots if mark == "@" else datasets[owner].bookmarks).append(found)
    for dataset in datasets.values():
        dataset.snapshots.sort(key=_age)
        dataset.bookmarks.sort(key=_age)
        dataset.unreadable = unreadable.get(dataset.name, "")
    return datasets


def _columns(line: str) -> list[str]:
    """Return the columns of a line. Raises: ValueError."""
    columns = line.split("\t", len(COLUMNS) - 1)
    if len(columns) != len(COLUMNS):
        raise ValueError(line)
    return columns


def _dataset(columns: list[str]) -> Dataset:
    """Return a dataset without its snapshots. Raises: ValueError."""
    name, kind, guid, _createtxg, _creation, written, referenced, _userrefs, encryption, keystatus = columns
    return Dataset(
        name=name,
        type="volume" if kind == "volume" else "filesystem",
        guid=str(int(guid)),
        written=_written(written),
        referenced=_number(referenced),
        encrypted=encryption not in {"off", "-"},
        key_loaded=keystatus == "available",
    )


def _snapshot(columns: list[str]) -> Snapshot:
    """Return a snapshot or bookmark. Raises: ValueError."""
    name, kind, guid, createtxg, creation, written, _referenced, userrefs, *_rest = columns
    is_snapshot = kind == "snapshot"
    short = name.partition("@" if is_snapshot else "#")[2]
    since = _written(written) if is_snapshot else 0
    return Snapshot(short, str(int(guid)), int(createtxg), _number(creation), _number(userrefs), since)


def _age(snapshot: Snapshot) -> int:
    return snapshot.createtxg


def _written(text: str) -> int | None:
    return int(text) if text.isdecimal() else None  # "-": the kernel could not read it; with 0 nothing has changed


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # "-": does not apply
