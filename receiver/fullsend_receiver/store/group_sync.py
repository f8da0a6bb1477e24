"""Syncs of one folder that several threads want at the same time: one serves all of them (group commit).

A request is served only by a sync that starts after it. So one that comes while a sync is running waits for the next
one, together with all others that come meanwhile. N streams that commit at once need two syncs of a folder that they
share, instead of N.
"""

from __future__ import annotations

import copy
import threading
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class GroupSync:
    """Makes paths durable, each by one sync at a time. Any number of threads may call it."""

    def __init__(self, sync: Callable[[Path], None]) -> None:
        """`sync`: makes a path durable, with all that was done to it before the call. Each call looks the path up."""
        self._sync = sync
        self._lock = threading.Lock()
        self._paths: dict[Path, _SharedPath] = {}  # those that are wanted at the moment

    def sync(self, path: Path) -> None:
        """Return when a sync of `path` has ended that began after this call. Blocks.

        Raises: what that sync raised, in every thread that it served.
        """
        while not self._served(path):
            pass

    def _served(self, path: Path) -> bool:
        """Sync, or take part in the next sync. Returns: False if that one was given up, by its thread alone."""
        with self._lock:
            shared = self._paths.setdefault(path, _SharedPath())
            shared.users += 1
            following = shared.following
            mine: Future[None] = Future()
            if following is None:
                shared.following = mine
        try:
            if following is None:
                self._lead(path, shared, mine)
                return True
            return _taken(following)
        finally:
            with self._lock:
                shared.users -= 1
                if not shared.users:
                    del self._paths[path]

    def _lead(self, path: Path, shared: _SharedPath, mine: Future[None]) -> None:
        """Sync for all that have asked by the time it begins."""
        try:
            with shared.running:
                with self._lock:
                    shared.following = None  # it begins now: who asks from here on waits for the next one
                self._sync(path)
        except Exception as error:
            mine.set_exception(error)
            raise
        except BaseException:  # of this thread alone, such as KeyboardInterrupt: another one syncs
            with self._lock:
                if shared.following is mine:
                    shared.following = None
            mine.cancel()
            raise
        mine.set_result(None)


class _SharedPath:
    """A path that at least one thread wants durable."""

    def __init__(self) -> None:
        self.users = 0  # threads that sync, or wait
        self.running = threading.Lock()  # held during a sync
        self.following: Future[None] | None = None  # the next sync, which has not begun


def _taken(sync: Future[None]) -> bool:
    """Wait for another thread's sync. Returns: whether it was done. Raises: a copy of what it raised."""
    try:
        sync.result()
    except CancelledError:
        return False
    except Exception as error:
        # One exception object in several threads would collect the tracebacks of all.
        raise copy.copy(error) from error
    return True
