"""An object store that is away, cut off, or refuses: what a daemon and its commands make of it."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.faults.proxy import Proxy
from tests.programs import Sender, good, run, started, wait_for
from tests.receiver.buckets import gateways
from tests.s3.hosts import BucketReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """The way to the gateway."""
    with Proxy(int(gateways()[0].rpartition(":")[2])) as between:
        yield between


@pytest.fixture
def receiver(tmp_path: Path, proxy: Proxy) -> BucketReceiver:
    receiver = BucketReceiver(
        tmp_path / "receiver", prefix=f"faults/{secrets.token_hex(8)}", endpoint=f"http://127.0.0.1:{proxy.port}"
    )
    receiver.init(min_free="0")
    return receiver


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a command that has failed says on stderr."""
    assert done.returncode not in {0, None}
    said = done.stderr.decode()
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    return said


def test_daemon_outlives_an_object_store_that_is_away(receiver: BucketReceiver, proxy: Proxy, tmp_path: Path) -> None:
    sender = Sender(tmp_path / "sender", "alpha")
    with started(receiver):
        sender.join(receiver)
        sender.push("--stdin", stdin=streams.named("full").read())
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: "nothing is served until it is back" in receiver.log.read_text())
        assert "has no answer" in one_line(receiver.fullsendd("list", "--partial"))
        assert sender.fullsend("list").returncode == 75
        # A push waits for it.
        (tmp_path / "incr").write_bytes(streams.named("incr").read())
        with (tmp_path / "incr").open("rb") as source:
            push = sender.popen("push", "--stdin", stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: receiver.log.read_text().count("connected") > 1)
        proxy.refuse(refusing=False)
        wait_for(lambda: "is back" in receiver.log.read_text())
        _out, said = push.communicate(timeout=120)
        assert push.returncode == 0, said
        assert len(sender.list()) == 2


def test_push_survives_cuts_of_the_way_to_the_object_store(
    receiver: BucketReceiver, proxy: Proxy, tmp_path: Path
) -> None:
    sender = Sender(tmp_path / "sender", "alpha")
    noise = random.Random(5)
    records = [streams.write(1, index << 20, noise.randbytes(1 << 20)) for index in range(96)]
    raw = streams.substream(streams.object_(1), *records)
    with started(receiver):
        sender.join(receiver)
        proxy.cut_each(40 << 20)  # each connection carries one part, and dies with the second one
        (pushed,) = sender.push("--stdin", stdin=raw)
        proxy.cut_each(None)
        assert good(sender.fullsend("cat", pushed["receipt"]["file"])) == raw
    assert list(receiver.bucket.entries(".partial/")) == []
    assert list(receiver.bucket.unfinished("")) == []


def test_daemon_does_not_start_without_its_object_store(receiver: BucketReceiver, proxy: Proxy) -> None:
    proxy.refuse()
    said = one_line(receiver.fullsendd("serve"))
    assert "has no answer" in said
    assert "see the endpoint and the network" in said


def test_wrong_credentials_are_named(receiver: BucketReceiver) -> None:
    credentials = receiver.folder / "credentials"
    right = credentials.read_text(encoding="ascii")
    credentials.write_text(right.replace("testsecret", "wrong"), encoding="ascii")
    assert "the secret key is wrong" in one_line(receiver.fullsendd("list"))
    credentials.write_text(right.replace("testkey", "nobody"), encoding="ascii")
    assert "does not know the access key" in one_line(receiver.fullsendd("check"))
    credentials.unlink()
    assert "credentials" in one_line(receiver.fullsendd("serve"))


def test_store_that_was_deleted_underneath_is_named_and_not_made_anew(receiver: BucketReceiver, tmp_path: Path) -> None:
    sender = Sender(tmp_path / "sender", "alpha")
    with started(receiver):
        sender.join(receiver)
        stream = streams.named("full").read()
        sender.push("--stdin", stdin=stream)
        for each in list(receiver.bucket.entries("")):
            receiver.bucket.delete(each.key)
        wait_for(lambda: "nothing is served until it is back" in receiver.log.read_text())
        pushed = sender.fullsend("push", "--stdin", stdin=stream)
        assert pushed.returncode != 0
        assert list(receiver.bucket.entries("alpha/")) == []
    assert "no store here" in one_line(receiver.fullsendd("list"))
    assert "no store here" in one_line(receiver.fullsendd("serve"))


def test_second_daemon_of_one_home_is_refused(receiver: BucketReceiver) -> None:
    with started(receiver):
        second = run("fullsend_receiver", "serve", env=receiver.env)
        assert "another fullsendd serves this store" in one_line(second)
    assert receiver.stop(signal.SIGTERM) is None


def test_key_that_is_missing_is_named(receiver: BucketReceiver) -> None:
    (receiver.folder / "home" / ".state" / "key.pem").unlink()
    assert "key and certificate cannot be used" in one_line(receiver.fullsendd("serve"))
