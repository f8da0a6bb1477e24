"""A daemon on a disk that is slow, or fails, when a test wants it to; the code under test has no hook.

    disk = FaultyDisk(folder)
    receiver.start(program=disk.program, env=disk.env)
    with disk.blocked("fdatasync"): ...     # none returns before this is left
    with disk.blocked("fsync", ".partial"): ...     # none on a file whose name ends like this
    with disk.failing("fdatasync", ".data", errno.EIO): ...
    disk.set_clock(-86400)                  # this machine's clock is a day late from now on
    disk.set_size(64 << 20)                 # the store's disk has room for files of so many bytes, as far as it says
    disk.done("fdatasync", ".data")         # the sizes of the files, each time one was synced

This module is also the program: it replaces functions of `os` and runs the command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CALLS: Final = ("fdatasync", "fsync", "pread", "rename", "write")
_FOLDER: Final = "FULLSEND_TEST_FAULTS"
#: The errno values that the first connections end with, before they are accepted.
_ACCEPT: Final = "FULLSEND_TEST_ACCEPT"


class FaultyDisk:
    """What the test has to do with the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._trace = folder / "trace"
        self._trace.touch()
        for call in _CALLS:
            (folder / f"gate-{call}").touch()

    @property
    def program(self) -> list[Path]:
        return [Path(__file__)]

    @property
    def env(self) -> dict[str, str]:
        return {_FOLDER: str(self.folder)}

    @contextlib.contextmanager
    def blocked(self, call: str, suffix: str = "", *, after: int = 0) -> Iterator[None]:
        """No such call on a file whose name ends like this proceeds before the block is left; except the first `after`
        ones, counted from the daemon's start.
        """
        with (self.folder / f"gate-{call}").open("r+", encoding="utf-8") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            gate.write(f"{suffix}|{after}")
            gate.flush()
            try:
                yield
            finally:
                gate.truncate(0)

    @contextlib.contextmanager
    def failing(self, call: str, suffix: str, number: int) -> Iterator[None]:
        """Such calls on files whose name ends like this fail with this errno; 0: with something no call raises."""
        fault = self.folder / f"fail-{call}"
        fault.with_suffix(".new").write_text(f"{suffix}:{number}", encoding="utf-8")
        fault.with_suffix(".new").rename(fault)
        try:
            yield
        finally:
            fault.unlink()

    def set_clock(self, seconds: float) -> None:
        """From now on the time of day is so far from what it was."""
        clock = self.folder / "clock"
        clock.with_suffix(".new").write_text(str(seconds), encoding="utf-8")
        clock.with_suffix(".new").rename(clock)

    def set_size(self, size: int) -> None:
        """From now on the store's disk says that it has room for files of so many bytes in all."""
        file = self.folder / "size"
        file.with_suffix(".new").write_text(str(size), encoding="utf-8")
        file.with_suffix(".new").rename(file)

    def begun(self, call: str, suffix: str) -> int:
        """How many such calls have been made, also those that wait now."""
        return len(self._lines("begin", call, suffix))

    def done(self, call: str, suffix: str) -> list[int]:
        """For each such call that has come back: the size that the file had when it was made."""
        return [int(line[3]) for line in self._lines("done", call, suffix)]

    def _lines(self, what: str, call: str, suffix: str) -> list[list[str]]:
        lines = [line.split() for line in self._trace.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line[:2] == [what, call] and line[2].endswith(suffix)]


# --- the program ------------------------------------------------------------------------------------------------


def _faulty(folder: Path, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    trace = os.open(folder / "trace", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    write = os.write  # the real one: this runs before it is replaced

    def call(target: Any, *arguments: Any, **options: Any) -> Any:
        path = Path(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target)
        if folder.parent not in path.parents:  # a pipe, a socket, the log
            return real(target, *arguments, **options)
        size = path.stat().st_size
        write(trace, f"begin {name} {path.name} {size}\n".encode())
        with (folder / f"gate-{name}").open(encoding="utf-8") as gate:
            suffix, _, after = gate.read().partition("|")
            if path.name.endswith(suffix) and _begun(folder, name, suffix) > int(after or 0):
                fcntl.flock(gate, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            suffix, number = (folder / f"fail-{name}").read_text(encoding="utf-8").split(":")
            if path.name.endswith(suffix) and not int(number):
                raise RuntimeError("a bug, for a test")
            if path.name.endswith(suffix):
                raise OSError(int(number), os.strerror(int(number)))
        result = real(target, *arguments, **options)
        write(trace, f"done {name} {path.name} {size}\n".encode())
        return result

    return call


def _begun(folder: Path, name: str, suffix: str) -> int:
    lines = (line.split() for line in (folder / "trace").read_text(encoding="utf-8").splitlines())
    return sum(line[:2] == ["begin", name] and line[2].endswith(suffix) for line in lines)


def _clock(folder: Path) -> Callable[[], float]:
    real = time.time

    def now() -> float:
        with contextlib.suppress(FileNotFoundError):
            return real() + float((folder / "clock").read_text(encoding="utf-8"))
        return real()

    return now


def _disk_usage(folder: Path) -> Callable[[Path], Any]:
    real = shutil.disk_usage

    def usage(store: Path) -> Any:
        try:
            size = int((folder / "size").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return real(store)
        used = 0
        for path in store.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                used += path.stat().st_size if path.is_file() else 0
        free = max(0, size - used)
        return real(store)._replace(total=size, used=size - free, free=free)

    return usage


def _accept(failures: list[int]) -> Callable[[socket.socket], Any]:
    real = socket.socket.accept

    def accept(self: socket.socket) -> Any:
        accepted = real(self)
        if not failures:
            return accepted
        accepted[0].close()
        number = failures.pop()
        raise OSError(number, os.strerror(number))

    return accept


def main() -> None:
    folder = Path(os.environ[_FOLDER])
    socket.socket.accept = _accept([int(number) for number in os.environ.get(_ACCEPT, "").split()])  # type: ignore[assignment, method-assign]
    faulty = {name: _faulty(folder, name, getattr(os, name)) for name in _CALLS}
    for name, call in faulty.items():
        setattr(os, name, call)
    time.time = _clock(folder)
    shutil.disk_usage = _disk_usage(folder)  # type: ignore[assignment]
    from fullsend_receiver.cli.main import main as fullsendd

    sys.exit(fullsendd(sys.argv[1:]))


if __name__ == "__main__":
    main()
