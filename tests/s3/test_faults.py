"""An object store that is away, cut off, or refuses: what a daemon and its commands make of it."""

from __future__ import annotations

import random
import re
import secrets
import signal
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import botocore.auth
import pytest
from tests import streams
from tests.faults.proxy import Proxy
from tests.programs import Receiver, Sender, good, run, started, wait_for
from tests.receiver.buckets import ACCESS_KEY, SECRET_KEY, gateways, in_ceph, store_in
from tests.receiver.helpers import store_stream
from tests.s3.ceph import needs_ceph, rule
from tests.s3.hosts import POLICY, BucketReceiver, arrived, large, pushing
from tests.s3.lying import LyingGateway

from fullsend_receiver.store_s3.bucket import BucketError

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


def unique_bucket() -> str:
    """The name of a bucket that no other test has."""
    return f"fullsend-{secrets.token_hex(8)}"


def small(number: int) -> bytes:
    """Return a full of one dataset."""
    records = [streams.object_(1), streams.write(1, 0, bytes([number]) * 4096)]
    return streams.substream(*records, name=f"tank/data@n{number}", guid=100 + number)


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


@pytest.mark.alone
@needs_ceph
def test_bucket_that_was_deleted_underneath_is_named(tmp_path: Path) -> None:
    receiver, sender = BucketReceiver(tmp_path / "receiver", name=unique_bucket()), Sender(tmp_path / "sender", "alpha")
    receiver.init(min_free="0")
    with started(receiver):
        sender.join(receiver)
        receiver.stop(signal.SIGKILL)  # so that nothing is written again
        rule("radosgw-admin", "bucket", "rm", f"--bucket={receiver.name}", "--purge-objects")
        for command in ("list", "check", "serve"):
            assert "the bucket does not exist" in one_line(receiver.fullsendd(command)).replace("problem", "")


@pytest.mark.alone
@needs_ceph
def test_full_bucket_can_be_read_and_takes_what_is_left_once_it_has_room(tmp_path: Path) -> None:
    receiver, sender = BucketReceiver(tmp_path / "receiver", name=unique_bucket()), Sender(tmp_path / "sender", "alpha")
    receiver.init(min_free="0")
    quota = (f"--bucket={receiver.name}", "--quota-scope=bucket")
    full, raw = streams.named("full").read(), large(5)
    with started(receiver):
        sender.join(receiver)
        (stored,) = sender.push("--stdin", stdin=full)
        rule("radosgw-admin", "quota", "set", *quota, "--max-size=48M")
        rule("radosgw-admin", "quota", "enable", *quota)
        refused = sender.fullsend("push", "--stdin", stdin=raw)
        assert refused.returncode == 3
        assert "(403 QuotaExceeded): the bucket is full: raise its quota" in one_line(refused)
        # Not a byte more.
        rule("radosgw-admin", "quota", "set", *quota, "--max-size=1")
        wait_for(lambda: b"QuotaExceeded" in sender.fullsend("push", "--stdin", stdin=raw).stderr)
        (again,) = sender.push("--stdin", stdin=full)
        assert again["receipt"]["file"] == stored["receipt"]["file"]
        receiver.stop()
        receiver.start()
        assert good(sender.fullsend("cat", stored["receipt"]["file"])) == full
        good(receiver.fullsendd("verify", "--quiet"))
        rule("radosgw-admin", "quota", "disable", *quota)
        (pushed,) = sender.push("--stdin", stdin=raw)
        assert pushed["wire_bytes"] < len(raw)
        assert good(sender.fullsend("cat", pushed["receipt"]["file"])) == raw
        good(receiver.fullsendd("verify", "--quiet"))
    rule("radosgw-admin", "bucket", "rm", f"--bucket={receiver.name}", "--purge-objects")


@pytest.mark.alone
@needs_ceph
def test_credentials_that_are_renewed_need_no_restart(receiver: BucketReceiver, tmp_path: Path) -> None:
    credentials = receiver.folder / "credentials"
    right = credentials.read_text(encoding="ascii")
    key, secret = secrets.token_hex(8), secrets.token_hex(8)
    own = ("key", "--uid=fullsend", "--key-type=s3", f"--access-key={key}")
    rule("radosgw-admin", own[0], "create", *own[1:], f"--secret-key={secret}")
    credentials.write_text(right.replace(ACCESS_KEY, key).replace(SECRET_KEY, secret), encoding="ascii")
    sender, raw = Sender(tmp_path / "sender", "alpha"), large(6, 24)
    (tmp_path / "stream").write_bytes(raw)
    with started(receiver):
        sender.join(receiver)
        push = pushing(sender, tmp_path / "stream")
        wait_for(lambda: arrived(receiver) > 0)
        rule("radosgw-admin", own[0], "rm", *own[1:])
        _out, said = push.communicate(timeout=120)
        assert push.returncode == 3
        assert b"the object store does not know the access key: see the credentials" in said
        credentials.write_text(right, encoding="ascii")
        (pushed,) = sender.push("--stdin", stdin=raw)
        assert pushed["wire_bytes"] < len(raw)
        assert good(sender.fullsend("cat", pushed["receipt"]["file"])) == raw


