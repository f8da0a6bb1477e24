"""Files out of a stored stream: a list of a million of them, the first time and again, and one very large file.

The streams are made while they are pushed (`file_streams.py`). `fullsendd ls` and `get` run as users run them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import report
from bench.data import MIB
from bench.file_streams import A_FOLDER
from bench.fullsend_hosts import Receiver, Sender
from bench.measure import BenchError, Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report import Results

_FILES: Final = 1_000_000
_FILES_QUICK: Final = 20_000
_LARGE: Final = 100 << 30
_LARGE_QUICK: Final = 1 << 30
_PRODUCER: Final = Path(__file__).with_name("file_streams.py")
_COLUMNS: Final = ("", "seconds", "CPU s", "MiB")


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a command took. `peak`: bytes of memory."""

    seconds: float
    cpu: float
    peak: int

    def row(self, what: str) -> list[str]:
        return [what, f"{self.seconds:.2f}", f"{self.cpu:.2f}", f"{self.peak / MIB:.0f}"]


def file_reading(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Store a stream of many files, and one of a large file; read both."""
    files, large = (_FILES_QUICK, _LARGE_QUICK) if quick else (_FILES, _LARGE)
    receiver = Receiver(folder / "files")
    with receiver.service():
        sender = Sender(folder / "files-sender", receiver, "alpha")
        for kind, count in (("many", files), ("one", large)):
            say(f"pushing {kind} {count:,}")
            Child(sender.push_command(level="1"), source=[sys.executable, _PRODUCER, kind, str(count)]).wait()
    stored = "alpha/tank/many@now"
    rows = []

    def take(what: str, *arguments: str, lines: int | None = None, size: int = 0) -> float:
        spent, got_lines, got_size = _spent(receiver, arguments)
        if lines not in {None, got_lines} or got_size < size:
            msg = f"fullsendd {' '.join(arguments)} gave {got_lines} lines, {got_size} bytes"
            raise BenchError(msg)
        rows.append(spent.row(what))
        say(", ".join(rows[-1]))
        return spent.seconds

    some = f"/d{files // A_FOLDER - 1}"
    take(f"ls of a folder of {files:,} files, the first time", "ls", stored, some, lines=A_FOLDER)
    again = [take("the same, again", "ls", stored, some, lines=A_FOLDER) for _time in range(3)]
    results.budgets.append(report.Budget(f"ls of a folder of {files:,} files, again", 1.0, again, " s", at_least=False))
    take("ls -l of a folder", "ls", "-l", stored, some, lines=A_FOLDER)
    take("ls -R of all", "ls", "-R", stored, lines=files + files // A_FOLDER)
    large_name = f"a file of {large >> 30} GiB"
    take(f"ls of {large_name}, the first time", "ls", "alpha/tank/one@now", lines=1)
    take("the same, again", "ls", "alpha/tank/one@now", lines=1)
    take(f"get --tar of {large_name}", "get", "--tar", "alpha/tank/one@now", "/large", size=large)
    legend = "`fullsendd` as a whole, with its start. MiB: peak of memory. 63 of 64 MiB of the large file are zeros."
    results.tables.append(report.Table("Files out of a stored stream", _COLUMNS, rows, legend))


def _spent(receiver: Receiver, arguments: tuple[str, ...]) -> tuple[_Spent, int, int]:
    """Run a command of fullsendd. Returns: also the lines and bytes of its stdout. Raises: BenchError."""
    began = time.monotonic()
    process = subprocess.Popen([*receiver.program, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = size = 0
    with process.stdout as out:
        while data := os.read(out.fileno(), MIB):
            size += len(data)
            if arguments[0] == "ls":
                lines += data.count(b"\n")
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        msg = f"fullsendd {' '.join(arguments)} ended with {process.returncode}"
        raise BenchError(msg)
    cpu = usage.ru_utime + usage.ru_stime
    return _Spent(time.monotonic() - began, cpu, usage.ru_maxrss << 10), lines, size
