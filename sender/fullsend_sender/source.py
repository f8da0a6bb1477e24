"""What there is to send: datasets with their snapshots and bookmarks, as one `zfs list` tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fullsend_sender.zfs import COLUMNS


class Snapshot(NamedTuple):
    """A snapshot, or a bookmark, which is the memory of one.

    `name`: after the @ or #; `guid`: decimal, of the snapshot; `createtxg`: what orders them; `created`: seconds since
    the epoch; `userrefs`: how many holds there are; `written`: bytes since the snapshot before it.
    """

    name: str
    guid: str
    createtxg: int
    created: int
    userrefs: int
    written: int


@dataclass(slots=True)
class Dataset:
    """A filesystem or volume.

    `written`: bytes since its newest snapshot; `referenced`: bytes that it holds. `snapshots` and `bookmarks`: oldest
    first.
    """

    name: str
    type: Literal["filesystem", "volume"]
    guid: str
    written: int
    referenced: int
    encrypted: bool
    key_loaded: bool
    snapshots: list[Snapshot] = field(default_factory=list)
    bookmarks: list[Snapshot] = field(default_factory=list)

    @property
    def pool(self) -> str:
        return self.name.partition("/")[0]

    def has(self, snapshot: str) -> bool:
        """Whether it has a snapshot of this name (after the @)."""
        return any(each.name == snapshot for each in self.snapshots)


def parse_snapshots(listing: str) -> dict[str, Snapshot]:
    """Read what `Zfs.list_snapshots` returns. Returns: snapshots by their whole names."""
    return {line.partition("\t")[0]: _snapshot(line.split("\t", len(COLUMNS) - 1)) for line in listing.splitlines()}


def parse(listing: str) -> dict[str, Dataset]:
    """Read what `Zfs.listing` returns. Returns: datasets by name, in the order of the listing, parents first."""
    datasets: dict[str, Dataset] = {}
    snapshots: list[tuple[str, str, Snapshot]] = []
    for line in listing.splitlines():
        columns = line.split("\t", len(COLUMNS) - 1)
        name, kind, guid, _createtxg, _creation, written, referenced, _userrefs, encryption, keystatus = columns
        if kind in {"filesystem", "volume"}:
            datasets[name] = Dataset(
                name=name,
                type="volume" if kind == "volume" else "filesystem",
                guid=guid,
                written=_number(written),
                referenced=_number(referenced),
                encrypted=encryption not in {"off", "-"},
                key_loaded=keystatus == "available",
            )
        else:
            mark = "@" if kind == "snapshot" else "#"
            snapshots.append((name.partition(mark)[0], mark, _snapshot(columns)))
    # `zfs list -d 1` also shows the children, but not what is theirs; and sorting by name puts snapshots anywhere.
    for owner, mark, found in snapshots:
        if owner in datasets:
            (datasets[owner].snapshots if mark == "@" else datasets[owner].bookmarks).append(found)
    for dataset in datasets.values():
        dataset.snapshots.sort(key=_age)
        dataset.bookmarks.sort(key=_age)
    return datasets


def _snapshot(columns: list[str]) -> Snapshot:
    name, kind, guid, createtxg, creation, written, _referenced, userrefs, *_rest = columns
    short = name.partition("@" if kind == "snapshot" else "#")[2]
    return Snapshot(short, guid, int(createtxg), _number(creation), _number(userrefs), _number(written))


def _age(snapshot: Snapshot) -> int:
    return snapshot.createtxg


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # "-": does not apply
