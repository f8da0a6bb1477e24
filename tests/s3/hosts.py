"""Daemons that serve a store in the real Ceph."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests import streams
from tests.chains import named as chain_named
from tests.programs import Receiver, good, rows
from tests.receiver.buckets import ACCESS_KEY, BUCKET, SECRET_KEY, gateways, in_ceph

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Sender

    from fullsend_receiver.store_s3.client import BotoBucket

#: What a prune may drop at once.
POLICY: Final = (
    'rebase-after = "0%"\nwhen-suspicious = "prune"\nprune-at = "never"\nundelete-within = "1d"\n'
    '[retention]\nlast = 1\nminimum-count = 0\nminimum-age = "0s"\n'
)
#: Increments of a small dataset, for tests of what a policy does.
CHAIN: Final = chain_named("t1-plain")


@dataclass
class BucketReceiver(Receiver):
    """A daemon of a store in a bucket. `prefix`: of the store; `gateway`: 0 or 1; `endpoint`: in place of its own;
    `name`: of the bucket.
    """

    prefix: str = ""
    gateway: int = 0
    endpoint: str = ""
    name: str = BUCKET

    @property
    def place(self) -> list[str]:  # type: ignore[explicit-override]
        in_ceph(self.prefix, name=self.name)  # makes it
        credentials = self.folder / "credentials"
        credentials.write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n", encoding="ascii"
        )
        store = f"s3://{self.name}/{self.prefix}"
        paths = ["--credentials-file", str(credentials), "--home", str(self.home)]
        return [
            "--store",
            store,
            "--endpoint",
            self.endpoint or gateways()[self.gateway],
            "--region",
            "us-east-1",
            *paths,
        ]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def bucket(self) -> BotoBucket:
        """The part of the bucket that has the store."""
        return in_ceph(self.prefix, self.gateway, self.name)

    def adopt(self, other: BucketReceiver) -> None:
        """Make this host one more that serves the store of `other`."""
        self.folder.mkdir(parents=True)
        state = self.folder / "home" / ".state"
        state.mkdir(parents=True, mode=0o700)
        for name in ("key.pem", "certificate.pem"):
            shutil.copy(other.folder / "home" / ".state" / name, state / name)
        good(self.fullsendd("init", "--adopt", *self.place, "--listen", f"127.0.0.1:{self.port}"))


def made(folder: Path) -> BucketReceiver:
    """A new store, which nothing serves yet."""
    receiver = BucketReceiver(folder / "receiver", prefix=f"commands/{secrets.token_hex(8)}")
    receiver.init(min_free="0", tries_per_minute=1000)
    return receiver


def large(seed: int, size: int = 64) -> bytes:
    """Return a stream that does not compress. `size`: MiB."""
    noise = random.Random(seed)
    records = [streams.write(1, index << 20, noise.randbytes(1 << 20)) for index in range(size)]
    return streams.substream(streams.object_(1), *records, guid=1000 + seed)


def push_chain(sender: Sender) -> list[dict[str, Any]]:
    """Push the chain's first three streams."""
    return [pushed for _name, raw in CHAIN.run(None, 3) for pushed in sender.push("--stdin", stdin=raw)]


def pushing(sender: Sender, source: Path, *options: str, rate: str = "5M") -> subprocess.Popen[bytes]:
    """Push a stream, slowly enough to be met on its way."""
    with source.open("rb") as pipe:
        return sender.popen(
            *("push", "--stdin", "--bwlimit", rate, *options),
            stdin=pipe,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def arrived(receiver: Receiver) -> int:
    """Return the raw bytes of partial streams that are acknowledged."""
    return sum(entry["raw_bytes"] for entry in rows(good(receiver.fullsendd("list", "--partial", "--json"))))


def point_at(sender: Sender, *receivers: Receiver) -> None:
    """Have a sender talk to these hosts of its receiver."""
    config = sender.folder / "sender.toml"
    said = f"address = {json.dumps([f'127.0.0.1:{each.port}' for each in receivers])}"
    lines = config.read_text(encoding="utf-8").splitlines()
    config.write_text("".join(f"{said if line.startswith('address') else line}\n" for line in lines), encoding="utf-8")