def test_clock_of_this_host_that_is_wrong_is_named(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real object store's answer."""
    bucket, real = in_ceph(prefix), botocore.auth.get_current_datetime
    for late in (-timedelta(minutes=20), timedelta(minutes=20)):
        monkeypatch.setattr(
            botocore.auth, "get_current_datetime", lambda *said, late=late, **named: real(*said, **named) + late
        )
        with pytest.raises(BucketError, match=r"RequestTimeTooSkewed\): the clocks differ too much: set this host's"):
            bucket.put("key", b"data")
    monkeypatch.undo()
    assert list(bucket.entries("")) == []


# --- an object store that answers something else ------------------------------------------------------------------


@dataclass(frozen=True)
class Stand:
    """A daemon whose gateway lies, and a sender."""

    gateway: LyingGateway
    receiver: BucketReceiver
    sender: Sender


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("lies")
    with LyingGateway(gateways()[0]) as gateway:
        receiver = BucketReceiver(folder / "receiver", prefix=f"lies/{secrets.token_hex(8)}", endpoint=gateway.address)
        receiver.init(min_free="0")
        with started(receiver):
            sender = Sender(folder / "sender", "alpha")
            sender.join(receiver)
            yield Stand(gateway, receiver, sender)
            gateway.tell_truth()


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (507, "XMinioStorageFull", "the object store is full: give it room"),
        (400, "ExpiredToken", "the credentials have expired: renew them"),
        (400, "AuthorizationHeaderMalformed", "the region is wrong: name the bucket's"),
        (403, "RequestTimeTooSkewed", "the clocks differ too much: set this host's clock"),
        (403, "AccessDenied", "give them the rights to the bucket"),
        (404, "NoSuchBucket", "the bucket does not exist: create it, or correct its name"),
    ],
)
def test_refusal_amid_a_push_loses_nothing(stand: Stand, status: int, code: str, advice: str) -> None:
    raw = large(status + len(code), 16)
    stand.gateway.lie(status, code, method="PUT", like="partNumber=2")
    refused = stand.sender.fullsend("push", "--stdin", stdin=raw)
    assert refused.returncode == 3
    assert f"({status} {code}): " in one_line(refused)
    assert advice in refused.stderr.decode()
    stand.gateway.lie(status, code)
    for command in ("list", "verify"):
        assert advice in one_line(stand.receiver.fullsendd(command))
    assert advice in one_line(stand.sender.fullsend("list"))
    stand.gateway.tell_truth()
    (pushed,) = stand.sender.push("--stdin", stdin=raw)
    assert pushed["wire_bytes"] < len(raw)
    assert good(stand.sender.fullsend("cat", pushed["receipt"]["file"])) == raw


def test_overload_delays_a_push_and_a_list(stand: Stand) -> None:
    raw = large(9, 16)
    stand.gateway.lie(503, "SlowDown", method="PUT", like="partNumber", times=6)  # more than one request is repeated
    (pushed,) = stand.sender.push("--stdin", stdin=raw)
    assert stand.gateway.told == 6
    assert good(stand.sender.fullsend("cat", pushed["receipt"]["file"])) == raw
    stored = stand.receiver.list()
    stand.gateway.lie(503, "SlowDown", times=2)
    assert stand.receiver.list() == stored
    assert stand.gateway.told == 2


def test_clock_that_differs_is_found_before_anything_is_served(stand: Stand) -> None:
    stand.gateway.late = 1200.0
    checked = stand.receiver.fullsendd("check")
    stand.gateway.late = 0.0
    assert checked.returncode != 0
    assert re.search(rb"problem  clock: this host is 1(199|200|201) s behind", checked.stdout)


def test_overload_that_lasts_ends_commands_which_go_on_later(tmp_path: Path) -> None:
    """A prune tells what it has done, and prunes other senders; a copy resumes with what it lacks."""
    with LyingGateway(gateways()[0]) as gateway:
        receiver = BucketReceiver(
            tmp_path / "receiver", prefix=f"lies/{secrets.token_hex(8)}", endpoint=gateway.address
        )
        receiver.init(min_free="0")
        store = store_in(receiver.bucket, tmp_path)
        for sender, count in (("alpha", 4), ("beta", 3)):
            for number in range(count):
                store_stream(store, sender, small(number))
        with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
            file.write(POLICY)
        good(receiver.fullsendd("clock", "--accept"))

        # The client library repeats a request after 503, and not after this, which means the same.
        # A conditional PUT is repeated three times.
        gateway.lie(400, "ServiceUnavailable", method="PUT", like="/alpha/tank/.*[.]json", after=1, times=4)
        pruned = receiver.fullsendd("prune", "--yes-more")
        gateway.tell_truth()
        assert pruned.returncode == 1
        assert pruned.stderr.count(b"alpha: its prune has failed: ") == 1
        assert len(receiver.list("beta")) == 2
        good(receiver.fullsendd("prune", "--yes-more"))
        assert [len(receiver.list(name)) for name in ("alpha", "beta")] == [2, 2]

        folder = Receiver(tmp_path / "folder")
        folder.init(min_free="0")
        to = ("copy", "--quiet", "--to", folder.env["FULLSENDD_CONFIG"])
        gateway.lie(400, "ServiceUnavailable", method="GET", like=r"/alpha/[^?]*zst\.[^?]*$")
        copied = receiver.fullsendd(*to)
        gateway.tell_truth()
        assert copied.returncode == 1
        assert b"(400 ServiceUnavailable): the object store is overloaded or down: try again later" in copied.stderr
        good(receiver.fullsendd(*to))
        assert folder.list() == receiver.list()
        good(folder.fullsendd("verify", "--quiet"))


def test_second_daemon_of_one_home_is_refused(receiver: BucketReceiver) -> None:
    with started(receiver):
        second = run("fullsend_receiver", "serve", env=receiver.env)
        assert "another fullsendd serves this store" in one_line(second)
    assert receiver.stop(signal.SIGTERM) is None


def test_key_that_is_missing_is_named(receiver: BucketReceiver) -> None:
    (receiver.folder / "home" / ".state" / "key.pem").unlink()
    assert "key and certificate cannot be used" in one_line(receiver.fullsendd("serve"))
