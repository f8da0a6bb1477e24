"""fullsend and fullsendd, run as users run them: a store, a daemon, paired senders."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.measure import SHARED, BenchError, Cores, Run, Service, run_quietly, transfer
from bench.peers import free_port

if TYPE_CHECKING:
    from bench.peers import Stream

_BIN: Final = Path(sys.executable).parent
FULLSEND: Final = _BIN / "fullsend"
_FULLSENDD: Final = _BIN / "fullsendd"


def accepts_auto() -> bool:
    """Whether `fullsend push` chooses the level itself: `--level auto`, by its help."""
    return offers_auto(run_quietly([FULLSEND, "push", "--help"]))


def offers_auto(help_text: str) -> bool:
    """Whether the help of --level names auto. Other options have a choice of that name too."""
    described = re.search(r"\n  --level .*?(?=\n  -|\Z)", help_text, re.DOTALL)
    return described is not None and re.search(r"\bauto\b", described[0]) is not None


class Receiver:
    """A store in `folder`, and its daemon."""

    def __init__(self, folder: Path) -> None:
        """Make the store."""
        self.port = free_port()
        self.config = folder / "receiver.toml"
        self._store = folder / "store"
        self._log = folder / "log"
        folder.mkdir()
        address = f"127.0.0.1:{self.port}"
        run_quietly([*self.program, "init", *self.place, "--listen", address, "--advertise", address])
        with self.config.open("a", encoding="utf-8") as file:
            # 64 senders are paired within a minute, and the folder may be in memory, which may have no GiB to keep
            # free.
            file.write('tries-per-minute = 1000\nmin-free = "0"\n')

    @property
    def place(self) -> list[str | Path]:
        """The words of `init` that tell where the store is."""
        return ["--store", self._store]

    @property
    def program(self) -> list[str | Path]:
        """The beginning of its command lines."""
        return [_FULLSENDD, "--config", self.config]

    def service(self) -> Service:
        """The daemon."""
        return Service([*self.program, "serve"], self._log, self.port)

    def invite(self, sender: str) -> str:
        """Return an invitation."""
        return run_quietly([*self.program, "invite", sender]).strip()

    def forget(self, sender: str) -> None:
        """Remove what is stored of a sender, so that the same stream can be pushed again."""
        shutil.rmtree(self._store / sender, ignore_errors=True)


class Sender:
    """A paired host of this name."""

    def __init__(self, folder: Path, receiver: Receiver, name: str, cores: Cores = SHARED) -> None:
        """Pair it. The daemon must run. `cores`: where its commands run; the daemon runs where it was started."""
        self.name = name
        self._cores = cores
        self.config = folder / "sender.toml"
        folder.mkdir()
        self._receiver = receiver
        run_quietly([*self._program, "join", receiver.invite(name)])

    @property
    def _program(self) -> list[str | Path]:
        return [FULLSEND, "--config", self.config]

    @property
    def certificate(self) -> tuple[Path, Path]:
        """Its certificate and key."""
        folder = self.config.parent
        return folder / "cert.pem", folder / "key.pem"

    def connect_to(self, port: int) -> None:
        """Connect to another port of this machine, which passes the connection on."""
        text = self.config.read_text(encoding="utf-8")
        self.config.write_text(text.replace(f":{self._receiver.port}", f":{port}"), encoding="utf-8")

    def push_command(self, level: str = "3", bwlimit: str | None = None) -> list[str | Path]:
        """The command line that pushes a stream from stdin."""
        limited = [] if bwlimit is None else ["--bwlimit", bwlimit]
        # With "=", since a negative level would be taken for an option.
        return [*self._program, "push", "--stdin", f"--level={level}", *limited, "--json"]

    def push(self, stream: Stream, daemon: Service, level: str = "3", bwlimit: str | None = None) -> Run:
        """Push a stream, and remove it from the store. Raises: BenchError if that was not the whole stream."""
        run = self.keep(stream, daemon, level, bwlimit)
        self.forget()
        return run

    def keep(
        self, stream: Stream, daemon: Service, level: str = "3", bwlimit: str | None = None, *, stored: bool = False
    ) -> Run:
        """Push a stream, and leave it stored. `stored`: it is stored already, so that nothing is sent."""
        run, output = transfer(self.push_command(level, bwlimit), daemon, source=stream.path, cores=self._cores)
        return replace(run, stored=check_pushed(output, stream, stored=stored))

    def forget(self) -> None:
        """Remove what is stored of it."""
        self._receiver.forget(self.name)

    def cat(self, daemon: Service) -> Run:
        """Restore the one stored stream into /dev/null."""
        return transfer(self.cat_command(), daemon, cores=self._cores)[0]

    def cat_command(self) -> list[str | Path]:
        """The command line that restores the one stored stream into /dev/null."""
        name = str(self.stored()["file"])
        return ["bash", "-c", 'exec "$@" >/dev/null', "bash", *self._program, "cat", name]

    def stored(self) -> dict[str, Any]:
        """Return the entry of `list --json` for the one stored stream."""
        (line,) = run_quietly([*self._program, "list", "--json"]).splitlines()
        entry: dict[str, Any] = json.loads(line)
        return entry


def check_pushed(output: bytes, stream: Stream, *, stored: bool = False) -> int:
    """Compare the JSON of a push with what should have been sent. Returns: bytes stored. Raises: BenchError."""
    pushed = json.loads(output)
    whole = (pushed["raw_bytes"], pushed["sha256"]) == (stream.size, stream.sha256)
    if not whole or stored == bool(pushed["wire_bytes"]):
        msg = f"fullsend did not push the stream: {pushed}"
        raise BenchError(msg)
    return int(pushed["stored_bytes"])
