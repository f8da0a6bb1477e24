"""Finds datasets that were backed up and no longer exist here.

A pool that is not imported, or a dataset that was destroyed, must not leave a backup looking healthy. It is reported
until `retired` in sender.toml says that it is on purpose. A renamed dataset still exists, under its new name.

A replica has the snapshots of its original, and must not be taken for it. Our bookmarks tell them apart: `zfs rename`
and the import of a pool under another name keep them, and no replication copies them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.chains import Forest
from fullsend_sender.push.naming import bookmark_receiver
from fullsend_sender.transfer.listing import entries, is_of_copy
from fullsend_sender.zfs.selection import fits, pool_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fullsend_protocol.wire.messages import Base, DatasetStatus
    from fullsend_sender.transfer.link import Link
    from fullsend_sender.zfs.inventory import Dataset
    from fullsend_sender.zfs.pools import Pools

#: What the user can do.
_WAY_OUT: Final = "if that is on purpose, add it to `retired` in sender.toml"


def is_retired(name: str, patterns: Sequence[str]) -> bool:
    """Whether the user has declared that this dataset no longer exists on purpose."""
    return any(fits(name, pattern) for pattern in patterns)


def renamed(
    bases: Collection[Base], here: Mapping[str, Dataset], receiver: str, no_bookmarks: Collection[str]
) -> dict[str, str]:
    """Return the datasets that exist here, or continue in the store, under another name: old name to new name.

    `bases`: all that the receiver has; `here`: the datasets with their snapshots and bookmarks; `receiver`: its id in
    the names of bookmarks; `no_bookmarks`: the pools that cannot have any. A dataset is known by the GUIDs of its last
    two bookmarks. It is known by those of its snapshots where nothing else can tell: in a pool without bookmarks, and
    in its own pool, if that has none for this receiver.
    """
    # A base has no order of reception. Of two states the later one is that of the younger chain (older chains end where
    # a new full was sent), and within chains of one age, that with more streams.
    forest = Forest(sorted(bases, key=lambda base: base.streams), order=lambda base: -base.age)
    found: dict[str, str] = {}
    for name in forest.datasets:
        for last in forest.ends(name)[-1:]:
            further = [each for each in forest.continued_by(last) if not forest.existed_before(each, last)]
            if further:
                found[name] = further[-1]
    own = {(base.dataset, base.guid) for base in bases}
    marks = {name: _marked(dataset, receiver) for name, dataset in here.items()}
    recording = {here[name].pool for name, guids in marks.items() if guids}
    marked: dict[str, str] = {}
    similar: dict[tuple[str, str], str] = {}  # by pool and GUID of a snapshot
    for name, dataset in here.items():
        guids = {point.guid for point in (*dataset.snapshots, *dataset.bookmarks)}
        # What has a point that is stored under its own name is that dataset, such as a replica of the other one.
        if any((name, guid) in own for guid in guids):
            continue
        marked |= dict.fromkeys(marks[name], name)
        if not marks[name]:
            similar |= dict.fromkeys(((dataset.pool, guid) for guid in guids), name)
    for name in forest.datasets:
        # In a pool that has our bookmarks, what has none is a replica.
        pool = pool_of(name)
        unrecorded = [*no_bookmarks, *({pool} - recording)]
        names = (
            marked.get(each.guid) or next((similar[at] for of in unrecorded if (at := (of, each.guid)) in similar), "")
            for each in forest.of_dataset(name)
        )
        now = next(filter(None, names), name)
        if now != name:
            found[name] = now
    return found


def _marked(dataset: Dataset, receiver: str) -> set[str]:
    """Return the GUIDs of a dataset's bookmarks that `push` has made for a receiver."""
    return {mark.guid for mark in dataset.bookmarks if bookmark_receiver(mark.name, mark.guid) == receiver}


async def without_copies(
    link: Link, missing: Iterable[str], elsewhere: Mapping[str, str], stored: Mapping[str, DatasetStatus]
) -> dict[str, str]:
    """Return what `renamed` says of the datasets in `missing`, without copies, such as replicas: a copy was reported
    unchanged while the other dataset existed. `stored`: the receiver's report on each. Raises: as Link.receive.
    """
    found = {name: elsewhere[name] for name in missing if name in elsewhere}
    for name, now in list(found.items()):
        about = stored.get(name)
        if about is None or about.unchanged is None:
            continue
        async for entry in entries(link, now):
            if is_of_copy(entry, about):
                found.pop(name, None)
    return found


def not_meant(name: str, now: str) -> str:
    """Return the text for a dataset that continues under a name that is not pushed."""
    return f"it is {now} here now, which is not among what is pushed: add that, and {name} to `retired` in sender.toml"


def why(name: str, there: Pools) -> str:
    """Return the text for a dataset that is not here."""
    pool = pool_of(name)
    reason = "it was destroyed or renamed here" if pool in there.health else there.absent(pool)
    return f"it is stored, and is not here: {reason}; {_WAY_OUT}"
