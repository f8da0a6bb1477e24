"""A child process, started in about a millisecond. A night of a thousand datasets starts ten thousand of them.

uvloop forks, which copies this process's page tables: 5 to 17 ms a process, more with more memory, while the event loop
stands still. posix_spawn(3) copies none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PIPE: Final = asyncio.subprocess.PIPE
DEVNULL: Final = asyncio.subprocess.DEVNULL

#: The exit status of a process whose real one is lost. It is no success.
_LOST: Final = 255

#: Bytes that are read at a time.
_READ: Final = 64 << 10
#: Python ignores some signals, and a parent may have ignored others. A child begins with none ignored but SIGHUP: with
#: `nohup` the process and its children outlive the terminal.
_SIGNALS: Final = frozenset(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP})


class ChildProcess:
    """A running process. Made by `start`. `returncode`: its exit status; negative: the signal that killed it; None: it
    has not ended. `stdout`: None unless it is a pipe; `stderr`.
    """

    def __init__(
        self, pid: int, stdout: asyncio.StreamReader | None, stderr: asyncio.StreamReader, pipes: list[_Pipe]
    ) -> None:
        self.returncode: int | None = None
        self.stdout = stdout
        self.stderr = stderr
        self._pipes = pipes
        self._pid = pid
        self._descriptor = -1  # readable once it has ended
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):  # neither each system nor each kernel has it
            threading.Thread(target=self._wait_in_thread, name=f"waits for {pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._descriptor, self._reap)

    async def wait(self) -> int:
        """Wait for its end. Returns: its exit status."""
        await self._ended.wait()
        assert self.returncode is not None  # noqa: S101 - for mypy; set before the event
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM. Raises: ProcessLookupError if it has ended; PermissionError."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL. Raises: as `terminate`."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Close this end of its pipes, which a process that outlives it may have, too. Nothing waits for it then."""
        for pipe in self._pipes:
            pipe.close()
        self._forget()

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is not None:  # the number may be another process's by now
            raise ProcessLookupError
        os.kill(self._pid, number)

    def _reap(self) -> None:
        self._forget()
        self._end(_exit_status(self._pid))

    def _wait_in_thread(self) -> None:
        status = _exit_status(self._pid)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._end, status)

    def _end(self, status: int) -> None:
        self.returncode = status
        self._ended.set()

    def _forget(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class _Pipe:
    """What a process writes: its end of a pipe, and what reads ours.

    `connect_read_pipe` is not used: uvloop closes the descriptor, and then the file object, which closes the same
    number again. By then it may belong to a file of another thread.
    """

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self._loop = asyncio.get_running_loop()
        self._read, self.theirs = os.pipe()
        os.set_blocking(self._read, False)
        self._loop.add_reader(self._read, self._receive)

    def _receive(self) -> None:
        try:
            data = os.read(self._read, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.reader.set_exception(error)
            self._close_ours()
            return
        if data:
            self.reader.feed_data(data)
        else:
            self._close_ours()

    def _close_ours(self) -> None:
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1
            self.reader.feed_eof()

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.close_theirs()
        self._close_ours()


def start(*command: str, stdin: int, stdout: int, env: Mapping[str, str]) -> ChildProcess:
    """Start a process whose stderr is a pipe. A program's name without a slash is looked up in the PATH of `env`. The
    event loop must run.

    `stdin`: a descriptor from which it reads, or DEVNULL; `stdout`: one to which it writes, DEVNULL or PIPE. Standard
    input, output and error of this process must be open. Raises: OSError; FileNotFoundError: there is no such program.
    """
    program = command[0] if "/" in command[0] else shutil.which(command[0], path=env["PATH"])
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    pipes: list[_Pipe] = []
    try:
        pipes.append(errors := _Pipe())
        output = None
        if stdout == PIPE:
            pipes.append(output := _Pipe())
            stdout = output.theirs
        _make_reapable()
        pid = os.posix_spawn(
            program,
            command,
            env,
            file_actions=[_as(0, stdin, os.O_RDONLY), _as(1, stdout, os.O_WRONLY), _as(2, errors.theirs, os.O_WRONLY)],
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
    except BaseException:
        for pipe in pipes:
            pipe.close()
        raise
    for pipe in pipes:
        pipe.close_theirs()
    return ChildProcess(pid, None if output is None else output.reader, errors.reader, pipes)


def _as(number: int, descriptor: int, flags: int) -> tuple[int, ...] | tuple[int, int, str, int, int]:
    """Return the file action that makes a descriptor the child's `number`."""
    if descriptor == DEVNULL:
        return (os.POSIX_SPAWN_OPEN, number, os.devnull, flags, 0)
    return (os.POSIX_SPAWN_DUP2, descriptor, number)


def _make_reapable() -> None:
    """If a parent has ignored SIGCHLD, the kernel would throw exit statuses away."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _exit_status(pid: int) -> int:
    """Return the exit status of a process; it is waited for."""
    try:
        _pid, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return _LOST
    return os.waitstatus_to_exitcode(status)
