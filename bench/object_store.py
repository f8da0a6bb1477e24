"""A real Ceph with two gateways, a receiver whose store is in a bucket of it, and what others use to copy into buckets.

Ceph runs on this machine, with one OSD on a file (tests/s3/ceph-start): its figures say nothing about a cluster's.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from bench import programs
from bench.fullsend_hosts import Receiver
from bench.measure import BenchError, cpu_of, new_peak, run_quietly

from fullsend_receiver.store_s3.client import Access, BotoBucket

if TYPE_CHECKING:
    from types import TracebackType

    from bench.peers import Stream

_SCRIPTS: Final = Path(__file__).resolve().parent.parent / "tests" / "s3"
#: What ceph-start makes.
_ACCESS_KEY: Final = "testkey"
_SECRET_KEY: Final = "testsecret"
_REGION: Final = "us-east-1"
_BUCKET: Final = "bench"
#: Ports that ceph-start takes, one after the other.
_PORTS: Final = 4
#: The ports that are tried: below those that the kernel gives to connections.
_FIRST_PORT: Final = 20_000
_LAST_PORT: Final = 30_000
#: Bytes that it may hold, in a sparse file. A slow stream is in the bucket twice while it arrives: in its parts, and in
#: its journal.
_BYTES: Final = 32 << 30
#: Bytes that are read of an object at a time.
_PIECE: Final = 8 << 20


def free_ports(count: int = _PORTS) -> int:
    """Return the first of so many free TCP ports of the loopback. Raises: BenchError if there are none."""
    for first in range(_FIRST_PORT, _LAST_PORT, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    msg = f"no {count} free ports in a row"
    raise BenchError(msg)


class Ceph:
    """A Ceph with its data in `folder`; a context manager. `endpoints`: of its gateways; `bucket`: of the benchmark."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.endpoints: list[str] = []
        self.pids: list[int] = []

    def __enter__(self) -> Self:
        settings = [f"FULLSEND_CEPH_PORT={free_ports()}", f"FULLSEND_CEPH_BYTES={_BYTES}"]
        started = run_quietly(["env", *settings, _SCRIPTS / "ceph-start", self._folder])
        self.endpoints = started.split()
        try:
            self.pids = [int(file.read_text(encoding="ascii")) for file in (self._folder / "run").glob("*.pid")]
            self.bucket = self.part("")
            self.bucket._client.create_bucket(Bucket=_BUCKET)
            self.credentials = self._folder / "credentials"
            self.credentials.write_text(
                f"[default]\naws_access_key_id = {_ACCESS_KEY}\naws_secret_access_key = {_SECRET_KEY}\n",
                encoding="ascii",
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_quietly([_SCRIPTS / "ceph-stop", self._folder])

    def part(self, prefix: str, endpoint: str | None = None) -> BotoBucket:
        """Return what is below a prefix of the bucket. `endpoint`: None: that of the first gateway."""
        access = Access(endpoint or self.endpoints[0], _REGION, access_key=_ACCESS_KEY, secret_key=_SECRET_KEY)
        return BotoBucket(_BUCKET, prefix, access)

    def cpu(self) -> float:
        """CPU seconds of its processes so far."""
        return sum(map(cpu_of, self.pids))

    def reset_peak(self) -> None:
        """Reset the high-water marks of their memory."""
        for pid in self.pids:
            new_peak(pid)

    def delete(self, prefix: str) -> None:
        """Delete all below a prefix. Its room is free after `collect`."""
        for each in [*self.bucket.entries(prefix)]:
            self.bucket.delete(each.key)

    def collect(self) -> None:
        """Free the room of all that is deleted now. Ceph does that some seconds later, which would disturb a run."""
        run_quietly(["env", f"CEPH_CONF={self._folder}/ceph.conf", "radosgw-admin", "gc", "process", "--include-all"])


class BucketHost(Receiver):
    """A store in a bucket of `ceph`, below the prefix `name`, and its daemon."""

    def __init__(self, folder: Path, ceph: Ceph, name: str) -> None:
        """Make the store."""
        self._ceph = ceph
        self.name = name
        self._home = folder / "home"
        super().__init__(folder)

    @property
    def place(self) -> list[str | Path]:  # type: ignore[explicit-override]
        """The words of `init` that tell where the store is."""
        words: list[str | Path] = ["--store", f"s3://{_BUCKET}/{self.name}", "--endpoint", self._ceph.endpoints[0]]
        return [*words, "--region", _REGION, "--credentials-file", self._ceph.credentials, "--home", self._home]

    def forget(self, sender: str) -> None:  # type: ignore[explicit-override]
        """Remove what is stored of a sender, so that the same stream can be pushed again."""
        self._ceph.delete(f"{self.name}/{sender}/")


class Copier(Protocol):
    """A program that copies into the bucket and out of it, with its default settings.

    `stores`, `gives`: the commands, as people call them; `name`: with its version, "": it is not installed.
    """

    stores: str
    gives: str
    name: str

    def put(self, key: str) -> str:
        """Return the shell line that stores stdin under a key."""

    def put_file(self, file: Path, key: str) -> str:
        """Return the shell line that stores a file under a key."""

    def give(self, key: str) -> str:
        """Return the shell line that writes an object to stdout."""


class Rclone:
    """rclone, which writes what it reads from stdin (`rcat`)."""

    stores = "rclone rcat"
    gives = "rclone cat"

    def __init__(self, ceph: Ceph, folder: Path) -> None:
        self.name = programs.says(["rclone", "version"]).partition("\n")[0] if programs.find("rclone") else ""
        self._config = folder / "rclone.conf"
        self._config.write_text(
            f"[bench]\ntype = s3\nprovider = Ceph\nendpoint = {ceph.endpoints[0]}\nregion = {_REGION}\n"
            f"access_key_id = {_ACCESS_KEY}\nsecret_access_key = {_SECRET_KEY}\n",
            encoding="ascii",
        )

    def put(self, key: str) -> str:
        return self._line("rcat", key)

    def put_file(self, file: Path, key: str) -> str:
        return f"{self.put(key)} <{shlex.quote(str(file))}"

    def give(self, key: str) -> str:
        return self._line("cat", key)

    def _line(self, command: str, key: str) -> str:
        # Where the environment names certificates, it ends with an error; its connection has no TLS.
        words = ["env", "-u", "AWS_CA_BUNDLE", "rclone", "--config", str(self._config)]
        return shlex.join([*words, command, f"bench:{_BUCKET}/{key}"])


class AwsCli:
    """`aws s3 cp`. Newer ones send a checksum that older object stores refuse, unless they are told not to."""

    stores = gives = "aws s3 cp"

    def __init__(self, ceph: Ceph) -> None:
        version = programs.says(["aws", "--version"]) if programs.find("aws") else ""
        self.name = version.partition(" ")[0].replace("/", " ")
        self._ceph = ceph

    def put(self, key: str) -> str:
        return self._line("-", f"s3://{_BUCKET}/{key}")

    def put_file(self, file: Path, key: str) -> str:
        return self._line(str(file), f"s3://{_BUCKET}/{key}")

    def give(self, key: str) -> str:
        return self._line(f"s3://{_BUCKET}/{key}", "-")

    def _line(self, source: str, target: str) -> str:
        settings = {
            "AWS_SHARED_CREDENTIALS_FILE": str(self._ceph.credentials),
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        words = ["env", *(f"{name}={value}" for name, value in settings.items())]
        words += ["aws", "--endpoint-url", self._ceph.endpoints[0], "s3", "cp", "--no-progress", source, target]
        return shlex.join(words)


def check_object(bucket: BotoBucket, key: str, stream: Stream) -> int:
    """Compare an object, decoded, with the stream that it should hold. Returns: its size. Raises: BenchError."""
    found = bucket.head(key)
    size = 0 if found is None else found.size
    decoding = subprocess.Popen(["zstd", "-q", "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    summing = subprocess.Popen(["sha256sum"], stdin=decoding.stdout, stdout=subprocess.PIPE)
    assert decoding.stdin is not None
    assert decoding.stdout is not None
    decoding.stdout.close()
    for start in range(0, size, _PIECE):
        decoding.stdin.write(bucket.read(key, start, _PIECE))
    decoding.stdin.close()
    decoding.wait()
    output, _none = summing.communicate()
    if output.decode().split()[0] != stream.sha256:
        msg = f"{bucket.where}/{key}: is not the stream"
        raise BenchError(msg)
    return size
