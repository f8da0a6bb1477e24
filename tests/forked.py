"""Programs that start without their imports, which take longer than all else that most of them do here.

For each program (`fullsend_sender`, `fullsend_receiver`) there is a process that has imported it, and nothing of the
other one. It forks for each run. So a run is a process of its own: it can be killed, and it leaves this one as it was.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import math
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Bytes of a request: arguments and environment.
_MAX_REQUEST: Final = 1 << 20


class Program:
    """A run that was started here: what the tests use of subprocess.Popen."""

    def __init__(self, name: str, pid: int, status: IO[str]) -> None:
        self.args = [name]
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float = math.inf) -> int:
        """Wait until it has ended, for at most this many seconds. Raises: subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float) -> int | None:
        if self.returncode is None and self._ended(timeout):
            self.returncode = int(self._status.read())
            self._status.close()
        return self.returncode

    def _ended(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        return bool(poll.poll(None if timeout == math.inf else math.ceil(timeout * 1000)))


def start(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: IO[bytes],
    stdout: IO[bytes],
    stderr: IO[bytes],
    strict: bool = False,
    user: tuple[int, int] | None = None,
) -> Program:
    """Start `python -m MODULE ARGUMENTS` with this environment and these files, in the present working directory.

    `strict`: warnings are errors, as by `python -W error`; `user`: run with these numbers of a user and a
    group, which only root may. Coverage measures it where the environment says so.
    """
    forker = _forker(module)
    read, write = os.pipe()
    request = json.dumps([list(arguments), dict(env), os.getcwd(), strict, user]).encode()
    try:
        socket.send_fds(forker, [request], [stdin.fileno(), stdout.fileno(), stderr.fileno(), write])
    finally:
        os.close(write)
    status = os.fdopen(read, encoding="ascii")
    pid = status.readline()
    assert pid, f"the process that has imported {module} has ended"
    return Program(module, int(pid), status)


def run(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    stdin: bytes = b"",
    timeout: float = math.inf,
    *,
    user: tuple[int, int] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end, as subprocess.run, with pipes; `user` as of `start`.

    Raises: subprocess.TimeoutExpired, and then it was killed.
    """
    with contextlib.ExitStack() as stack:
        (its_in, to_it), (from_it, its_out), (said, its_err) = (_pipe(stack) for _pipe_of in range(3))
        program = start(module, arguments, env, stdin=its_in, stdout=its_out, stderr=its_err, user=user)
        for file in (its_in, its_out, its_err):
            file.close()
        with ThreadPoolExecutor(3) as threads:
            threads.submit(_feed, to_it, stdin)
            out, errors = threads.submit(from_it.read), threads.submit(said.read)
            try:
                code = program.wait(timeout)
            except subprocess.TimeoutExpired:
                program.kill()
                raise
        return subprocess.CompletedProcess([module, *arguments], code, out.result(), errors.result())


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    return stack.enter_context(os.fdopen(read, "rb")), stack.enter_context(os.fdopen(write, "wb", 0))


def _feed(to_it: IO[bytes], stdin: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), to_it:
        rest = memoryview(stdin)
        while rest:
            rest = rest[to_it.write(rest) :]


@functools.cache
def _forker(module: str) -> socket.socket:
    """Start the process that has imported a program. It ends when this process has ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # It is not measured by coverage itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    _processes.append(
        subprocess.Popen(
            [sys.executable, "-m", "tests.forked", module, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env
        )
    )
    theirs.close()
    return ours


#: For as long as this process lives: a Popen that is collected warns of what still runs.
_processes: Final[list[subprocess.Popen[bytes]]] = []


def _serve(module: str, requests: socket.socket) -> None:
    """Fork for each request, until the socket is closed."""
    package = importlib.import_module(module)
    # With all that a command imports only when it is called.
    for each in pkgutil.walk_packages(package.__path__, f"{module}."):
        if not each.name.endswith(".__main__"):
            importlib.import_module(each.name)
    if module == "fullsend_receiver" and os.environ.get("FULLSEND_TEST_S3"):
        importlib.import_module("boto3.session")  # imported where a store in a bucket is opened
    gc.collect()
    gc.freeze()  # so that a fork copies few pages
    # Ctrl-C ends the tests, which then close the socket. Who waits for a program is not waited for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        raw, files, _flags, _address = socket.recv_fds(requests, _MAX_REQUEST, 4)
        if not raw:
            return
        if not os.fork():
            requests.close()
            _run(module, json.loads(raw), files)
        for file in files:
            os.close(file)


def _run(module: str, request: list[Any], files: list[int]) -> None:
    """In a process of its own: start the program, say its process id, wait for it, and say its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *stdio, status = files
    pid = os.fork()
    if not pid:
        os.close(status)
        _become(module, request, stdio)
    # What the program's end closes must be closed then.
    for file in (0, 1, 2, *stdio):
        os.close(file)
    os.write(status, b"%d\n" % pid)
    _pid, ended = os.waitpid(pid, 0)
    os.write(status, b"%d" % os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _become(module: str, request: list[Any], stdio: list[int]) -> NoReturn:
    """Be `python -m MODULE`, as an interpreter that has just started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(stdio):
        os.dup2(file, number)
        os.close(file)
    arguments, env, folder, strict, user = request
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    if user is not None:
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
    sys.argv = [module, *arguments]
    if strict:
        warnings.simplefilter("error")
    if "COVERAGE_PROCESS_CONFIG" in env:
        importlib.import_module("coverage").process_startup()
    # Its end is the end of this interpreter, which waits for threads, and flushes.
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
