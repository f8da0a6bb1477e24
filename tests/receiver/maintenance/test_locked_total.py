"""What a prune leaves, because a bucket locks it: what it says, and what stays whole."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import time as time_of_day
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.chains import named
from tests.receiver.buckets import store_in
from tests.receiver.helpers import SENDER, small_stream, store_stream
from tests.receiver.versioned_bucket import VersionedBucket

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.events.records import PruneFinished
from fullsend_receiver.maintenance import daily_prune
from fullsend_receiver.maintenance.clock import SystemClock
from fullsend_receiver.maintenance.daily_prune import DailyPrune
from fullsend_receiver.maintenance.locked_total import LockedTotal
from fullsend_receiver.maintenance.merging import Merged, Merger
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules
from fullsend_receiver.maintenance.prune import Judged, Pruner
from fullsend_receiver.maintenance.prune_records import read_try, troubles
from fullsend_receiver.store_s3 import manifests

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.store_s3.stores import BucketStore

DAY = 86400.0
LOCKED_FOR = 30 * DAY
DATASET = "tank/data"
POLICY = Policy(last=1, minimum_count=0, minimum_age=0)
RULES = PruneRules(lambda _sender, _dataset: POLICY, suspicious=False)


def keep(store: BucketStore, *bases: int | None) -> list[PurePosixPath]:
    """Store snapshot 1, 2, ... each on the one of `bases`."""
    made = []
    for number, base in enumerate(bases, 1):
        made.append(store_stream(cast("Any", store), SENDER, small_stream(DATASET, number, base)))
    return made


def prune(store: BucketStore, rules: PruneRules = RULES, *, dry_run: bool = False) -> tuple[list[str], LockedTotal]:
    """Prune. Returns: the dropped files, and what was locked."""
    dropped, locked = [], LockedTotal()
    for event in Pruner(store, rules, time.time()).prune(SENDER, yes_more=True, dry_run=dry_run):
        if isinstance(event, Judged):
            locked.add(event)
            dropped += [event.decision.stream.path] * event.dropped
    return dropped, locked


def data_of(bucket: VersionedBucket, file: PurePosixPath) -> str:
    found = manifests.read(bucket, file)
    assert found is not None
    assert found.data is not None
    return found.data


def listed(store: BucketStore) -> list[PurePosixPath]:
    return [each.file for each in read_catalogue(store).streams]


@pytest.mark.parametrize("dry_run", [True, False])
def test_locked_streams_stay_and_the_others_go(tmp_path: Path, dry_run: bool) -> None:
    bucket = VersionedBucket(retention=0.0)
    store = store_in(bucket, tmp_path)
    files = keep(store, *[None] * 6)
    until = time.time() + DAY
    bucket.lock(data_of(bucket, files[1]), until)
    bucket.lock(data_of(bucket, files[2]))
    dropped, locked = prune(store, dry_run=dry_run)
    assert sorted(dropped) == [str(files[0]), str(files[3])]
    assert (locked.streams, locked.until) == (2, math.inf)
    assert locked.line.endswith("cannot go yet: locked, the last until its legal hold is removed")
    assert len(listed(store)) == (6 if dry_run else 4)
    catalogue = read_catalogue(store)
    assert all(map(catalogue.restorable, catalogue.streams))


def test_bases_of_a_locked_stream_stay_with_it(tmp_path: Path) -> None:
    bucket = VersionedBucket(retention=0.0)
    store = store_in(bucket, tmp_path)
    files = keep(store, None, 1, 2, 3, None, 5)
    bucket.lock(data_of(bucket, files[2]), time.time() + DAY)
    dropped, locked = prune(store)
    assert dropped == [str(files[3])]
    assert locked.streams == 1
    bucket.lock(data_of(bucket, files[2]), 0.0)
    dropped, locked = prune(store)
    assert (sorted(dropped), locked) == (sorted(map(str, files[:3])), LockedTotal())


def test_default_retention_delays_a_prune_and_loses_nothing(tmp_path: Path) -> None:
    bucket = VersionedBucket(retention=LOCKED_FOR)
    store = store_in(bucket, tmp_path)
    files = keep(store, *[None] * 4)
    dropped, locked = prune(store)
    assert dropped == []
    assert locked.streams == 2
    assert locked.until == pytest.approx(time.time() + LOCKED_FOR, abs=100)
    assert locked.end == format_time(locked.until)
    before = bucket.bytes_kept
    data = [data_of(bucket, each) for each in files]
    bucket.age(LOCKED_FOR)
    assert sorted(prune(store)[0]) == sorted(map(str, files[:2]))
    assert not {*data[:2]} & bucket.history.keys()
    store.kept_versions(sweep=True)
    assert bucket.bytes_kept < before
    assert {*data[2:]} < bucket.history.keys()


def test_locked_streams_are_not_merged_before_they_can_go(tmp_path: Path) -> None:
    bucket = VersionedBucket(retention=LOCKED_FOR)
    store = store_in(bucket, tmp_path)
    rules = PruneRules(RULES.policy_of, suspicious=False, merging=MergeRules(rebase_after=0.0))
    chain = named("t1-vol-ec")
    for _name, raw in chain.run(None, chain.snapshots - 1):
        store_stream(cast("Any", store), SENDER, raw)

    def merged() -> list[Merged]:
        merger = Merger(Catalogues(store), rules, time.time())
        return [each for each in merger.merge(SENDER) if isinstance(each, Merged)]

    dropped, locked = prune(store, rules)
    assert dropped == []
    assert locked.streams
    assert merged() == []
    bucket.age(LOCKED_FOR)
    assert merged()
    assert len(listed(store)) < chain.snapshots


def test_daily_prune_tells_of_locks_and_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = VersionedBucket(retention=LOCKED_FOR)
    store = store_in(bucket, tmp_path)
    keep(store, *[None] * 4)
    said: list[Any] = []
    monkeypatch.setattr(daily_prune, "emit", lambda event, *_level: said.append(event))
    caplog.set_level("INFO")
    with ThreadPoolExecutor(1) as thread:
        daily = DailyPrune(store, RULES, time_of_day(3, 30), SystemClock(), thread)
        daily._sweep()
        assert daily._prune(RULES)
    (event,) = said
    assert isinstance(event, PruneFinished)
    assert (event.dropped, event.freed_bytes, event.failed, event.locked) == (0, 0, [], 2)
    assert event.locked_until
    assert event.text.endswith(f"cannot go yet: locked, the last until {event.locked_until}")
    last = read_try(store.documents)
    assert last is not None
    assert last.refused is None
    assert troubles(store, None, now=time.time(), since=0.0) == []
    assert "the bucket keeps" in caplog.text


def test_nothing_locked_says_nothing() -> None:
    assert (LockedTotal().line, LockedTotal().end) == ("", "")
