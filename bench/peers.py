"""The pipelines with which fullsend is compared, as people write them.

Each is two shell scripts, one for each end, run in the same folder. All of them leave a file and `sync` it, since
fullsend's is durable when the push ends. The sums on both ends are over the raw stream: before zstd on the sender,
after `zstd -d` of what is being written on the receiver. That is what fullsend proves; a sum over the compressed bytes
would not show that they can be decoded.

`Tools` are the two things that differ between systems by far: which program makes the sums (the sha256sum of some
distributions does not use the processor's instructions for it, that of others does), and with which cipher ssh runs.

`zstd -T0` makes as many workers as the host has cores, wherever it may run. Where an end has one core, it runs with
-T1: what -T0 is on a host that has one.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shlex
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import programs
from bench.measure import SHARED, BenchError, Cores, Run, Service, run_quietly, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

_SENT: Final = "sent.sum"
_RECEIVED: Final = "received.sum"
_FILE: Final = "received"
#: As ZFS guides write it, with a buffer that a small host can spare.
_MBUFFER: Final = "mbuffer -q -s 128k -m 128M"


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs of a peer. `sums`: reads stdin, prints the sum first; `cipher`: of ssh, None for its default."""

    sums: str
    cipher: str | None


USUAL: Final = Tools("sha256sum", None)
#: The fastest choice on a processor with AES and SHA instructions.
FASTEST: Final = Tools("openssl dgst -sha256 -r", "aes128-gcm@openssh.com")


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream to be sent."""

    path: Path
    size: int
    sha256: str


class Ssh:
    """A private sshd on the loopback, with its own keys, and the client's side of it."""

    def __init__(self, folder: Path) -> None:
        """Make keys and configuration in `folder`."""
        self._folder = folder
        self._port = free_port()
        folder.mkdir()
        for name in ("host", "user"):
            run_quietly(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", folder / name])
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self._port}\n"
            f"HostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/user.pub\n"
            "AuthenticationMethods publickey\n"
            "PermitRootLogin prohibit-password\n"
            "StrictModes no\n"  # the folder is below /tmp or /dev/shm, which everybody may write to
            "PidFile none\n"
            "UsePAM no\n"
            "PrintMotd no\n",
            encoding="utf-8",
        )
        key = (folder / "host.pub").read_text(encoding="utf-8")
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {key}", encoding="utf-8")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(
                mode=0o755, exist_ok=True
            )  # the folder in which Debian's sshd, run as root, confines itself

    def service(self) -> Service:
        """The daemon."""
        argv: list[str | Path] = [programs.find("sshd"), "-D", "-e", "-f", self._folder / "sshd_config"]
        return Service(argv, self._folder / "log", self._port)

    def command(self, remote: str, cipher: str | None) -> str:
        """Return the shell line that runs the script `remote` on the other end."""
        words = ["ssh", "-F", "none", "-T", "-p", str(self._port), "-i", str(self._folder / "user")]
        words += ["-o", f"UserKnownHostsFile={self._folder}/known_hosts", "-o", "BatchMode=yes"]
        if cipher is not None:
            words += ["-c", cipher]
        return shlex.join([*words, f"{getpass.getuser()}@127.0.0.1", shlex.join(bash(remote))])


