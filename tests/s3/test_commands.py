"""Both programs with a store in a real Ceph, as users run them."""

from __future__ import annotations

import hashlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tests import streams
from tests.programs import Receiver, Sender, good, rows, started, wait_for
from tests.s3.hosts import CHAIN, POLICY, BucketReceiver, arrived, large, made, point_at, push_chain, pushing
from tests.streams import Genuine, each, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BucketReceiver, Sender]]:
    """One daemon and one sender for all streams: they have to be kept apart there, too."""
    folder = tmp_path_factory.mktemp("bucket")
    receiver = made(folder)
    with started(receiver):
        sender = Sender(folder / "sender", "alpha")
        sender.join(receiver)
        yield receiver, sender


@each(whole)
def test_goes_there_and_comes_back_byte_for_byte(shared: tuple[BucketReceiver, Sender], stream: Genuine) -> None:
    receiver, sender = shared
    if stream.name == "tree-R-I":  # by the design's words the same stream as tree-R-i
        sender = Sender(receiver.folder / "twin", "twin")
        sender.join(receiver)
    raw = stream.read()
    (pushed,) = sender.push("--stdin", "--allow-orphan", stdin=raw)
    assert pushed["sha256"] == stream.sha256 == pushed["receipt"]["sha256"]
    assert good(sender.fullsend("cat", pushed["receipt"]["file"])) == raw


@pytest.mark.timeout(300)  # it reads all of them
def test_all_of_them_are_whole(shared: tuple[BucketReceiver, Sender]) -> None:
    receiver, sender = shared
    stored = receiver.list()
    assert len(stored) >= len(sender.list()) > 10
    assert all(entry["damaged"] is None for entry in stored)
    good(receiver.fullsendd("verify", "--quiet"))
    checked = receiver.fullsendd("check").stdout.decode().splitlines()
    # Some of the corpus are increments without their base.
    assert all("not restorable" in line for line in checked if line.startswith("problem"))
    assert "ok       PUT If-None-Match" in checked
    assert list(receiver.bucket.entries(".partial/")) == []


def test_commands_work_with_and_without_the_daemon(receiver: BucketReceiver, sender: Sender) -> None:
    pushed = push_chain(sender)

    def looks() -> list[bytes]:
        status = rows(receiver.fullsendd("status", "--json").stdout)
        return [
            good(receiver.fullsendd("list", "--json")),
            good(receiver.fullsendd("senders", "--json")),
            good(receiver.fullsendd("show", f"alpha/guid:{pushed[1]['guid']}")),
            good(receiver.fullsendd("cat", f"alpha/guid:{pushed[0]['guid']}")),
            good(receiver.fullsendd("ls", f"alpha/{pushed[2]['dataset']}@{pushed[2]['snapshot']}")),
            json.dumps([each.get("dataset") for each in status]).encode(),
        ]

    with_daemon = looks()
    assert hashlib.sha256(with_daemon[3]).hexdigest() == pushed[0]["sha256"]
    good(receiver.fullsendd("report", "--html", str(receiver.folder / "report.html")))
    assert "src/plain" in (receiver.folder / "report.html").read_text(encoding="utf-8")
    receiver.stop()
    assert looks() == with_daemon
    receiver.start()
    assert [entry["guid"] for entry in sender.list()] == [each["guid"] for each in pushed]


def live(receiver: BucketReceiver) -> bool:
    """Whether something arrives at this host now."""
    return bool(json.loads(good(receiver.fullsendd("top", "--json", "--once")))["transfers"])


def test_push_resumes_after_its_daemon_was_killed(receiver: BucketReceiver, sender: Sender, tmp_path: Path) -> None:
    raw = large(1)
    (tmp_path / "stream").write_bytes(raw)
    push = pushing(sender, tmp_path / "stream")
    wait_for(lambda: arrived(receiver) > 0)
    receiver.stop(signal.SIGKILL)
    receiver.start()
    _out, said = push.communicate(timeout=150)
    assert push.returncode == 0, said
    (stored,) = receiver.list()
    manifest = receiver.bucket.get(f"{stored['file']}.json")
    assert manifest is not None
    assert json.loads(manifest.data)["resumptions"]
    assert good(sender.fullsend("cat", stored["file"])) == raw


