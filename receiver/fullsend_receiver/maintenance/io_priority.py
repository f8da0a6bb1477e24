"""The I/O priority of a thread, or of another process (ioprio_set(2)).

Only the schedulers that know priorities heed it: BFQ, and CFQ before it. With `none`, `kyber` and `mq-deadline` it has
no effect, or nearly none.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

#: The number of the system call, by machine (as in `uname -m`).
_NUMBERS: Final = {
    "x86_64": 251,
    "aarch64": 30,
    "riscv64": 30,
    "ppc64le": 273,
    "s390x": 282,
    "armv7l": 314,
    "i686": 289,
}
#: The lowest priority for the processor: setpriority(2).
_NICEST: Final = 19
_WHO_PROCESS: Final = 1  # of one thread; with 0 as its id: of the caller; the first thread has its process's id
_CLASS_SHIFT: Final = 13
_CLASS_NONE: Final = 0  # as its niceness says
_CLASS_IDLE: Final = 3  # only when nobody else has used the disk for a while


def step_back(process: int = 0) -> None:
    """Give the calling thread the lowest priorities, for processor and disk; or the first thread of another process.

    Nothing fails if it cannot be done: the process has ended, or the system does not allow it.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, _NICEST)  # on Linux of one thread
    set_idle(True, process)


def set_idle(idle: bool, process: int = 0) -> bool:  # noqa: FBT001 - what it sets
    """Make the calling thread's reads idle, or usual again; or those of the first thread of another process, by its id.

    Returns: whether the kernel has accepted it.
    """
    number = _NUMBERS.get(os.uname().machine)
    if number is None:
        return False
    value = (_CLASS_IDLE if idle else _CLASS_NONE) << _CLASS_SHIFT
    return bool(ctypes.CDLL(None).syscall(number, _WHO_PROCESS, process, value) == 0)
