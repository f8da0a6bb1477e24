"""A real daemon over a real store: made, started, watched and ended by a test."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests import forked
from tests.programs import run_inside
from tests.receiver.peer import Certificate, Peer, make_certificate

from fullsend_receiver.cli.main import main as fullsendd_main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MIB: Final = 1 << 20
#: Bytes that the daemon may hold, and for each arriving stream (docs/operations.md, Memory).
MEMORY: Final = 64 * MIB
MEMORY_PER_STREAM: Final = 48 * MIB

_PATIENCE: Final = 50.0
_STEP: Final = 0.01
#: What a daemon never says: each is a bug, however the connection ended.
_NEVER: Final = re.compile(
    r"Traceback|a bug|never retrieved|never awaited|Warning|Exception ignored|Task was destroyed"
)


def wait_until(condition: Callable[[], bool], what: str, within: float = _PATIENCE) -> None:
    """Wait for something that nobody tells us of, for `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(_STEP)


class Receiver:
    """A store, its configuration, and the daemon that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.config = folder / "receiver.toml"
        self.log_file = folder / "serve.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | forked.Program | None = None
        self.senders: dict[str, Certificate] = {}
        self._notify: socket.socket | None = None

    # --- the program

    def fullsendd(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end: as a process where it gets `options`, else in this one (programs.run_inside)."""
        if not options:
            words = ["--config", *map(str, (self.config, *arguments))]
            if "serve" not in arguments and threading.current_thread() is threading.main_thread():
                done = run_inside(fullsendd_main, *words, env={})
            else:
                done = forked.run("fullsend_receiver", words, os.environ, timeout=_PATIENCE)
            return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        return subprocess.run(
            [sys.executable, "-m", "fullsend_receiver", "--config", self.config, *arguments],
            **{"capture_output": True, "text": True, "timeout": _PATIENCE, **options},
            check=False,
        )

    def init(self, **settings: object) -> None:
        """A new store. `settings` go into receiver.toml, with hyphens for underscores."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The port of an invitation must not be zero; nobody connects to this one.
        ports = ("--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1")
        done = self.fullsendd("init", "--store", self.store, *ports)
        assert done.returncode == 0, done.stderr
        # Streams with made-up times of reception would be due some day, and are no real ones.
        self.set(**{"min_free": 0, "scrub_every": 0, **settings})

    def set(self, **settings: object) -> None:
        """Add to receiver.toml."""
        with self.config.open("a", encoding="utf-8") as file:
            file.writelines(f"{name.replace('_', '-')} = {json.dumps(value)}\n" for name, value in settings.items())

    # --- the daemon

    def start(self, *, program: Sequence[str | Path] = (), pure: bool = False, **options: Any) -> None:
        """Serve; returns when the daemon says that it is ready.

        `program`: what to run instead of the package. `pure`: without coverage, and not forked of a process that has
        imported more than the daemon: for its memory.
        """
        self.spawn(program=program, pure=pure, **options)
        self.wait_ready()

    def spawn(
        self,
        *,
        program: Sequence[str | Path] = (),
        wrapper: Sequence[str] = (),
        pure: bool = False,
        **options: Any,
    ) -> None:
        """Start the daemon, and wait for nothing. `wrapper`: a command that runs the one behind it."""
        assert self.process is None
        env = dict(os.environ) | options.pop("env", {})
        if pure:
            env = {name: value for name, value in env.items() if not name.startswith("COV")}
        address = f"fullsend-test-{secrets.token_hex(8)}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind("\0" + address)
        self._notify.settimeout(_STEP)
        env["NOTIFY_SOCKET"] = "@" + address
        # Warnings are errors: a socket or a file that nobody closed shows in the log.
        command = [*wrapper, sys.executable, "-W", "error", *(program or ["-m", "fullsend_receiver"])]
        words = ["--config", str(self.config), "serve"]
        with open(os.devnull, "rb") as nothing, self.log_file.open("ab") as log:
            if pure or program or wrapper or options:
                self.process = subprocess.Popen(
                    [*command, *words], stdin=nothing, stdout=log, stderr=log, env=env, **options
                )
            else:
                self.process = forked.start(
                    "fullsend_receiver", words, env, stdin=nothing, stdout=log, stderr=log, strict=True
                )

    def wait_ready(self) -> None:
        status = self.wait_notified("READY=1")
        self.port = int(re.findall(r":(\d+)\b", status)[0])

    def wait_notified(self, state: str) -> str:
        """Wait until the daemon tells the service manager this. Returns: all that it told with it."""
        assert self.process is not None
        assert self._notify is not None
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                told = self._notify.recv(4096).decode()
                if state in told.splitlines():
                    return told
                continue
            assert self.process.poll() is None, f"the daemon ended before {state}: {self.log}"
        raise AssertionError(f"the daemon never said {state}: {self.log}")

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def drain_notified(self) -> None:
        """Forget what the daemon has told the service manager so far."""
        assert self._notify is not None
        with contextlib.suppress(TimeoutError):
            while self._notify.recv(4096):
                pass

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon. Returns: its exit code."""
        self.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the daemon's end. Returns: its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(_PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None
            if self._notify is not None:
                self._notify.close()
                self._notify = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What the daemon has said so far."""
        return self.log_file.read_text(encoding="utf-8")

    def wait_log(self, text: str, count: int = 1) -> None:
        """Wait until the daemon has said this, so many times."""
        wait_until(lambda: self.log.count(text) >= count, f"{text!r} in the log:\n{self.log}")

    def check_log(self) -> None:
        """The daemon knows all that happened to it."""
        assert not _NEVER.search(self.log), self.log

    # --- what it costs

    @property
    def peak(self) -> int:
        """The most memory that the daemon has held since it was started, or since `reset_peak`: bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kib) << 10

    @property
    def held(self) -> int:
        """The memory that the daemon holds now: bytes."""
        self.reset_peak()
        return self.peak

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")  # proc(5)

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @contextlib.contextmanager
    def all_closed(
        self, what: str = "all connections and files are closed", within: float = _PATIENCE
    ) -> Iterator[None]:
        """See that the daemon closes each file and socket that it opens meanwhile.

        Not their number is compared: a connection from before may still be on its way out when this begins.
        """
        before = self._open_files()
        yield
        wait_until(lambda: not self._open_files() - before, what, within)

    def _open_files(self) -> Counter[str]:
        """The daemon's open files by path, its sockets by inode; how many of each."""
        found = Counter[str]()
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[os.readlink(descriptor)] += 1
        return found

    # --- who may speak to it

    def secret(self, name: str, *arguments: str) -> str:
        """Make an invitation. Returns: its secret."""
        done = self.fullsendd("invite", name, *arguments)
        assert done.returncode == 0, done.stderr
        body = done.stdout.removeprefix("fullsend1-").rpartition("-")[0]
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        assert fields[0] == name
        return str(fields[4])

    def enrol(self, name: str, certificate: Certificate | None = None, *arguments: str) -> Certificate:
        """Invite a sender, and join as it."""
        if certificate is None:
            certificate = make_certificate(self.folder / f"{name}.pem")
        secret = self.secret(name, *arguments)
        with Peer(self.port) as peer:
            assert peer.hear("hello")["sender"] is None
            peer.say("join", secret=secret, certificate=certificate.pem)
            assert peer.hear("joined")["sender"] == name
            peer.expect_end()
        self.senders[name] = certificate
        return certificate

    def peer(self, name: str = "alpha") -> Peer:
        """A connection of a sender, after the hellos."""
        return Peer.enrolled(self.port, self.senders[name])

    # --- what it keeps

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """What `fullsendd list` says is stored."""
        done = self.fullsendd("list", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def partials(self) -> list[Path]:
        """The data files of what is still arriving."""
        return sorted((self.store / ".partial").glob("*.data"))


@contextlib.contextmanager
def serving(folder: Path, *senders: str, pure: bool = False, **settings: object) -> Iterator[Receiver]:
    """A daemon over a new store, with these senders enrolled; it ends well, with a log without bugs."""
    receiver = Receiver(folder)
    receiver.init(**settings)
    receiver.start(pure=pure)
    try:
        for name in senders:
            receiver.enrol(name)
        yield receiver
        if receiver.process is not None:
            assert receiver.stop() == 0, receiver.log
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)
