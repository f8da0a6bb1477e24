"""The marker of a store: shows that the store, and which one, is in its folder.

Without its disk the folder is an empty mount point, or another disk is mounted there. Each answer from the store, and
each new file in it, would be wrong then. So the marker is read for each request, which takes some microseconds.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from fullsend_receiver.store.errors import StoreError, StoreMissing, disk_error
from fullsend_receiver.store.layout import MARKER

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.layout import Layout

FORMAT: Final = 1
#: Bytes of a marker that are read.
_MOST: Final = 1 << 16


def read_id(root: Path) -> str:
    """Return the id in a store's marker. Raises: StoreMissing if there is none; StoreError if it cannot be read, or has
    another format.
    """
    try:
        marker = json.loads(_read(f"{root}/{MARKER}"))
        store_format, store_id = marker["format"], str(marker["id"])
    except FileNotFoundError:
        msg = f"{root}: no store here (no file {MARKER}): is its disk mounted?"
        raise StoreMissing(msg) from None
    except OSError as error:
        raise disk_error(error) from None
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{root / MARKER}: cannot be read: {error}"
        raise StoreError(msg) from None
    if store_format != FORMAT:
        msg = f"{root}: a store of format {store_format}; this fullsendd reads format {FORMAT}"
        raise StoreError(msg)
    return store_id


def _read(path: str) -> bytes:
    """Read a small file: pathlib takes three times as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST)
    finally:
        os.close(descriptor)


def check_id(root: Path, store_id: str) -> None:
    """Check that the store with this id is in the folder `root`. Raises: StoreMissing if not; as `read_id`."""
    found = read_id(root)
    if found != store_id:
        msg = f"{root}: is store {found}, but the configuration names {store_id}: another disk is mounted there"
        raise StoreMissing(msg)


def check_mounted(store: Layout) -> None:
    """Check that a store is still in its folder. Raises: as `check_id`."""
    if store.store_id:
        check_id(store.root, store.store_id)
