"""Both programs as users run them: the daemon and the command, each its own process, on loopback."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TextIO
from unittest.mock import patch

from tests import forked

from fullsend_receiver.cli.main import main as fullsendd_main
from fullsend_sender.cli.main import main as fullsend_main

#: Seconds for one run of a program, or until another process has done something; a hang ends here. It is less than a
#: test's own limit, which ends the whole run. tests/zfs/run allows more: imports alone take seconds on its processor.
PATIENCE: Final = int(os.environ.get("FULLSEND_TEST_PATIENCE", "120"))


def environment(measured: bool = False, /, **changes: str) -> dict[str, str]:
    """What a program is started with: ours and the changes; `measured`: by coverage, too.

    Measuring makes a program that runs for half a second take twice as long, and there are hundreds of runs here; what
    most of them run through is measured in tests/protocol, tests/sender and tests/receiver.
    """
    ours = {name: value for name, value in os.environ.items() if measured or not name.startswith("COV")}
    return ours | changes


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def run(
    module: str, *arguments: str, env: Mapping[str, str], stdin: bytes = b"", measured: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """`python -m MODULE ARGUMENTS` to its end; the exit code is the caller's to judge."""
    return forked.run(module, arguments, environment(measured, **env), stdin, PATIENCE)


class _Output:
    """A pipe to write text or bytes into, as sys.stdout or sys.stderr is one; `raw`: all that came, after the block."""

    def __init__(self, errors: str) -> None:
        self._errors = errors
        self.raw = b""

    def __enter__(self) -> Self:
        self._read, write = os.pipe()
        self.file: TextIO = os.fdopen(write, "w", encoding="utf-8", errors=self._errors)
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.file.close()
        self._thread.join()

    def _drain(self) -> None:
        with open(self._read, "rb") as pipe:
            self.raw = pipe.read()


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Afterwards all that a command may change for its whole process is as before."""
    logs = [logging.getLogger(name) for name in ("fullsend", "fullsendd")]
    before = [(log.handlers[:], log.propagate, log.level) for log in logs]
    handling = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)}
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        yield
    finally:
        for log, (handlers, propagate, level) in zip(logs, before, strict=True):
            log.handlers[:], log.propagate = handlers, propagate
            log.setLevel(level)
        for number, handler in handling.items():
            signal.signal(number, handler)
        os.umask(umask)


def run_inside(
    main: Callable[[Sequence[str]], int], *arguments: str, env: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """One command to its end, as `run`, but inside this process: without a second or so of imports, and measured by
    coverage, which costs a process of its own about as much again. `main`: that of a program's cli/main.py.

    stdout and stderr are pipes, stdin is at its end. For the main thread, where no event loop runs. That a program does
    not lean on what a test has imported is for those tests to show that start it as a process.
    """
    threads = threading.active_count()
    with (
        _as_it_was(),
        open(os.devnull, encoding="utf-8") as nothing,
        _Output("strict") as out,
        _Output("backslashreplace") as err,
        patch.dict(os.environ, env),
        patch.multiple(sys, stdin=nothing, stdout=out.file, stderr=err.file),
    ):
        try:
            code: object = main(arguments)
        except SystemExit as end:
            code = end.code
        except Exception:  # noqa: BLE001 - as the interpreter itself does
            traceback.print_exc()
            code = 1
    assert threading.active_count() <= threads, f"it left threads: {threading.enumerate()}"
    return subprocess.CompletedProcess(
        [main.__module__, *arguments], code if isinstance(code, int) else 1, out.raw, err.raw
    )


def good(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """Its stdout, if it succeeded."""
    assert done.returncode == 0, f"{done.args}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}"
    return bytes(done.stdout)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until another process has done something that can only be looked at. Fails after PATIENCE."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "what was waited for has not come"
        time.sleep(0.02)


def rows(output: bytes) -> list[dict[str, Any]]:
    """What a command printed with --json: one object a line."""
    return [json.loads(line) for line in output.splitlines()]


@dataclass
class Receiver:
    """A store and its daemon. `inside`: all but the daemon runs in the test's own process (see run_inside)."""

    folder: Path
    inside: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | forked.Program | None = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def place(self) -> list[str]:
        """The options of `init` that name the store."""
        return ["--store", str(self.store)]

    @property
    def env(self) -> dict[str, str]:
        return {"FULLSENDD_CONFIG": str(self.folder / "receiver.toml")}

    @property
    def log(self) -> Path:
        """What the daemon said."""
        return self.folder / "serve.log"

    def fullsendd(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        if self.inside:
            return run_inside(fullsendd_main, *arguments, env=self.env)
        return run("fullsend_receiver", *arguments, env=self.env)

    def init(self, *options: str, **settings: object) -> None:
        """A new store. `options` are those of `init`; `settings` go into receiver.toml: numbers, or text."""
        self.folder.mkdir(parents=True, exist_ok=True)
        good(self.fullsendd("init", *options, *self.place, "--listen", f"127.0.0.1:{self.port}"))
        with (self.folder / "receiver.toml").open("a", encoding="utf-8") as file:
            file.writelines(f"{name.replace('_', '-')} = {json.dumps(value)}\n" for name, value in settings.items())

    def start(self, *command: str, **env: str) -> None:
        """Serve, and return once the daemon says that it is ready. `command`: run it by another one."""
        # Not in tmp_path: the name of a Unix socket is short.
        notify = Path(tempfile.mkdtemp(prefix="fullsend-"), "notify")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
                ready.bind(str(notify))
                ready.settimeout(1)
                whole = environment(**{**self.env, "NOTIFY_SOCKET": str(notify), **env})
                if command:
                    self.process = subprocess.Popen(command, stdout=log, stderr=log, env=whole)
                else:
                    with open(os.devnull, "rb") as nothing:
                        self.process = forked.start(
                            "fullsend_receiver", ["serve"], whole, stdin=nothing, stdout=log, stderr=log
                        )
                for _second in range(PATIENCE):
                    with contextlib.suppress(TimeoutError):
                        if b"READY=1" in ready.recv(4096):
                            return
                    if self.process.poll() is not None:
                        break
                raise AssertionError(f"fullsendd serve: {self.log.read_text(errors='replace')}")
        finally:
            shutil.rmtree(notify.parent)

    def stop(self, with_signal: int = signal.SIGTERM) -> int | None:
        """End it; its exit code."""
        if self.process is None:
            return None
        self.process.send_signal(with_signal)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def invite(self, name: str, *arguments: str) -> str:
        return good(self.fullsendd("invite", name, *arguments)).decode().strip()

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        return rows(good(self.fullsendd("list", "--json", *arguments)))


@dataclass(frozen=True)
class Sender:
    """A ZFS host's configuration, and the command that uses it.

    `measured`: by coverage; `inside`: in the test's own process, which is measured anyhow (see run_inside).
    """

    folder: Path
    name: str = "zfshost"
    measured: bool = False
    inside: bool = False

    @property
    def env(self) -> dict[str, str]:
        return {"FULLSEND_CONFIG": str(self.folder / "sender.toml")}

    def fullsend(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        if self.inside and not stdin:
            return run_inside(fullsend_main, *arguments, env=self.env)
        return run("fullsend_sender", *arguments, env=self.env, stdin=stdin, measured=self.measured)

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """The same, still running: for tests that kill it."""
        command = [sys.executable, "-m", "fullsend_sender", *arguments]
        return subprocess.Popen(command, env=environment(self.measured, **self.env), **options)

    def join(self, receiver: Receiver) -> None:
        """Get enrolled."""
        self.folder.mkdir(parents=True, exist_ok=True)
        good(self.fullsend("join", receiver.invite(self.name)))

    def push(self, *arguments: str, stdin: bytes = b"") -> list[dict[str, Any]]:
        """A push that must succeed; one object a stream."""
        return rows(good(self.fullsend("push", "--json", *arguments, stdin=stdin)))

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        return rows(good(self.fullsend("list", "--json", *arguments)))


@contextlib.contextmanager
def serving(where: Path | Receiver, **settings: object) -> Iterator[Receiver]:
    """A daemon that serves a new store; it has ended afterwards, and did so well."""
    receiver = where if isinstance(where, Receiver) else Receiver(where)
    receiver.init(**settings)
    with started(receiver):
        yield receiver


@contextlib.contextmanager
def started(receiver: Receiver, *command: str, **env: str) -> Iterator[None]:
    """The daemon of a store that is there, as `Receiver.start`; it has ended afterwards, and did so well."""
    try:
        receiver.start(*command, **env)
        yield
    except BaseException:
        receiver.stop(signal.SIGKILL)
        raise
    code = receiver.stop()
    assert code in {0, None}, receiver.log.read_text(encoding="utf-8")
    log = receiver.log.read_text(encoding="utf-8")
    assert "Traceback" not in log, log


def stored_files(receiver: Receiver) -> list[Path]:
    """All `.zst` files in the store."""
    return sorted(receiver.store.rglob("@*.zfs.zst"))
