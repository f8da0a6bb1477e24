"""Daemons that serve a store in the real Ceph."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.programs import Receiver, good
from tests.receiver.buckets import ACCESS_KEY, BUCKET, SECRET_KEY, gateways, in_ceph

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store_s3.client import BotoBucket


@dataclass
class BucketReceiver(Receiver):
    """A daemon of a store in a bucket. `prefix`: of the store; `gateway`: 0 or 1; `endpoint`: in place of its own."""

    prefix: str = ""
    gateway: int = 0
    endpoint: str = ""

    @property
    def place(self) -> list[str]:  # type: ignore[explicit-override]
        in_ceph(self.prefix)  # makes the bucket
        credentials = self.folder / "credentials"
        credentials.write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n", encoding="ascii"
        )
        store = f"s3://{BUCKET}/{self.prefix}"
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
        return in_ceph(self.prefix, self.gateway)

    def adopt(self, other: BucketReceiver) -> None:
        """Make this host one more that serves the store of `other`."""
        self.folder.mkdir(parents=True)
        state = self.folder / "home" / ".state"
        state.mkdir(parents=True, mode=0o700)
        for name in ("key.pem", "certificate.pem"):
            shutil.copy(other.folder / "home" / ".state" / name, state / name)
        good(self.fullsendd("init", "--adopt", *self.place, "--listen", f"127.0.0.1:{self.port}"))
