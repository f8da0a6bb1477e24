"""Selects fullsend's own snapshots and bookmarks that are outdated. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_sender.push import naming
from fullsend_sender.zfs.selection import lineage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_sender.zfs.inventory import Dataset, Snapshot

#: Bookmarks that stay for each receiver: the last common base, and the one before it.
BOOKMARKS: Final = 2


class Needed:
    """The snapshots of partial streams: without them no partial could be resumed."""

    def __init__(self, partials: Iterable[PartialEntry] = ()) -> None:
        """`partials`: all that the receiver has of this host."""
        self._guids: set[str | None] = set()
        self._packages: set[str] = set()
        for each in partials:
            self._guids |= {each.guid, each.base_guid}
            if each.guid is None:
                self._packages.add(each.dataset)

    def has(self, dataset: Dataset, point: Snapshot) -> bool:
        """Whether a partial stream needs this snapshot or bookmark. A package (-R) needs all in its tree."""
        return point.guid in self._guids or not self._packages.isdisjoint(lineage(dataset.name))


def outdated_snapshots(
    dataset: Dataset, receiver: str, keep: int, needed: Needed, common: Collection[str | None] = ()
) -> list[Snapshot]:
    """Return the snapshots taken for `receiver` that are no longer needed: all but the newest `keep`.

    The last common base of any receiver stays. Snapshots with names of other forms are never returned. `common`: GUIDs
    of the bases common with `receiver`; without bookmarks a pool has no other record of them.
    """
    own = [snapshot for snapshot in dataset.snapshots if naming.snapshot_receiver(snapshot.name) == receiver]
    newest: dict[str, str] = {}  # GUID of the newest bookmark, by receiver: bookmarks come oldest first
    for bookmark in dataset.bookmarks:
        of = naming.bookmark_receiver(bookmark.name, bookmark.guid)
        if of is not None:
            newest[of] = bookmark.guid
    old = own[: max(0, len(own) - keep)]
    stays = {*newest.values(), *common}
    return [each for each in old if each.guid not in stays and not needed.has(dataset, each)]


def outdated_bookmarks(dataset: Dataset, receiver: str, needed: Needed) -> list[Snapshot]:
    """Return the bookmarks made for `receiver` that are no longer needed: all but the last two."""
    own = [mark for mark in dataset.bookmarks if naming.bookmark_receiver(mark.name, mark.guid) == receiver]
    return [mark for mark in own[: max(0, len(own) - BOOKMARKS)] if not needed.has(dataset, mark)]
