"""Both programs as users run them: the daemon and the command, each its own process, on loopback."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathlib

#: Seconds for one run of a program. The processor may be an emulated one, where imports alone take seconds.
PATIENCE = 300


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def run(
    module: str, *arguments: str, env: dict[str, str], stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`python -m MODULE ARGUMENTS` to its end; the exit code is the caller's to judge."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=stdin or b"",
        capture_output=True,
        check=False,
        env=os.environ | env,
        timeout=PATIENCE,
    )


def good(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """Its stdout, if it succeeded."""
    if done.returncode:
        raise AssertionError(f"{done.args}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return bytes(done.stdout)


@dataclasses.dataclass
class Receiver:
    """A store and its daemon."""

    folder: pathlib.Path
    port: int = dataclasses.field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> pathlib.Path:
        return self.folder / "store"

    @property
    def env(self) -> dict[str, str]:
        return {"FULLSENDD_CONFIG": str(self.folder / "receiver.toml")}

    @property
    def log(self) -> pathlib.Path:
        """What the daemon said."""
        return self.folder / "serve.log"

    def fullsendd(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run("fullsend_receiver", *arguments, env=self.env)

    def init(self) -> None:
        """A new store."""
        self.folder.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        good(self.fullsendd("init", "--store", str(self.store), "--listen", address, "--advertise", address))

    def start(self) -> None:
        """Serve, and return once it listens."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "fullsend_receiver", "serve"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self.env)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"fullsendd serve: {self.log.read_text(errors='replace')}") from None
                time.sleep(0.1)

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

    def invite(self, name: str) -> str:
        return good(self.fullsendd("invite", name)).decode().strip()

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        lines = good(self.fullsendd("list", "--json", *arguments)).splitlines()
        return [json.loads(line) for line in lines]


@dataclasses.dataclass(frozen=True)
class Sender:
    """A ZFS host's configuration, and the command that uses it."""

    folder: pathlib.Path

    @property
    def env(self) -> dict[str, str]:
        return {"FULLSEND_CONFIG": str(self.folder / "sender.toml")}

    def fullsend(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return run("fullsend_sender", *arguments, env=self.env, stdin=stdin)

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """The same, still running: for tests that kill it."""
        command = [sys.executable, "-m", "fullsend_sender", *arguments]
        return subprocess.Popen(command, env=os.environ | self.env, **options)

    def join(self, receiver: Receiver, name: str = "zfshost") -> None:
        """Get enrolled."""
        self.folder.mkdir(parents=True, exist_ok=True)
        good(self.fullsend("join", receiver.invite(name)))

    def push(self, *arguments: str, stdin: bytes | None = None) -> list[dict[str, Any]]:
        """A push that must succeed; one object a stream."""
        lines = good(self.fullsend("push", "--json", *arguments, stdin=stdin)).splitlines()
        return [json.loads(line) for line in lines]
