"""Daemons, gateways and the OSD are killed at random, while two daemons serve one store."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import pytest
from tests.programs import Sender, good, rows, started
from tests.receiver.buckets import store_in
from tests.s3.ceph import GATEWAYS, OSD, needs_ceph, restart
from tests.s3.hosts import BucketReceiver, large, point_at, pushing

from fullsend_receiver.store_s3 import keys

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store_s3.stores import BucketStore

pytestmark = [pytest.mark.s3, pytest.mark.alone, needs_ceph]

#: How often something is killed.
KILLS: Final = int(os.environ.get("FULLSEND_TEST_S3_KILLS", "5"))
#: Streams that stay in the store.
_STAY: Final = 8
#: What is killed, and how often each: a set is killed at once. The first of them are killed in the default run, too.
_SETS: Final = {
    (OSD,): 3,
    ("first",): 8,
    (GATEWAYS[1],): 4,
    ("second",): 8,
    (GATEWAYS[0],): 4,
    ("first", "second"): 3,
    ("first", OSD): 2,
    ("second", *GATEWAYS): 2,
    (*GATEWAYS, OSD): 1,
}


def kill(names: tuple[str, ...], daemons: dict[str, BucketReceiver]) -> None:
    """Kill these at once, and start them again: the object store first, without which no daemon starts."""
    for name in names:
        if name in daemons:
            daemons[name].stop(signal.SIGKILL)
    if parts := [name for name in names if name not in daemons]:
        restart(*parts)
    for name in names:
        if name in daemons:
            daemons[name].start()


def drop_older(receipts: list[str], store: BucketStore) -> list[str]:
    """Remove most of the stored streams, the older ones: the OSD is small. Returns: the others."""
    gone = [PurePosixPath(file) for file in receipts[: -_STAY // 2]]
    assert store.remove(lambda: gone) == gone
    return receipts[-_STAY // 2 :]


@pytest.mark.timeout(4 * 3600)
def test_nothing_that_is_acknowledged_is_lost(receiver: BucketReceiver, sender: Sender, tmp_path: Path) -> None:
    """FULLSEND_TEST_S3_KILLS: how often something is killed; FULLSEND_TEST_S3_SEED: of the choice.

    The sender itself fails if a receiver resumes before what it has acknowledged.
    """
    other = BucketReceiver(tmp_path / "other", prefix=receiver.prefix, gateway=1)
    other.adopt(receiver)
    daemons = {"first": receiver, "second": other}
    choose = random.Random(os.environ.get("FULLSEND_TEST_S3_SEED", "1"))
    first = iter(_SETS)
    killed: Counter[str] = Counter()
    kills = pushes = late = resumptions = 0
    receipts: list[str] = []
    with started(other):
        point_at(sender, receiver, other)
        while kills < KILLS:
            raw = large(100 + pushes)
            (tmp_path / "stream").write_bytes(raw)
            push = pushing(sender, tmp_path / "stream", "-v", "--json", "--retry-for", "600s", rate="16M")
            while push.poll() is None and kills < KILLS:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    push.wait(choose.uniform(0.2, 4.0))
                    break
                names = next(first, None) or choose.choices([*_SETS], [*_SETS.values()])[0]
                kill(names, daemons)
                kills += 1
                killed.update(names)
            out, said = push.communicate()
            if push.returncode == 75:  # lost before it had begun: cron comes again
                late += 1
                assert late < KILLS, said
                continue
            assert push.returncode == 0, said
            offsets = [int(each) for each in re.findall(rb"resumes at (\d+)", said)]
            assert offsets == sorted(offsets), said
            resumptions += len(offsets)
            pushes += 1
            receipts.append(rows(out)[0]["receipt"]["file"])
            stored = choose.choice([receiver, other]).list()
            assert [entry["file"] for entry in stored] == receipts
            assert good(choose.choice([receiver, other]).fullsendd("cat", f"alpha/guid:{stored[-1]['guid']}")) == raw
            print(f"{kills} kills {json.dumps(killed)}, {pushes} streams, {resumptions} resumptions", flush=True)
            if len(receipts) > _STAY:
                receipts = drop_older(receipts, store_in(receiver.bucket, tmp_path))
        good(sender.fullsend("verify"))
    # The sweep of a daemon that starts, long after all others have ended.
    store_in(receiver.bucket, tmp_path).recover()
    assert list(receiver.bucket.entries(".partial/")) == []
    # A probe that was killed leaves what it has begun, for a day.
    assert [each for each in receiver.bucket.unfinished("") if not each.key.startswith(keys.PROBE)] == []
    stored_keys = [each.key for each in receiver.bucket.entries("alpha/")]
    for suffix in (".zst", ".sha256"):  # a removed stream leaves its manifest as a tombstone
        assert sum(key.endswith(suffix) for key in stored_keys) == len(receipts)
