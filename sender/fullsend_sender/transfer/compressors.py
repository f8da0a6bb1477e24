"""zstd's contexts, shared by the threads that compress, within the memory that memory.py has for them."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from fullsend_protocol.stream.chunks import LIGHT, Compressor, Level, compression_memory

if TYPE_CHECKING:
    from collections.abc import Generator


class Compressors:
    """Contexts that are lent to one thread at a time. Safe for threads; a thread must not borrow two at a time.

    Those of LIGHT are small, used for each chunk, and do not count.
    """

    def __init__(self, room: int | None = None) -> None:
        """`room`: bytes of all contexts but those of LIGHT; None: no limit."""
        self._room = room
        self._free: defaultdict[Level, list[Compressor]] = defaultdict(list)
        self._lent = 0  # bytes
        self._returned = threading.Condition()

    @contextlib.contextmanager
    def lend(self, level: Level) -> Generator[Compressor]:
        """Lend a context while the block runs. Waits while there is no room for it. One always fits."""
        size = _counts(level)
        with self._returned:
            self._returned.wait_for(lambda: not size or not self._lent or self._fits(self._lent + size))
            self._lent += size
            lent = self._free[level].pop() if self._free[level] else None
            self._make_room()
        try:
            lent = lent or Compressor(level)
            yield lent
        finally:
            with self._returned:
                self._lent -= size
                if lent is not None:
                    self._free[level].append(lent)
                self._returned.notify_all()

    def _fits(self, size: int) -> bool:
        return self._room is None or size <= self._room

    def _make_room(self) -> None:
        """Free contexts that nobody uses, until all fit."""
        unused = {level: _counts(level) * len(free) for level, free in self._free.items()}
        for level in unused:
            if self._fits(self._lent + sum(unused.values())):
                return
            self._free[level].clear()
            unused[level] = 0


def _counts(level: Level) -> int:
    """Return the bytes that a context counts for."""
    return 0 if level == LIGHT else compression_memory(level)
