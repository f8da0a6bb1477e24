"""Settings of the allocator, and of the search for cycles. With another C library than glibc the former do nothing.

Chunks are large blocks that come and go hundreds of times a second. At first glibc asks the system for each block of
128 KiB and more, and gives it back when it is freed. That keeps a process small, and costs it a third of its time,
because the kernel zeroes every page again. Then glibc adapts: each large block that is freed raises that size, up to
32 MiB, and the heaps of the threads keep what they once had. Measured with chunks of 20 MiB: an idle daemon held 123
MiB instead of 43. Setting the limits stops the adaptation.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

#: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of glibc (malloc.h).
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8


def keep_blocks(size: int, most: int) -> None:
    """Use one heap. Keep freed blocks of up to `size` bytes, and at most `most` bytes at the heap's end. Return larger
    blocks to the system at once. Call this before there are threads.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_THRESHOLD, size)
        library.mallopt(_TRIM_THRESHOLD, most)


def trim() -> None:
    """Return free pages within the heaps to the system. Takes some milliseconds, in which no thread can allocate.

    Connections that come and go leave holes: measured after 200 at once, 65 to 106 MiB instead of 44.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_objects() -> None:
    """Leave out of every later search for cycles what is there now, such as modules and models. Free what is a cycle
    already.

    Measured in the daemon, which searches whenever its last connection has ended: 2 ms a search instead of 25.
    """
    gc.collect()
    gc.freeze()
