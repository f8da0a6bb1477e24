"""Both ends of a pipe, as a thread reads or writes them: blocking, and yet to be stopped at any moment.

A thread that blocks in read(2) or write(2) cannot be woken from outside, so it would outlive the task that cancelled
its work. These wait in poll(2) instead, for the pipe or for `stop`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
from typing import Final

#: What a pipe is asked to hold: the most that Linux gives without privilege. A writer that fills it in one go wakes
#: us sixteen times less often than with the 64 KiB a pipe has by itself.
PIPE_SIZE: Final = 1 << 20


class Stopped(Exception):  # noqa: N818 - no error: somebody called `stop`
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
        """Return when the descriptor is ready, or has failed: using it tells. Raises: Stopped."""
        if not self._stopped and not self.wrong_end:
            self._poll.poll()
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Make this and every later `wait` raise Stopped. From any thread, any number of times."""
        self._stopped = True
        os.write(self._wake_write, b"!")

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


class Source:
    """The end that is read. The descriptor stays the caller's. `at_end`: it has been read to its end."""

    def __init__(self, fd: int) -> None:
        self.at_end = False
        self._fd = fd
        self._waiter = _Waiter(fd, select.POLLIN)
        _enlarge(fd)

    def readinto(self, view: memoryview) -> int:
        """Read what is there, at least one byte. Returns: bytes read, 0 at the end. Raises: OSError, Stopped."""
        while True:
            self._waiter.wait()
            with contextlib.suppress(BlockingIOError):  # a descriptor that somebody else made non-blocking
                count = os.readv(self._fd, [view])
                self.at_end = not count
                return count

    def drain(self) -> int:
        """Read to the end and forget. Returns: bytes read. Raises: OSError, Stopped."""
        view = memoryview(bytearray(PIPE_SIZE))
        total = 0
        while count := self.readinto(view):
            total += count
        return total

    def stop(self) -> None:
        """Make this and every later read raise Stopped. From any thread."""
        self._waiter.stop()

    def close(self) -> None:
        """Let go of what waiting took. Nobody may be reading any more."""
        self._waiter.close()


class Sink:
    """The end that is written. The descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiter = _Waiter(fd, select.POLLOUT)
        self._own: int | None = None
        self._piece = PIPE_SIZE
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) and not self._waiter.wrong_end:
            _enlarge(fd)
            # A ready pipe may have room for one page only, and a larger write would block beyond the reach of `stop`.
            # O_NONBLOCK on the descriptor itself would reach everybody who shares it; opened anew it is ours alone.
            try:
                self._own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                self._piece = select.PIPE_BUF
        elif not stat.S_ISREG(mode) and not os.path.samestat(os.fstat(fd), os.stat(os.devnull)):
            self._piece = select.PIPE_BUF

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all. Raises: OSError (BrokenPipeError where nobody reads any more), Stopped."""
        fd = self._fd if self._own is None else self._own
        view = memoryview(data)
        while view:
            self._waiter.wait()
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(fd, view[: self._piece]) :]

    def stop(self) -> None:
        """Make this and every later write raise Stopped. From any thread."""
        self._waiter.stop()

    def close(self) -> None:
        """Let go of what waiting took. Nobody may be writing any more."""
        self._waiter.close()
        if self._own is not None:
            os.close(self._own)


def _enlarge(fd: int) -> None:
    with contextlib.suppress(OSError):  # no pipe, or the user's share of pipe memory is used up
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
