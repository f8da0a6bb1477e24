"""Python imports this by itself where its folder is on the path: it makes a daemon that breaks its promises.

FULLSEND_POWERCUT_BREAK says how, to see whether the test finds it:

    sync        nothing is synced
    data        the frames of a partial are not; its journal is
    folders     names are not
"""

from __future__ import annotations

import os
import stat
from typing import Any, Final

_BREAK: Final = os.environ["FULLSEND_POWERCUT_BREAK"]
_REAL: Final = {name: getattr(os, name) for name in ("fsync", "fdatasync")}


def _is_broken(descriptor: int) -> bool:
    match _BREAK:
        case "sync":
            return True
        case "data":
            return os.readlink(f"/proc/self/fd/{descriptor}").endswith(".data")
        case "folders":
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        case _:
            raise ValueError(_BREAK)


def _fsync(descriptor: Any) -> None:
    if not _is_broken(descriptor):
        _REAL["fsync"](descriptor)


def _fdatasync(descriptor: Any) -> None:
    if not _is_broken(descriptor):
        _REAL["fdatasync"](descriptor)


os.fsync = _fsync  # type: ignore[assignment]
os.fdatasync = _fdatasync  # type: ignore[assignment]
