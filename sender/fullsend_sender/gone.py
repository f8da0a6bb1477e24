"""What was backed up and is not here any more. No I/O.

A pool that is not imported, or a dataset that is gone, must not make a backup look well. It is said until the user says
that it is gone on purpose: `retired` in sender.toml. What was renamed is not gone: it goes on under its new name.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from fullsend_sender.selection import fits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fullsend_protocol.messages import Base
    from fullsend_sender.source import Dataset

#: What to do about it.
_WAY_OUT: Final = "if that is on purpose, add it to `retired` in sender.toml"


def is_retired(name: str, patterns: Sequence[str]) -> bool:
    """Whether the user has said that this dataset is gone on purpose."""
    return any(fits(name, pattern) for pattern in patterns)


def renamed(bases: Iterable[Base], here: Mapping[str, Dataset]) -> dict[str, str]:
    """Return by its stored name each dataset that is here, or goes on in the store, under another one: that name.

    `bases`: all that the receiver has; `here`: the datasets with their snapshots and bookmarks. A dataset is known by
    the GUIDs of its snapshots. These stay in a chain for ever, and at home as long as the last two bookmarks.
    """
    of_dataset: dict[str, list[Base]] = defaultdict(list)
    builds_on: dict[str, set[str]] = defaultdict(set)  # by GUID, the datasets of the streams that build on it
    for base in bases:
        of_dataset[base.dataset].append(base)
        if base.base_guid is not None:
            builds_on[base.base_guid].add(base.dataset)
    found: dict[str, str] = {}
    for name, mine in of_dataset.items():
        # The last state is that of the youngest chain; older chains end where a new full was sent.
        ends = [each for each in mine if name not in builds_on[each.guid]]
        last = min(ends, key=lambda each: (each.age, -each.streams), default=None)
        further = sorted(builds_on[last.guid]) if last is not None else []
        if further:
            found[name] = further[-1]
    present = {point.guid: name for name, dataset in here.items() for point in (*dataset.snapshots, *dataset.bookmarks)}
    for name, mine in of_dataset.items():
        now = next((present[each.guid] for each in mine if each.guid in present), name)
        if now != name:
            found[name] = now
    return found


def why(name: str, pools: Iterable[str]) -> str:
    """Say of a dataset that it is not here. `pools`: those that are imported."""
    pool = name.partition("/")[0]
    reason = "it was destroyed or renamed here" if pool in pools else f"no pool {pool} is imported"
    return f"it is stored, and is not here: {reason}; {_WAY_OUT}"
