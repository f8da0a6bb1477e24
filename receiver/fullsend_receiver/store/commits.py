"""Turns a sealed partial into a stored stream: three renames, the manifest's last (docs/format.md, "Write order").

Each step may be repeated. If the process dies, the journal has the `commit` line, and the next process completes it.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_receiver.store.durable import locked, make_folders, sync_folder, sync_folders
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.marker import check_mounted
from fullsend_receiver.store.partials import DATA, discard, partial_path

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")


def is_stored(store: Layout, file: PurePosixPath) -> bool:
    """Whether a stream is stored in this file: its manifest is in place."""
    return store.manifest_path(file).exists()


def refuse_orphan(store: Layout, file: PurePosixPath) -> None:
    """Refuse to overwrite a `.zst` without manifest: it may be the only copy. Raises: StoreError."""
    if (store.root / file).exists():
        msg = f"{file}: exists without its manifest; run `fullsendd verify` to take it back into the store"
        raise StoreError(msg)


def make_folder(store: Layout, folder: Path) -> None:
    """Make a dataset's folder, durable with all folders above it, and check that a rename can reach it.

    Raises: StoreError if the folder is on another file system; OSError.
    """
    make_folders(folder)
    # Also the folders that existed: another stream, or a process that was killed, may have made them without a sync.
    sync_folders(folder, store.root)
    if folder.stat().st_dev != store.partial.stat().st_dev:
        _refuse_other_file_system(folder)


def complete(store: Layout, key: str, file: PurePosixPath) -> bool:
    """Complete a commit that was interrupted. Returns: as `put_in_place`."""
    check_mounted(store)
    make_folder(store, (store.root / file).parent)
    return put_in_place(store, key, file)


def put_in_place(store: Layout, key: str, file: PurePosixPath) -> bool:
    """Rename the three files into place, `.json` last. May be repeated after a crash at any point.

    Returns: False if another stream of this name is stored; that one is not changed, and this one is discarded.
    Raises: StoreError, OSError.
    """
    target = store.root / file
    data, sha256, manifest = (partial_path(store, key, suffix) for suffix in (DATA, HASH_SUFFIX, MANIFEST_SUFFIX))
    in_place = True
    # Without the partial's manifest the last rename is done; at most the clean-up remains.
    if manifest.exists():
        in_place = _claim(store, data, file)
        if in_place:
            _move(sha256, store.hash_path(file))
            sync_folder(target.parent)
            _move(manifest, store.manifest_path(file))
            sync_folder(target.parent)
    discard(store, key)
    return in_place


def _claim(store: Layout, data: Path, file: PurePosixPath) -> bool:
    """Rename the data file into place, unless another stream has that name. Returns: whether it is in place."""
    target = store.root / file
    # Held from the check that a name is free to the rename that takes it: a command may be bringing a stream back.
    with locked(store.lock):
        if data.exists() and target.exists() and not data.samefile(target):
            if is_stored(store, file):
                return False
            refuse_orphan(store, file)
        _move(data, target)
        return True


def _move(source: Path, destination: Path) -> None:
    try:
        source.rename(destination)
    except FileNotFoundError:
        if not destination.exists():  # otherwise an earlier process has moved it
            msg = f"{destination}: lost during its commit: it is neither there nor at {source}"
            raise StoreError(msg) from None
    except OSError as error:
        if error.errno == errno.EXDEV:
            _refuse_other_file_system(destination.parent)
        raise


def _refuse_other_file_system(folder: Path) -> NoReturn:
    msg = f"{folder}: on another file system than the store; a store must be one file system"
    raise StoreError(msg)
