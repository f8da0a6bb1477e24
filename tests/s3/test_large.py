"""Streams of more parts than an upload has, through both programs, into a real Ceph. Parts are small here."""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.programs import Sender, environment, good, started, wait_for
from tests.receiver.helpers import decode
from tests.s3 import small_parts
from tests.s3.hosts import BucketReceiver

from fullsend_receiver.store_s3 import keys

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.s3


@pytest.fixture
def receiver(tmp_path: Path) -> BucketReceiver:
    # A name that has "%20" in its key, which Ceph does not find as the source of a copy.
    receiver = BucketReceiver(tmp_path / "receiver", prefix=f"large/{secrets.token_hex(8)}")
    receiver.init(min_free="0", tries_per_minute=1000)
    return receiver


def stream(mebibytes: int) -> bytes:
    """Return a stream of so many MiB, which no compression makes smaller."""
    noise = random.Random(3)
    records = [streams.write(1, index << 20, noise.randbytes(1 << 20)) for index in range(mebibytes)]
    return streams.substream(streams.object_(1), *records, name="tank/my data@now")


def segments(receiver: BucketReceiver) -> set[str]:
    """The segments that have begun and are not copied."""
    names = {each.key for each in receiver.bucket.entries(keys.PARTIAL)}
    names |= {each.key for each in receiver.bucket.unfinished(keys.PARTIAL)}
    return {name for name in names if keys.is_segment(name)}


def check_stored(receiver: BucketReceiver, raw: bytes) -> dict[str, object]:
    """See that the stream is stored, as one object and whole. Returns: its manifest."""
    bucket = receiver.bucket
    assert list(bucket.entries(keys.PARTIAL)) == []
    assert [each for each in bucket.unfinished("") if not each.key.startswith(keys.PROBE)] == []
    (name,) = [each.key for each in bucket.entries("alpha/") if each.key.endswith(".zst")]
    (said,) = [each.key for each in bucket.entries("alpha/") if each.key.endswith(".json")]
    content, manifest = bucket.get(name), bucket.get(said)
    assert content is not None
    assert manifest is not None
    told: dict[str, object] = json.loads(manifest.data)
    assert hashlib.sha256(content.data).hexdigest() == told["file_sha256"]
    assert len(content.data) == told["stored_bytes"]
    assert decode(content.data) == raw
    return told


def test_stream_of_more_parts_than_an_upload_has_is_stored_and_read(receiver: BucketReceiver, tmp_path: Path) -> None:
    sender, raw = Sender(tmp_path / "sender", "alpha"), stream(96)
    with started(receiver, *small_parts.COMMAND):
        sender.join(receiver)
        (pushed,) = sender.push("--stdin", stdin=raw)
        assert good(sender.fullsend("cat", pushed["receipt"]["file"])) == raw
        good(sender.fullsend("verify"))
    check_stored(receiver, raw)


def test_daemons_are_killed_while_segments_fill(receiver: BucketReceiver, tmp_path: Path) -> None:
    sender, raw = Sender(tmp_path / "sender", "alpha"), stream(96)
    (tmp_path / "stream").write_bytes(raw)
    receiver.start(*small_parts.COMMAND)
    try:
        sender.join(receiver)
        # Slow: what arrives while a busy object store stores a part is the next part, and three segments are needed.
        command = ("push", "--stdin", "--bwlimit", "4M", "--retry-for", "300s")
        with (tmp_path / "stream").open("rb") as source:
            push = sender.popen(*command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen: set[str] = set()
        for _kill in range(3):
            wait_for(lambda: not segments(receiver) <= seen)  # noqa: B023 - it is called here alone
            seen |= segments(receiver)
            receiver.stop(signal.SIGKILL)
            receiver.start(*small_parts.COMMAND)
        _out, said = push.communicate(timeout=300)
        assert push.returncode == 0, said
    finally:
        receiver.stop()
    assert check_stored(receiver, raw)["resumptions"]


def test_stream_that_is_too_large_is_refused_at_its_start_or_when_it_is(
    receiver: BucketReceiver, tmp_path: Path
) -> None:
    sender, raw = Sender(tmp_path / "sender", "alpha"), stream(140)
    with started(receiver, *small_parts.COMMAND):
        sender.join(receiver)
        announced = sender.fullsend("push", "--stdin", "--size", "2G", stdin=raw)
        assert announced.returncode == 3
        assert segments(receiver) == set()
        unknown = sender.fullsend("push", "--stdin", stdin=raw)
        assert unknown.returncode == 3
        # By what is there of it, it is refused at its start now.
        again = sender.fullsend("push", "--stdin", "--size", "140M", stdin=raw)
        assert again.returncode == 3
    for done, says in ((announced, "at best"), (unknown, "128.0 MiB"), (again, "of what has arrived of it")):
        (line,) = [each for each in done.stderr.decode().splitlines() if "too large" in each]
        assert "tank/my data@now: is too large" in line
        assert says in line


def test_check_tells_whether_the_bucket_copies(receiver: BucketReceiver) -> None:
    done = subprocess.run(
        [*small_parts.COMMAND[:-1], "check"], env=environment(**receiver.env), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"UploadPartCopy" in done.stdout
