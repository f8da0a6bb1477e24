"""What is being read: one file in STORE/.state/reading for each reader, locked (flock) while the reader lives.

A file has a line for each stream that was read, relative to the store. A removal reads these files while it holds the
store's lock. A reader that ends, or dies, leaves its file, which counts for an hour: a restore that has lost its
connection comes back, and needs the next stream of its chain.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_receiver.store.durable import lock_now, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_receiver.store.layout import Layout

#: Seconds for which a file without a reader counts.
_LINGERS: Final = 3600.0


class LocalHold:
    """A `Hold`: a file, made with the first stream."""

    def __init__(self, store: Layout) -> None:
        """Writes nothing yet."""
        self._store = store
        self._descriptor = -1
        self._files: set[PurePosixPath] = set()
        self._torn = False  # the last line may have broken off, on a full disk

    def add(self, file: PurePosixPath) -> None:
        """Add a stream. See `Hold.add`."""
        if file in self._files:
            return
        if self._descriptor < 0:
            self._open()
        torn, self._torn = self._torn, True
        write_all(self._descriptor, os.fsencode(f"\n{file}\n" if torn else f"{file}\n"))
        self._torn = False
        self._files.add(file)

    def close(self) -> None:
        """End the hold. See `Hold.close`."""
        descriptor, self._descriptor = self._descriptor, -1
        self._files.clear()
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.utime(descriptor)  # the hour begins now
            os.close(descriptor)

    def _open(self) -> None:
        self._store.reading.mkdir(mode=0o700, exist_ok=True)
        for path, held in _files(self._store):  # so that their number has a limit
            if not held:
                path.unlink(missing_ok=True)
        path = self._store.reading / secrets.token_hex(8)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)


def held(store: Layout) -> set[PurePosixPath]:
    """Return the streams of all holds. See `Store.held`."""
    found: set[PurePosixPath] = set()
    for path, counts in _files(store):
        if counts:
            with contextlib.suppress(FileNotFoundError):
                # A line that is not whole is that of a reader that has not looked for its stream yet.
                whole = path.read_bytes().rpartition(b"\n")[0]
                found.update(PurePosixPath(os.fsdecode(line)) for line in whole.splitlines() if line)
    return found


def _files(store: Layout) -> Iterator[tuple[Path, bool]]:
    """Yield the files of holds, each with whether it still counts."""
    try:
        paths = sorted(store.reading.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # Also a file of the future, which a wrong clock has made: it counts until its reader is gone.
                recent = 0 <= time.time() - os.fstat(descriptor).st_mtime < _LINGERS
                yield path, recent or not lock_now(descriptor, fcntl.LOCK_SH)
            finally:
                os.close(descriptor)