def test_stream_resumes_after_its_sender_was_killed(receiver: BucketReceiver, sender: Sender, tmp_path: Path) -> None:
    raw = large(2)
    (tmp_path / "stream").write_bytes(raw)
    push = pushing(sender, tmp_path / "stream")
    wait_for(lambda: arrived(receiver) > 0)
    push.kill()
    push.communicate()
    wait_for(lambda: not live(receiver))
    (pushed,) = sender.push("--stdin", stdin=raw)
    assert pushed["wire_bytes"] < len(raw)
    assert good(sender.fullsend("cat", pushed["receipt"]["file"])) == raw


def test_streams_are_pruned_merged_and_brought_back(receiver: BucketReceiver, sender: Sender) -> None:
    pushed = push_chain(sender)
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write(POLICY)
    receiver.stop()
    good(receiver.fullsendd("clock", "--accept"))
    good(receiver.fullsendd("prune", "--yes-more"))
    full, *others = receiver.list()
    assert (full["guid"], full["kind"]) == (pushed[1]["guid"], "full")
    assert [entry["guid"] for entry in others] == [each["guid"] for each in pushed[2:]]
    merged = good(receiver.fullsendd("cat", f"alpha/guid:{full['guid']}"))
    assert hashlib.sha256(merged).hexdigest() == CHAIN.genuine(None, 1)
    assert len(rows(good(receiver.fullsendd("undelete", "--json")))) == 2
    receiver.start()
    assert len(sender.list()) == 3
    good(receiver.fullsendd("verify", "--quiet"))


