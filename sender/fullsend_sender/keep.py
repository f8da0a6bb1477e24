"""Which of our own snapshots and bookmarks have had their time (design section 8). No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_sender import ours

if TYPE_CHECKING:
    from fullsend_sender.source import Dataset, Snapshot

#: Bookmarks that stay for each receiver: the last common base, and the one before it.
BOOKMARKS: Final = 2


def outdated_snapshots(dataset: Dataset, receiver: str, keep: int) -> list[Snapshot]:
    """Return the snapshots taken for `receiver` that nobody needs any more: all but the newest `keep`.

    The last common base of any receiver stays, and what is not of exactly our names is nobody's business here.
    """
    own = [snapshot for snapshot in dataset.snapshots if ours.snapshot_receiver(snapshot.name) == receiver]
    newest: dict[str, str] = {}  # GUID of the newest bookmark, by receiver: bookmarks come oldest first
    for bookmark in dataset.bookmarks:
        of = ours.bookmark_receiver(bookmark.name, bookmark.guid)
        if of is not None:
            newest[of] = bookmark.guid
    return [snapshot for snapshot in own[: max(0, len(own) - keep)] if snapshot.guid not in newest.values()]


def outdated_bookmarks(dataset: Dataset, receiver: str) -> list[Snapshot]:
    """Return the bookmarks made for `receiver`, but for the last two."""
    own = [mark for mark in dataset.bookmarks if ours.bookmark_receiver(mark.name, mark.guid) == receiver]
    return own[: max(0, len(own) - BOOKMARKS)]
