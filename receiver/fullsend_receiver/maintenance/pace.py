"""How fast the daemon's own checks read: a rate, and pauses while arriving streams wait for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

#: Seconds between two looks at a busy disk.
_LOOK_EVERY: Final = 1.0


class Pace:
    """The pace of one reader. Only one thread at a time may use it."""

    def __init__(self, rate: int, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: bytes a second, 0: no limit; `busy`: whether the disk is needed by others; `clock`: seconds."""
        self._rate = rate
        self._busy = busy
        self._clock = clock
        self._next = clock()
        self._changing = threading.Lock()

    def change(self, rate: int) -> None:
        """Read at this rate from now on. Any thread may call it. A wait by the old rate must be interrupted."""
        with self._changing:
            self._rate = rate
            self._next = self._clock()

    def keep(self, count: int, interrupt: threading.Event) -> None:
        """Wait before the next read. `count`: bytes that were read since the last call; `interrupt`: ends the wait.
        What could have been read during a pause is not made up for.
        """
        with self._changing:
            wait = 0.0
            if self._rate:
                now = self._clock()
                self._next = max(self._next + count / self._rate, now)
                wait = self._next - now
        if wait > 0:
            interrupt.wait(wait)
        while self._busy() and not interrupt.wait(_LOOK_EVERY):
            pass
