"""Makes the folders of streams, and checks that a rename can reach them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.format.names import MANIFEST_SUFFIX
from fullsend_receiver.store.durable import make_folders, sync_folders
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.layout import Layout


#: Folders that a process remembers: some megabytes.
_REMEMBERED: Final = 16_384


class DurableFolders:
    """The folders of streams that this process has synced, with all folders above them. Thread-safe."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        """`most`: so many are remembered."""
        self._most = most
        self._synced: dict[Path, tuple[tuple[int, int], ...]] = {}

    def ensure(self, folder: Path, root: Path) -> None:
        """Make the names of `folder` and of all folders between it and `root` durable, unless it is known that they
        are.

        It is known if this process has synced them, they are the same, and a manifest is in `folder`. Each commit makes
        these names durable before its manifest comes there. So this also holds if the folder was removed meanwhile, and
        another process, or a thread, is just making it again. Raises: OSError.
        """
        found = _identities(folder, root)
        if self._synced.get(folder) == found and _has_manifest(folder):
            return
        sync_folders(folder, root)
        if len(self._synced) >= self._most:
            self._synced.clear()
        self._synced[folder] = found


_DURABLE: Final = DurableFolders()


def _identities(folder: Path, root: Path) -> tuple[tuple[int, int], ...]:
    """Return device and inode of `folder` and of all folders between it and `root`."""
    found = []
    while folder != root:
        status = folder.stat()
        found.append((status.st_dev, status.st_ino))
        folder = folder.parent
    return tuple(found)


def _has_manifest(folder: Path) -> bool:
    """Whether a stream is stored in this folder. A child dataset's name may end as a manifest's; none begins with @."""
    with os.scandir(folder) as entries:
        return any(entry.name.startswith("@") and entry.name.endswith(MANIFEST_SUFFIX) for entry in entries)


def make_folder(store: Layout, folder: Path) -> None:
    """Make a dataset's folder, durable with all folders above it, and check that a rename can reach it.

    Raises: StoreError if the folder is on another file system; OSError.
    """
    make_folders(folder)
    # Also the folders that existed: another stream, or a process that was killed, may have made them without a sync.
    _DURABLE.ensure(folder, store.root)
    if folder.stat().st_dev != store.partial.stat().st_dev:
        refuse_other_file_system(folder)


def refuse_other_file_system(folder: Path) -> NoReturn:
    """Raises: StoreError."""
    msg = f"{folder}: on another file system than the store; a store must be one file system"
    raise StoreError(msg)
