"""Which uploads the processes of this host have open: a locked file each, in `home`.

It only tells. A process that writes to an upload that another one has taken over is refused by the bucket.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from fullsend_receiver.store.durable import is_locked, open_lock


class OpenUploads:
    """The open uploads, by key. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for the files; it is made with the first one."""
        self._folder = folder
        self._guard = threading.Lock()
        self._own: dict[str, list[int]] = {}  # descriptors, one for each time that this process has opened it

    def add(self, key: str) -> None:
        """This process has opened an upload. Raises: OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = open_lock(self._folder / key)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # the process that holds the lock has just lost the upload to this one, and ends soon
        except BaseException:
            os.close(descriptor)
            raise
        with self._guard:
            self._own.setdefault(key, []).append(descriptor)

    def discard(self, key: str) -> None:
        """This process has closed an upload."""
        with self._guard:
            descriptors = self._own.get(key, [])
            descriptor = descriptors.pop()
            if not descriptors:
                del self._own[key]
                (self._folder / key).unlink(missing_ok=True)
        os.close(descriptor)

    def has(self, key: str) -> bool:
        """Whether a process of this host has an upload open. Raises: OSError."""
        with self._guard:
            if key in self._own:
                return True
        try:
            return is_locked(self._folder / key)
        except FileNotFoundError:
            return False