class Peers:
    """Runs the pipelines in `folder`. `ssh`, `sshd`: None where none of them needs it. `cores`: where each end runs."""

    def __init__(
        self, folder: Path, ssh: Ssh | None = None, sshd: Service | None = None, cores: Cores = SHARED
    ) -> None:
        self._folder = folder
        self._ssh = ssh
        self._sshd = sshd
        self._cores = cores
        self._compress = f"zstd -q -3 -T{0 if cores.zfs_host is None else 1}"

    # --- push ----------------------------------------------------------------------------------------------

    def ssh_verified(self, stream: Stream, tools: Tools = USUAL, *, compress: bool = True) -> Run:
        """[zstd -3 -T0 |] ssh, with sums on both ends."""
        assert self._ssh is not None
        assert self._sshd is not None
        remote = f"cd {shlex.quote(str(self._folder))} && {_keep_verified(tools, compress)}"
        send = self._send_verified(self._ssh.command(remote, tools.cipher), tools, compress)
        return self._run(stream, send, self._sshd, compress=compress)

    def nc_verified(self, stream: Stream, tools: Tools = USUAL) -> Run:
        """zstd -3 -T0 | nc, with sums on both ends."""
        port = free_port()
        send = self._send_verified(f"nc -N 127.0.0.1 {port}", tools, compress=True)
        return self._run(stream, send, f"nc -l 127.0.0.1 {port} | {_keep_verified(tools, compress=True)}", port=port)

    def nc(self, stream: Stream, *, compress: bool = True) -> Run:
        """[zstd -3 -T0 |] nc, and nothing else."""
        port = free_port()
        send = f"{self._compress} | nc -N 127.0.0.1 {port}" if compress else f"nc -N 127.0.0.1 {port}"
        receive = f"nc -l 127.0.0.1 {port} >{_FILE}; sync {_FILE}"
        return self._run(stream, send, receive, port=port, compress=compress)

    def mbuffer(self, stream: Stream) -> Run:
        """zstd -3 -T0 | mbuffer."""
        port = free_port()
        send = f"{self._compress} | {_MBUFFER} -O 127.0.0.1:{port}"
        return self._run(stream, send, f"{_MBUFFER} -I 127.0.0.1:{port} -o {_FILE}; sync {_FILE}", port=port)

    # --- restore -------------------------------------------------------------------------------------------

    def keep(self, stream: Stream) -> Path:
        """Make the file that `nc_restore` sends back, as `zstd | nc` leaves it."""
        path = self._folder / f"{stream.path.stem}.zst"
        run_quietly(["bash", "-c", f"{self._compress} <{shlex.quote(str(stream.path))} >{shlex.quote(str(path))}"])
        return path

    def nc_restore(self, kept: Path) -> Run:
        """nc at the sending end, `nc | zstd -d` at the receiving end."""
        port = free_port()
        give = f"nc -N -l 127.0.0.1 {port} <{shlex.quote(str(kept))}"
        take = f"nc 127.0.0.1 {port} </dev/null | zstd -q -dc >/dev/null"
        return transfer(bash(take), bash(give), port=port, cwd=self._folder, cores=self._cores)[0]

    # --- how -----------------------------------------------------------------------------------------------

    def _run(
        self, stream: Stream, send: str, receive: str | Service, *, port: int | None = None, compress: bool = True
    ) -> Run:
        for name in ("raw", _SENT, _RECEIVED, _FILE):
            (self._folder / name).unlink(missing_ok=True)
        receiving = receive if isinstance(receive, Service) else bash(receive)
        run, _output = transfer(
            bash(send), receiving, source=stream.path, port=port, cwd=self._folder, cores=self._cores
        )
        return replace(run, stored=self._check(stream, compress))

    def _send_verified(self, wire: str, tools: Tools, compress: bool) -> str:
        stages = f"{self._compress} | {wire}" if compress else wire
        return f"mkfifo raw; {tools.sums} <raw >{_SENT} & tee raw | {stages}; wait $!"

    def _check(self, stream: Stream, compress: bool) -> int:
        """Check that the peer did what was timed; outside of the time. Returns: bytes that it has stored."""
        found = _sha256(self._folder / _FILE, compress)
        sums = [found]
        for name in (_SENT, _RECEIVED):
            if (self._folder / name).exists():
                sums += (self._folder / name).read_text(encoding="ascii").split()[:1]
        if set(sums) != {stream.sha256}:
            msg = f"a peer did not transfer the stream: {sums}, expected {stream.sha256}"
            raise BenchError(msg)
        stored = (self._folder / _FILE).stat().st_size
        (self._folder / _FILE).unlink()
        return stored


def _keep_verified(tools: Tools, compress: bool) -> str:
    decode = "zstd -q -dc | " if compress else ""
    return f"tee {_FILE} | {decode}{tools.sums} >{_RECEIVED}; sync {_FILE}"


def bash(script: str) -> Sequence[str]:
    """Return the command line that runs a script, which ends with its first error."""
    return ["bash", "-c", f"set -e -o pipefail; {script}"]


def _sha256(path: Path, compressed: bool) -> str:
    if not compressed:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    decoding = subprocess.Popen(["zstd", "-q", "-dc", path], stdout=subprocess.PIPE)
    assert decoding.stdout is not None
    digest = hashlib.sha256()
    while piece := decoding.stdout.read(1 << 20):
        digest.update(piece)
    decoding.stdout.close()
    decoding.wait()
    return digest.hexdigest()


def free_port() -> int:
    """Return a free TCP port of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
