"""Whether a time server has set this host's clock since its start: what the kernel says (adjtimex(2)), or a file.

A host without a battery for its clock, such as a Raspberry Pi, starts with the time of its last shutdown. Each service
that follows a time server tells the kernel when it has set the clock. The sandbox of fullsendd.service has no adjtimex
(`ProtectClock=`), and some containers have none; there the file counts that systemd-timesyncd makes in /run.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

#: The flag of the kernel's clock that no time server has set.
_STA_UNSYNC: Final = 0x0040
#: The folder of a running systemd-timesyncd. It makes the file `synchronized` there when it has set the clock.
_TIMESYNC: Final = Path("/run/systemd/timesync")
#: Bytes behind the last field of `struct timex` that is read here; the kernel and libc write at most this much.
_REST: Final = 256


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`."""

    _fields_ = (
        ("modes", ctypes.c_uint),  # 0: change nothing
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * _REST),
    )


def is_synchronised(timesync: Path = _TIMESYNC) -> bool | None:
    """Whether a time server has set the clock since this host's start; None: nobody says. `timesync`: the folder of
    systemd-timesyncd.
    """
    try:
        if (timesync / "synchronized").exists():
            return True
        status = kernel_status()
        if status is not None:
            return not status & _STA_UNSYNC
        return False if timesync.exists() else None
    except OSError:
        return None


def kernel_status() -> int | None:
    """Return the status flags of the kernel's clock; None: this process cannot ask for them."""
    state = _Timex()
    try:
        code = ctypes.CDLL(None).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError):  # a libc without it
        return None
    return None if code < 0 else int(state.status)
