"""Two daemons at two gateways of one Ceph: killed, and stalled, at any moment; gateways and the OSD are killed, too."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from tests import streams
from tests.receiver.buckets import in_ceph, store_in
from tests.receiver.helpers import SENDER, decode
from tests.s3.ceph import GATEWAYS, OSD, needs_ceph, restart
from tests.s3.daemon import large

from fullsend_receiver.store_s3 import keys

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.s3

#: How many streams are received, each by daemons that are killed until one of them is done.
ROUNDS: Final = int(os.environ.get("FULLSEND_TEST_S3_ROUNDS", "2"))


def daemon(prefix: str, gateway: int, folder: Path, direct: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.s3.daemon", prefix, str(gateway), str(folder), str(direct)]
    return subprocess.Popen(command, cwd=streams.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Told:
    """What the daemons have said so far."""

    def __init__(self) -> None:
        self.acknowledged = self.kills = 0
        self.stored = False

    def follow(self, process: subprocess.Popen[str], steps: int | None) -> None:
        """Read what a daemon says until it ends, or until its `steps`-th step."""
        assert process.stdout is not None
        for line in process.stdout:
            word, *rest = line.split()
            if word == "at":
                assert int(rest[0]) >= self.acknowledged, "what was acknowledged is lost"
            elif word == "acknowledged":
                self.acknowledged = int(rest[0])
            elif word == "stored":
                self.stored = True
            elif steps is not None and (steps := steps - 1) == 0:
                return

    def end(self, process: subprocess.Popen[str]) -> str:
        """Wait for the end of a daemon. Returns: what it complained of."""
        _out, complaint = process.communicate()
        return complaint


def check(prefix: str, folder: Path) -> None:
    """See that the stream is stored, whole, and alone."""
    bucket = in_ceph(prefix)
    store = store_in(bucket, folder)
    assert store.recover() == []
    (found,) = store.objects(SENDER)
    blob = store.open(found.file)
    data = blob.read(0, blob.size)
    assert hashlib.sha256(data).hexdigest() == store.manifest(found.file).file_sha256
    assert decode(data) == large()
    assert len([each.key for each in bucket.entries(f"{SENDER}/")]) == 3
    assert list(bucket.entries(".partial/")) == []
    # A probe that was killed leaves what it has begun, for a day.
    assert [each for each in bucket.unfinished("") if not each.key.startswith(keys.PROBE)] == []


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("direct", "steps"), [(7500, 24), (1, 50)], ids=["one upload", "segments"])
def test_killed_daemons_lose_nothing_that_they_acknowledged(
    prefix: str, tmp_path: Path, direct: int, steps: int
) -> None:
    """`steps`: the first ones in which a daemon is killed; later ones would seldom kill anything."""
    choose = random.Random(os.environ.get("FULLSEND_TEST_S3_SEED", "1"))
    kills = 0
    for number in range(ROUNDS):
        place = f"{prefix}-{number}"
        told = Told()
        for gateway in itertools.cycle([0, 1]):
            process = daemon(place, gateway, tmp_path, direct)
            told.follow(process, choose.randint(1, steps))
            if told.stored:
                assert told.end(process) == ""
                break
            process.send_signal(signal.SIGKILL)
            assert told.end(process) == ""
            kills += 1
        check(place, tmp_path)
    assert kills >= ROUNDS
    print(f"{kills} daemons were killed")


@pytest.mark.alone
@needs_ceph
@pytest.mark.timeout(4 * 3600)
def test_killed_gateways_and_osd_lose_nothing_that_was_acknowledged(prefix: str, tmp_path: Path) -> None:
    choose = random.Random(os.environ.get("FULLSEND_TEST_S3_SEED", "1"))
    first = iter((OSD, "daemon", GATEWAYS[1]))  # in the default run
    killed: Counter[str] = Counter()
    died = 0
    for number in range(max(1, ROUNDS // 2)):
        place, direct = f"{prefix}-{number}", (7500, 1)[number % 2]
        told = Told()
        for gateway in itertools.cycle([0, 1]):
            process = daemon(place, gateway, tmp_path, direct)
            while process.poll() is None:
                told.follow(process, choose.randint(1, 12))
                if told.stored or process.poll() is not None:
                    break
                name = next(first, None) or choose.choice(["daemon", "daemon", *GATEWAYS, OSD])
                killed[name] += 1
                if name == "daemon":
                    process.send_signal(signal.SIGKILL)
                    break
                restart(name)
            # One that has waited long enough for the object store says so, and ends.
            if complaint := told.end(process):
                assert "BucketBusy" in complaint, complaint
                died += 1
            if told.stored:
                break
        check(place, tmp_path)
        print(f"killed: {dict(killed)}; {died} daemons have ended with an error, {number + 1} streams", flush=True)


@pytest.mark.parametrize(("direct", "steps"), [(7500, 9), (1, 18), *((1, step) for step in range(24, 29))])
def test_daemon_that_is_stopped_and_wakes_up_damages_nothing(
    prefix: str, tmp_path: Path, direct: int, steps: int
) -> None:
    """By step 18 one with segments has begun the first. By steps 24 to 28 it closes, makes, copies and deletes it."""
    stalled, other = Told(), Told()
    first = daemon(prefix, 0, tmp_path, direct)
    stalled.follow(first, steps)
    first.send_signal(signal.SIGSTOP)
    other.acknowledged = stalled.acknowledged
    second = daemon(prefix, 1, tmp_path, direct)
    other.follow(second, None)
    assert other.end(second) == ""
    assert other.stored
    check(prefix, tmp_path)
    first.send_signal(signal.SIGCONT)
    stalled.follow(first, None)
    complaint = stalled.end(first)
    assert first.returncode != 0
    assert any(each in complaint for each in ("UploadLost", "BucketError", "BucketBusy"))
    assert not stalled.stored
    check(prefix, tmp_path)
