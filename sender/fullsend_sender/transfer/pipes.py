"""Both ends of a pipe for threads that read or write: blocking, but `stop` ends the wait at any time.

A thread that blocks in read(2) or write(2) cannot be woken from outside, so it would outlive the task that cancelled
its work. These classes wait in poll(2) instead, for the pipe or for `stop`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
from typing import Final

#: The requested size of a pipe: the most that Linux permits without privilege. A writer that fills it at once wakes the
#: reader sixteen times less often than with the default of 64 KiB.
PIPE_SIZE: Final = 1 << 20


class PipeStopped(Exception):  # noqa: N818 - not an error: `stop` was called
    """`stop` was called."""


class _Waiter:
    """Waits for one descriptor, or for `stop`."""

    def __init__(self, fd: int, events: int) -> None:
        self._wake_read, self._wake_write = os.pipe()
        self._stopped = False
        # poll(2) would wait forever for a pipe's wrong end.
        wrong = os.O_WRONLY if events == select.POLLIN else os.O_RDONLY
        self.wrong_end = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == wrong
        self._poll = select.poll()
        self._poll.register(fd, events)
        self._poll.register(self._wake_read, select.POLLIN)

    def wait(self) -> None:
        """Return when the descriptor is ready, or has failed: using it shows which. Raises: PipeStopped."""
        if not self._stopped and not self.wrong_end:
            self._poll.poll()
        if self._stopped:
            raise PipeStopped

    def stop(self) -> None:
        """Make this and every later `wait` raise PipeStopped. From any thread, any number of times."""
        self._stopped = True
        os.write(self._wake_write, b"!")

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


class Source:
    """The end that is read. The caller keeps the descriptor. `at_end`: it was read to its end."""

    def __init__(self, fd: int) -> None:
        self.at_end = False
        self._fd = fd
        self._waiter = _Waiter(fd, select.POLLIN)
        _enlarge(fd)

    def readinto(self, view: memoryview) -> int:
        """Read what is there, at least one byte. Returns: bytes read, 0 at the end. Raises: OSError, PipeStopped."""
        while True:
            self._waiter.wait()
            with contextlib.suppress(BlockingIOError):  # another program made the descriptor non-blocking
                count = os.readv(self._fd, [view])
                self.at_end = not count
                return count

    def drain(self) -> int:
        """Read to the end and discard. Returns: bytes read. Raises: OSError, PipeStopped."""
        view = memoryview(bytearray(PIPE_SIZE))
        total = 0
        while count := self.readinto(view):
            total += count
        return total

    def stop(self) -> None:
        """Make this and every later read raise PipeStopped. From any thread."""
        self._waiter.stop()

    def close(self) -> None:
        """Free the resources. No thread may be reading any more."""
        self._waiter.close()


class Sink:
    """The end that is written. The caller keeps the descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiter = _Waiter(fd, select.POLLOUT)
        self._own: int | None = None
        self._piece = PIPE_SIZE
        mode = os.fstat(fd).st_mode
        self._is_file = stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) and not self._waiter.wrong_end:
            _enlarge(fd)
            # A ready pipe may have room for one page only, and `stop` could not end a larger write. O_NONBLOCK on the
            # descriptor itself would affect every process that shares it; a newly opened one is separate.
            try:
                self._own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                self._piece = select.PIPE_BUF
        elif not self._is_file and not os.path.samestat(os.fstat(fd), os.stat(os.devnull)):
            self._piece = select.PIPE_BUF

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all. Raises: OSError (BrokenPipeError if the reader has closed it), PipeStopped."""
        fd = self._fd if self._own is None else self._own
        view = memoryview(data)
        while view:
            self._waiter.wait()
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(fd, view[: self._piece]) :]

    def finish(self) -> None:
        """Note the end of the data. Raises: OSError if a file has not kept them: a network file system that is full,
        and a disk that fails, take them first.
        """
        if self._is_file:
            os.fsync(self._fd)

    def stop(self) -> None:
        """Make this and every later write raise PipeStopped. From any thread."""
        self._waiter.stop()

    def close(self) -> None:
        """Free the resources. No thread may be writing any more."""
        self._waiter.close()
        if self._own is not None:
            os.close(self._own)


def _enlarge(fd: int) -> None:
    with contextlib.suppress(OSError):  # not a pipe, or the user's limit of pipe memory is reached
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
