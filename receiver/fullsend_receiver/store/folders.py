"""Makes the folders of streams, and checks that a rename can reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from fullsend_receiver.store.durable import make_folders, sync_folders
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.layout import Layout


def make_folder(store: Layout, folder: Path) -> None:
    """Make a dataset's folder, durable with all folders above it, and check that a rename can reach it.

    Raises: StoreError if the folder is on another file system; OSError.
    """
    make_folders(folder)
    # Also the folders that existed: another stream, or a process that was killed, may have made them without a sync.
    sync_folders(folder, store.root)
    if folder.stat().st_dev != store.partial.stat().st_dev:
        refuse_other_file_system(folder)


def refuse_other_file_system(folder: Path) -> NoReturn:
    """Raises: StoreError."""
    msg = f"{folder}: on another file system than the store; a store must be one file system"
    raise StoreError(msg)
