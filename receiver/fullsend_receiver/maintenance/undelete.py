"""Brings streams back from the trash, with the bases that they need.

What comes back is pinned for some days: otherwise the next prune would drop it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from fullsend_protocol.format.chains import can_follow
from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.errors import reason
from fullsend_receiver.catalogue.pins import pin
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import UndeletedStream
from fullsend_receiver.maintenance.trash import trashed_at
from fullsend_receiver.store.api import Store, TrashedStream
from fullsend_receiver.store.errors import ManifestError

#: Seconds for which a stream that came back is pinned.
PINNED_FOR = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """A stream in the trash."""

    place: TrashedStream
    manifest: Manifest

    @property
    def dropped(self) -> float | None:
        """When it was dropped, in seconds since the epoch; None: not known."""
        return trashed_at(self.place.folder)


@dataclass(frozen=True, slots=True)
class Undeleted:
    """The result. `back`: stored again, in this order; `taken`: their names are taken by other streams; `lacking`: the
    base GUIDs that are neither stored nor in the trash, by file.
    """

    back: list[PurePosixPath]
    taken: list[PurePosixPath]
    lacking: dict[PurePosixPath, str]


def find_trashed(
    store: Store, sender: str | None = None, *, unread: Callable[[str], None] = lambda _what: None
) -> Iterator[TrashEntry]:
    """Yield the streams in the trash of a sender, None: of all; the last dropped ones last. Blocks.

    Completes what a dead process had begun: until then such a stream may be neither stored nor in the trash. `unread`:
    gets a line for each one whose manifest cannot be read, which is omitted, and for what cannot be completed. Raises:
    OSError.
    """
    try:
        store.wait_for_removals()
    except OSError as error:  # a disk that is read-only still tells what is there
        unread(f"an interrupted removal cannot be completed: {reason(error)}")
    for place in store.trashed():
        if sender in {None, place.file.parts[0]}:
            try:
                yield TrashEntry(place, store.trashed_manifest(place))
            except ManifestError as error:
                if not isinstance(error.unread, FileNotFoundError):  # is brought back, or deleted, at this moment
                    unread(f"{place.file}: is in the trash as {place.folder}; its manifest {error.what}")


def undelete(
    store: Store, sender: str, dataset: str, snapshot: str | None, *, stored: Iterable[str], now: float
) -> Undeleted:
    """Store again the streams of a dataset, or those of one snapshot of it, with their bases. Blocks.

    `stored`: the GUIDs of the sender's stored snapshots; `now`: seconds since the epoch. Raises: StoreError, OSError.
    """
    # Of one stream that was dropped several times, the last one.
    entries = {each.place.file: each for each in find_trashed(store, sender)}
    wanted = [
        each
        for each in entries.values()
        if each.manifest.dataset == dataset and snapshot in {None, each.manifest.snapshot}
    ]
    order, lacking = _with_bases(wanted, entries.values(), set(stored))
    if wanted:
        # Before they are there: no prune may come between.
        files = [each.place.file for each in wanted]
        pin(store.documents, files, now=now, until=now + PINNED_FOR, note="came back from the trash")
    back = store.bring_back(lambda: [each.place for each in order])
    for file in back:
        emit(UndeletedStream(text=f"{file}: came back from the trash", sender=sender, file=str(file)))
    taken = [each.place.file for each in order if each.place.file not in set(back)]
    return Undeleted(back, taken, lacking)


def _with_bases(
    wanted: Iterable[TrashEntry], entries: Iterable[TrashEntry], stored: set[str]
) -> tuple[list[TrashEntry], dict[PurePosixPath, str]]:
    """Return these entries and the bases that they need from the trash, bases first; and what has no base anywhere."""
    by_guid: dict[str, list[TrashEntry]] = {}
    for each in entries:
        by_guid.setdefault(each.manifest.guid, []).append(each)
    order: dict[PurePosixPath, TrashEntry] = {}
    lacking: dict[PurePosixPath, str] = {}
    seen: set[PurePosixPath] = set()
    todo = [(each, False) for each in wanted]
    while todo:
        here, bases_done = todo.pop()
        if bases_done:
            order[here.place.file] = here
            continue
        if here.place.file in seen:
            continue
        seen.add(here.place.file)
        todo.append((here, True))
        base_guid = here.manifest.base_guid
        if base_guid is not None:
            about = here.manifest
            fitting = [
                each
                for each in by_guid.get(base_guid, ())
                if can_follow(each.manifest, about.stream_class, about.flags, about.base_ivset_guid)
            ]
            todo += [(each, False) for each in fitting]
            if not fitting and base_guid not in stored:
                lacking[here.place.file] = base_guid
    return list(order.values()), lacking
