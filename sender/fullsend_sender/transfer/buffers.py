"""Memory for chunks in flight: recycled, and never more than a limit, however fast the producer is.

A chunk counts with the capacity of its buffer from its first byte until its frame is taken. A caller that needs more
than is left waits. (A frame may be as large as its chunk, so recycling a buffer does not release its bytes.)
"""

from __future__ import annotations

import threading
from typing import Final

from fullsend_protocol.shared import limits
from fullsend_sender.transfer.pipes import PipeStopped

#: Bytes: a chunk of CHUNK_MIN and the record at its end, with blocks of up to 1 MiB. Nearly every chunk fits.
FIRST: Final = limits.CHUNK_MIN + limits.MIB + (4 << 10)
#: Bytes by which a buffer grows; CHUNK_MAX is reached in three steps.
STEP: Final = 5 * limits.MIB + (1 << 10)
LARGEST: Final = FIRST + 3 * STEP
#: Free buffers that are kept. They are not counted, so they must be few.
_KEEP: Final = 2


class Buffer:
    """Memory for one chunk."""

    def __init__(self) -> None:
        self.data = bytearray(FIRST)
        self.view = memoryview(self.data)

    @property
    def capacity(self) -> int:
        """Bytes of memory: what the buffer counts for."""
        return len(self.data)

    def grow(self) -> None:
        self.view.release()  # a bytearray with a view on it does not grow
        self.data.extend(bytes(STEP))
        self.view = memoryview(self.data)


class Buffers:
    """All buffers of a pipeline. Safe for threads."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes, at least LARGEST, or the largest chunk could never be read."""
        if limit < LARGEST:
            raise ValueError(limit)
        self._limit = limit
        self._used = 0
        self._free: list[Buffer] = []
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def used(self) -> int:
        """Bytes that count now."""
        return self._used

    def take(self) -> Buffer:
        """Return a buffer, as soon as there is room for it. Raises: PipeStopped."""
        self._pay(FIRST)
        with self._changed:
            return self._free.pop() if self._free else Buffer()

    def grow(self, buffer: Buffer) -> None:
        """Give a buffer STEP bytes more, as soon as there is room for them. Raises: PipeStopped."""
        self._pay(STEP)
        buffer.grow()

    def recycle(self, buffer: Buffer) -> None:
        """Take back a buffer whose bytes are no longer needed. It still counts."""
        with self._changed:
            if buffer.capacity == FIRST and len(self._free) < _KEEP:
                self._free.append(buffer)

    def release(self, size: int) -> None:
        """Stop counting `size` bytes."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def stop(self) -> None:
        """Make this and every later wait raise PipeStopped."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _pay(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._used + size <= self._limit)
            if self._stopped:
                raise PipeStopped
            self._used += size