def test_damage_is_found_and_repaired(receiver: BucketReceiver, sender: Sender) -> None:
    stream = streams.named("full")
    (pushed,) = sender.push("--stdin", stdin=stream.read())
    (data,) = [each.key for each in receiver.bucket.entries("alpha/") if each.key.endswith(".zst")]
    found = receiver.bucket.get(data)
    assert found is not None
    spoilt = bytearray(found.data)
    spoilt[len(spoilt) // 3] ^= 1
    receiver.bucket.put(data, bytes(spoilt))
    assert receiver.fullsendd("verify", "--quiet").returncode != 0
    assert receiver.list()[0]["damaged"]
    assert sender.fullsend("cat", pushed["receipt"]["file"]).returncode != 0
    (again,) = sender.push("--stdin", stdin=stream.read())
    assert again["sha256"] == stream.sha256
    assert receiver.list()[0]["damaged"] is None
    assert good(sender.fullsend("cat", again["receipt"]["file"])) == stream.read()
    assert good(receiver.fullsendd("list", "--damaged"))


def test_two_hosts_serve_one_store(receiver: BucketReceiver, sender: Sender, tmp_path: Path) -> None:
    other = BucketReceiver(tmp_path / "other", prefix=receiver.prefix, gateway=1)
    other.adopt(receiver)
    first, *rest = [raw for _name, raw in CHAIN.run(None, 3)]
    with started(other):
        sender.push("--stdin", stdin=first)
        point_at(sender, other)
        sender.push("--stdin", stdin=rest[0])
        point_at(sender, receiver)
        sender.push("--stdin", stdin=rest[1])
        assert other.list() == receiver.list()
        assert len(receiver.list()) == 3
        guest = Sender(tmp_path / "guest", "guest")
        guest.join(other)
        point_at(guest, receiver)
        guest.push("--stdin", stdin=first)
        good(other.fullsendd("revoke", "guest"))
        assert guest.fullsend("list").returncode != 0
        # Damage that one host finds, the other one knows.
        data = next(each.key for each in receiver.bucket.entries("alpha/") if each.key.endswith(".zst"))
        receiver.bucket.put(data, b"spoilt")
        assert receiver.fullsendd("verify", "--quiet").returncode != 0
        assert [entry["damaged"] for entry in other.list("alpha")] == [
            entry["damaged"] for entry in receiver.list("alpha")
        ]
        assert any(entry["damaged"] for entry in other.list("alpha"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stalled"])
def test_other_host_takes_over(receiver: BucketReceiver, sender: Sender, tmp_path: Path, how: signal.Signals) -> None:
    """The sender has both addresses. A host that wakes up afterwards damages nothing."""
    other = BucketReceiver(tmp_path / "other", prefix=receiver.prefix, gateway=1)
    other.adopt(receiver)
    raw = large(3)
    (tmp_path / "stream").write_bytes(raw)
    with started(other):
        point_at(sender, receiver)
        push = pushing(sender, tmp_path / "stream")
        wait_for(lambda: arrived(receiver) > 0)
        push.kill()
        push.communicate()
        wait_for(lambda: not live(receiver))
        point_at(sender, receiver, other)
        push = pushing(sender, tmp_path / "stream", "--retry-for", "120s")
        wait_for(lambda: live(receiver) or live(other))
        first, second = (receiver, other) if live(receiver) else (other, receiver)
        assert first.process is not None
        first.process.send_signal(how)
        _out, said = push.communicate(timeout=170)
        assert push.returncode == 0, said
        if how is signal.SIGSTOP:
            first.process.send_signal(signal.SIGCONT)
        else:
            first.stop(signal.SIGKILL)
            first.start()
        for host in (second, first):
            (stored,) = host.list()
            assert good(host.fullsendd("cat", f"alpha/guid:{stored['guid']}")) == raw
        assert good(sender.fullsend("cat", stored["file"])) == raw
    assert list(receiver.bucket.entries(".partial/")) == []
    assert list(receiver.bucket.unfinished("")) == []


def test_streams_are_copied_out_of_the_bucket_and_into_another(
    receiver: BucketReceiver, sender: Sender, tmp_path: Path
) -> None:
    push_chain(sender)
    folder, bucket = Receiver(tmp_path / "folder"), made(tmp_path / "again")
    folder.init(min_free="0")
    first = good(receiver.fullsendd("copy", "--to", folder.env["FULLSENDD_CONFIG"], "--quiet"))
    assert first.count(b": copied\n") == 4
    assert good(folder.fullsendd("copy", "--to", bucket.env["FULLSENDD_CONFIG"], "--quiet")) == first
    assert folder.list() == bucket.list() == receiver.list()
    good(bucket.fullsendd("verify", "--quiet"))
    for entry in receiver.list():
        stored = f"alpha/guid:{entry['guid']}"
        assert good(bucket.fullsendd("cat", stored)) == good(receiver.fullsendd("cat", stored))
    assert good(receiver.fullsendd("copy", "--to", bucket.env["FULLSENDD_CONFIG"], "--quiet")) == b""


def test_two_hosts_of_a_bucket_copy_it_once(receiver: BucketReceiver, sender: Sender, tmp_path: Path) -> None:
    """Both have the same table [copy], and begin at the same time."""
    push_chain(sender)
    folder = Receiver(tmp_path / "folder")
    folder.init(min_free="0")
    second = BucketReceiver(tmp_path / "second", prefix=receiver.prefix, gateway=1)
    second.adopt(receiver)
    assert receiver.stop() == 0
    for host in (receiver, second):
        with (host.folder / "receiver.toml").open("a", encoding="utf-8") as file:
            file.write(f'[copy]\nto = "{folder.env["FULLSENDD_CONFIG"]}"\nevery = "1h"\n')
    with started(receiver), started(second):
        wait_for(lambda: status(second)["copy"]["complete"] is not None)
        assert status(receiver)["copy"]["complete"] is not None
        assert [each["code"] for each in status(receiver)["alarms"]] == []
    logs = receiver.log.read_text() + second.log.read_text()
    assert logs.count(": copied\n") == 4
    assert "has failed" not in logs
    assert folder.list() == receiver.list()
    good(folder.fullsendd("verify", "--quiet"))


def status(receiver: Receiver) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(receiver.fullsendd("status", "--json").stdout)
    return found
