"""What a store in a folder has of each sender besides stored and arriving streams.

STORE/.state/trash/FOLDER/SENDER/...    removed streams that can be brought back
STORE/.partial/*.damaged                damaged streams that were replaced, and partials whose data the disk has lost
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fullsend_protocol.format.names import is_stream
from fullsend_receiver.store.damaged import UNKNOWN, listed_aside
from fullsend_receiver.store.durable import folders_below, size_of

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout


def count(store: Layout) -> dict[str, int]:
    """Return the bytes of stream files by sender. See `Store.aside`."""
    found: Counter[str] = Counter()
    trash = store.trash_folder
    for folder, files in folders_below(trash):
        path = folder.relative_to(trash).parts
        for name in files:
            if len(path) > 1 and is_stream(name):
                found[path[1]] += size_of(folder / name)
    for each in listed_aside(store, None):
        if each.sender != UNKNOWN:
            found[each.sender] += each.stored_bytes
    return dict(found)
