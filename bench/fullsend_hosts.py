"""fullsend and fullsendd, run as users run them: a store, a daemon, paired senders."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.measure import BenchError, Run, Service, run_quietly, transfer
from bench.peers import free_port

if TYPE_CHECKING:
    from bench.peers import Stream

_BIN: Final = Path(sys.executable).parent
FULLSEND: Final = _BIN / "fullsend"
_FULLSENDD: Final = _BIN / "fullsendd"


class Receiver:
    """A store in `folder`, and its daemon."""

    def __init__(self, folder: Path) -> None:
        """Make the store."""
        self._port = free_port()
        self._config = folder / "receiver.toml"
        self._store = folder / "store"
        self._log = folder / "log"
        folder.mkdir()
        address = f"127.0.0.1:{self._port}"
        run_quietly([*self._program, "init", "--store", self._store, "--listen", address, "--advertise", address])
        with self._config.open("a", encoding="utf-8") as file:
            # 64 senders are paired within a minute, and the folder may be in memory, which may have no GiB to keep
            # free.
            file.write('tries-per-minute = 1000\nmin-free = "0"\n')

    @property
    def _program(self) -> list[str | Path]:
        return [_FULLSENDD, "--config", self._config]

    def service(self) -> Service:
        """The daemon."""
        return Service([*self._program, "serve"], self._log, self._port)

    def invite(self, sender: str) -> str:
        """Return an invitation."""
        return run_quietly([*self._program, "invite", sender]).strip()

    def forget(self, sender: str) -> None:
        """Remove what is stored of a sender, so that the same stream can be pushed again."""
        shutil.rmtree(self._store / sender, ignore_errors=True)


class Sender:
    """A paired host of this name."""

    def __init__(self, folder: Path, receiver: Receiver, name: str) -> None:
        """Pair it. The daemon must run."""
        self.name = name
        self._config = folder / "sender.toml"
        folder.mkdir()
        self._receiver = receiver
        run_quietly([*self._program, "join", receiver.invite(name)])

    @property
    def _program(self) -> list[str | Path]:
        return [FULLSEND, "--config", self._config]

    @property
    def certificate(self) -> tuple[Path, Path]:
        """Its certificate and key."""
        folder = self._config.parent
        return folder / "cert.pem", folder / "key.pem"

    def push_command(self) -> list[str | Path]:
        """The command line that pushes a stream from stdin."""
        return [*self._program, "push", "--stdin", "--level", "3", "--json"]

    def push(self, stream: Stream, daemon: Service) -> Run:
        """Push a stream, and remove it from the store. Raises: BenchError if that was not the whole stream."""
        run = self.keep(stream, daemon)
        self._receiver.forget(self.name)
        return run

    def keep(self, stream: Stream, daemon: Service, *, stored: bool = False) -> Run:
        """Push a stream, and leave it stored. `stored`: it is stored already, so that nothing is sent."""
        run, output = transfer(self.push_command(), daemon, source=stream.path)
        check_pushed(output, stream, stored=stored)
        return run

    def cat(self, daemon: Service) -> Run:
        """Restore the one stored stream into /dev/null."""
        stored = self.stored()
        argv = ["bash", "-c", 'exec "$@" >/dev/null', "bash", *self._program, "cat", str(stored["file"])]
        return transfer(argv, daemon)[0]

    def stored(self) -> dict[str, Any]:
        """Return the entry of `list --json` for the one stored stream."""
        (line,) = run_quietly([*self._program, "list", "--json"]).splitlines()
        entry: dict[str, Any] = json.loads(line)
        return entry


def check_pushed(output: bytes, stream: Stream, *, stored: bool = False) -> None:
    """Compare the JSON of a push with what should have been sent. Raises: BenchError."""
    pushed = json.loads(output)
    whole = (pushed["raw_bytes"], pushed["sha256"]) == (stream.size, stream.sha256)
    if not whole or stored == bool(pushed["wire_bytes"]):
        msg = f"fullsend did not push the stream: {pushed}"
        raise BenchError(msg)
