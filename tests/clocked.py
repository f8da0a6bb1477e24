"""Programs with a wall clock that a test sets: `python -m tests.clocked FILE MODULE ARGUMENTS`.

It replaces `time.time` before the program is imported, so the program has no setting for it. Clocks that measure
durations stay as they are.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

_FORMAT = struct.Struct("d")


@dataclass(frozen=True)
class Clock:
    """A clock in a file. It stands still until it is set."""

    file: Path

    def set(self, epoch: float) -> None:
        with self.file.open("r+b" if self.file.exists() else "w+b") as file:
            file.write(_FORMAT.pack(epoch))

    def here(self) -> AbstractContextManager[object]:
        """Make `time.time` of this process return it."""
        return patch.object(time, "time", _reader(self.file))

    def command(self, module: str, *arguments: str) -> list[str]:
        """How to start a program with it."""
        return [sys.executable, "-m", "tests.clocked", str(self.file), module, *arguments]


def _reader(path: Path) -> Callable[[], float]:
    with path.open("rb") as file:
        seen = mmap.mmap(file.fileno(), _FORMAT.size, prot=mmap.PROT_READ)

    def now() -> float:
        found: float = _FORMAT.unpack_from(seen)[0]
        return found

    return now


if __name__ == "__main__":
    _file, _module, *_arguments = sys.argv[1:]
    time.time = _reader(Path(_file))
    sys.argv[1:] = _arguments
    runpy.run_module(_module, run_name="__main__", alter_sys=True)
