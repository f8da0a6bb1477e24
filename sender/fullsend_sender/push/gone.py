"""Finds datasets that were backed up and no longer exist here.

A pool that is not imported, or a dataset that was destroyed, must not leave a backup looking healthy. It is reported
until `retired` in sender.toml says that it is on purpose. A renamed dataset still exists, under its new name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.chains import Forest
from fullsend_sender.transfer.listing import entries
from fullsend_sender.zfs.selection import fits

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


def renamed(bases: Collection[Base], here: Mapping[str, Dataset]) -> dict[str, str]:
    """Return the datasets that exist here, or continue in the store, under another name: old name to new name.

    `bases`: all that the receiver has; `here`: the datasets with their snapshots and bookmarks. A dataset is known by
    the GUIDs of its snapshots. These stay in a chain forever, and on this host as long as the last two bookmarks.
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
    present: dict[str, str] = {}
    for name, dataset in here.items():
        guids = {point.guid for point in (*dataset.snapshots, *dataset.bookmarks)}
        # What has a point that is stored under its own name is that dataset, such as a replica of the other one.
        if not any((name, guid) in own for guid in guids):
            present |= dict.fromkeys(guids, name)
    for name in forest.datasets:
        now = next((present[each.guid] for each in forest.of_dataset(name) if each.guid in present), name)
        if now != name:
            found[name] = now
    return found


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
            if entry.base_guid == about.guid and entry.received < about.unchanged:
                found.pop(name, None)
    return found


def not_meant(name: str, now: str) -> str:
    """Return the text for a dataset that continues under a name that is not pushed."""
    return f"it is {now} here now, which is not among what is pushed: add that, and {name} to `retired` in sender.toml"


def why(name: str, there: Pools) -> str:
    """Return the text for a dataset that is not here."""
    pool = name.partition("/")[0]
    reason = "it was destroyed or renamed here" if pool in there.health else there.absent(pool)
    return f"it is stored, and is not here: {reason}; {_WAY_OUT}"
