"""The memory of a push, and what follows from it: how many threads compress, and what zstd may take.

    all of a push = INTERPRETER + for each job: WINDOW + raw in flight + threads x (a frame + zstd's context)

Up to four threads are within BUDGET. Each one more costs THREAD_COSTS, where the host has memory for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, Level, compression_memory
from fullsend_sender.transfer.buffers import FIRST
from fullsend_sender.transfer.window import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a push may take, unless the user sets a high level, more threads or several jobs.
BUDGET: Final = 160 * limits.MIB
#: Interpreter and libraries, approximately; the rest is computed.
_INTERPRETER: Final = 50 * limits.MIB
#: Bytes of raw stream in flight, at least. It holds the largest chunk (20 MiB), or four buffers: one being read, one
#: being sent, two in the threads.
RAW_IN_FLIGHT: Final = 24 * limits.MIB
#: As many threads as the budget has room for.
_THREADS_IN_BUDGET: Final = 4
#: Each thread more takes a buffer, a frame of up to the same size, and zstd's context at level 6.
THREAD_COSTS: Final = 2 * FIRST + 3 * limits.MIB
#: ... of which those of all jobs may take this part of the host's memory; ZFS wants the rest.
_PART_OF_MEMORY: Final = 64
#: One thread reads and hashes, and cannot feed more than these.
_THREADS_MOST: Final = 16


def raw_in_flight(threads: int) -> int:
    """Return the bytes of raw stream in flight that keep this many threads busy."""
    return max(RAW_IN_FLIGHT, (threads + 2) * FIRST)


def default_threads(jobs: int = 1) -> int:
    """Return the default number of compressing threads of each of so many jobs: one for each permitted CPU, up to four;
    beyond these as many as a 64th of the host's memory holds.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    more = memory // _PART_OF_MEMORY // jobs // THREAD_COSTS
    return min(len(os.sched_getaffinity(0)), _THREADS_IN_BUDGET + more, _THREADS_MOST)


def _without_contexts(threads: int) -> int:
    return WINDOW + raw_in_flight(threads) + threads * limits.CHUNK_MIN


def contexts(threads: int) -> int:
    """Return the bytes that zstd's contexts may take in all threads of a job with `--level auto`."""
    more = max(0, threads - _THREADS_IN_BUDGET) * THREAD_COSTS
    return BUDGET + more - _INTERPRETER - _without_contexts(threads)


def room_for_levels(threads: int) -> int:
    """Return the bytes of `contexts` that are left beside one context of the fastest level for each thread."""
    return contexts(threads) - threads * compression_memory(LIGHT)


def compressing(threads: int, levels: Iterable[Level]) -> dict[Level, int]:
    """Return how many threads have room to compress at the same time with each of these levels, for `--level auto`.
    Levels without room for one thread are left out.
    """
    room = room_for_levels(threads)
    fitting = {level: min(threads, room // compression_memory(level)) for level in levels}
    fitting |= dict.fromkeys((LIGHT, LEVEL_DEFAULT), threads)
    return {level: fitting[level] for level in levels if fitting[level] > 0}


def push_memory(level: Level | None, threads: int, jobs: int) -> int:
    """Return the bytes that a push takes at most. `level`: None for `--level auto`."""
    taken = contexts(threads) if level is None else threads * compression_memory(level)
    return _INTERPRETER + jobs * (_without_contexts(threads) + taken)
