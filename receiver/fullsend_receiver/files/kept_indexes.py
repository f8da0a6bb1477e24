"""Keeps the indexes of stored snapshots, so that the next list of a snapshot need not read its streams.

They lie in `.state/files` of the store. Each may be lost, and is made anew then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

from fullsend_receiver.files.index import FORM, FileIndex

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.files.sources import SnapshotSource
    from fullsend_receiver.store.api import Store

_SUFFIX: Final = ".sqlite"
#: Indexes that stay, the last used ones. One takes some 250 bytes a file.
_KEPT_MAX: Final = 64
_KEPT_BYTES_MAX: Final = 4 << 30
#: Seconds after which what another process has begun is taken for left over.
_LEFT_OVER: Final = 86400.0


def folder_of(store: Store) -> Path:
    """Return where the indexes of a store lie."""
    return store.home / "files"


def index_of(source: SnapshotSource, folder: Path | None) -> FileIndex:
    """Return the index of a snapshot: the kept one, or a new one, which takes a pass over its streams.

    `folder`: where to keep it; None: nowhere. Raises: StreamError, OSError.
    """
    key = source.key
    if folder is None or key is None or not _is_writable(folder):
        return _made(source, None)
    path = folder / f"{key}-{FORM}{_SUFFIX}"
    found = FileIndex.opened(path, source.name)
    if found is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
        return found
    temporary = folder / f".{key}.{secrets.token_hex(4)}.tmp"
    try:
        _made(source, temporary).close()
        with temporary.open("rb") as file:  # a power cut must not leave a part of it under its name
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _drop_old(folder)
    return FileIndex.opened(path, source.name) or _made(source, None)


def _made(source: SnapshotSource, path: Path | None) -> FileIndex:
    with source.opened() as reader:
        return FileIndex.build(reader, path)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:  # a store that is mounted read-only
        return False
    return os.access(folder, os.W_OK, effective_ids=True)


def _drop_old(folder: Path) -> None:
    """Remove the indexes that were not used for longest, and what is left over."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                if path.suffix == _SUFFIX:
                    found.append((about.st_mtime, about.st_size, path))
                elif about.st_mtime < time.time() - _LEFT_OVER:
                    path.unlink()
        total = 0
        for number, (_at, size, path) in enumerate(sorted(found, reverse=True)):
            total += size
            if number and (number >= _KEPT_MAX or total > _KEPT_BYTES_MAX):
                path.unlink(missing_ok=True)
