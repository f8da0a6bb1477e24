"""What a store in a folder has of each sender besides stored and arriving streams.

STORE/.state/trash/FOLDER/SENDER/...    removed streams that can be brought back
STORE/.partial/*.damaged                damaged streams that were replaced, and partials whose data the disk has lost
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.format.names import is_stream
from fullsend_receiver.store.damaged import UNKNOWN, listed_aside

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout


def count(store: Layout) -> dict[str, int]:
    """Return the bytes of stream files by sender. See `Store.aside`."""
    found: Counter[str] = Counter()
    trash = store.trash_folder
    for folder, _folders, files in os.walk(trash, onerror=_raise):
        path = Path(folder).relative_to(trash).parts
        for name in files:
            if len(path) > 1 and is_stream(name):
                found[path[1]] += _size(Path(folder, name))
    for each in listed_aside(store, None):
        if each.sender != UNKNOWN:
            found[each.sender] += each.stored_bytes
    return dict(found)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # was removed meanwhile
        return 0
