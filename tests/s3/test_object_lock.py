"""Versions and locks of a real object store: as the client sees them, and as a store in such a bucket does.

Ceph 16 ignores conditions in a bucket with versions, so no store can be made there: `init` says so. What keeps, shows
and deletes versions is tried nevertheless: it is the same in a store that honours conditions. SeaweedFS is one.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.programs import Sender, good, started, wait_for
from tests.receiver.buckets import ACCESS_KEY, SECRET_KEY, gateways, put_part
from tests.s3.ceph import IS_CEPH
from tests.s3.hosts import POLICY, BucketReceiver, push_chain

from fullsend_receiver.store.api import KeptVersions
from fullsend_receiver.store_s3 import client, keys, versions
from fullsend_receiver.store_s3.bucket import LockRule
from fullsend_receiver.store_s3.client import Access, BotoBucket
from fullsend_receiver.store_s3.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.s3

#: A key as ours are, with a "%" in it.
KEY = "alpha/tank%20data/@now.1122334455667788.zfs.zst"


def locking(*, days: int = 0) -> BotoBucket:
    """A new bucket with Object Lock. `days`: of its default retention, 0: none."""
    access = Access(gateways()[0], "us-east-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    name = f"lock-{secrets.token_hex(8)}"
    made = BotoBucket(name, "zfs", access)
    made._client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    if days:
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": days}}
        said = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        made._client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=said)
    return made


@pytest.fixture
def bucket() -> BotoBucket:
    return locking()


def retain(bucket: BotoBucket, key: str, seconds: float) -> None:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    retention = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
    bucket._client.put_object_retention(Bucket=bucket._bucket, Key=f"zfs/{key}", Retention=retention)


def hold(bucket: BotoBucket, key: str, status: str) -> None:
    bucket._client.put_object_legal_hold(Bucket=bucket._bucket, Key=f"zfs/{key}", LegalHold={"Status": status})


def test_probe_says_what_the_bucket_is(bucket: BotoBucket) -> None:
    assert (bucket.versioning(), bucket.object_lock()) == ("Enabled", LockRule())
    found = {each.what: each for each in probe(bucket)}
    assert found["Object Lock"].holds
    assert "deleted with what is removed" in found["no versions of what is deleted"].says
    condition = found["PUT If-None-Match"]
    assert not (IS_CEPH and condition.holds)
    assert condition.holds or "use a bucket without" in condition.says
    assert versions.sweep(bucket) == KeptVersions()
    assert list(bucket.versions("")) == []


def test_default_retention_locks_also_what_came_in_parts() -> None:
    bucket = locking(days=1)
    assert bucket.object_lock() == LockRule("GOVERNANCE", 86400.0)
    upload = bucket.begin_parts(KEY)
    assert bucket.complete(KEY, upload, [put_part(bucket, KEY, upload, 1, b"data")])
    assert bucket.locked_until(KEY) == pytest.approx(time.time() + 86400, abs=300)
    assert versions.purge(bucket, KEY)
    assert bucket.head(KEY) is None
    assert versions.left(bucket) == KeptVersions(1, 4)
    assert [(each.is_marker, each.size) for each in bucket.versions(KEY)] == [(True, 0), (False, 4)]
    swept = versions.sweep(bucket)
    assert swept.count >= 1
    assert bucket.head(KEY) is None


@pytest.mark.parametrize(
    ("lock", "unlock", "until"),
    [
        (lambda bucket: retain(bucket, KEY, 5), lambda _bucket: None, None),
        (lambda bucket: hold(bucket, KEY, "ON"), lambda bucket: hold(bucket, KEY, "OFF"), math.inf),
    ],
)
def test_lock_is_seen_and_its_end_lets_the_bytes_go(
    bucket: BotoBucket,
    lock: Callable[[BotoBucket], None],
    unlock: Callable[[BotoBucket], None],
    until: float | None,
) -> None:
    bucket.put(KEY, b"data")
    assert bucket.locked_until(KEY) is None
    lock(bucket)
    assert bucket.locked_until(KEY) == (pytest.approx(time.time() + 5, abs=5) if until is None else until)
    (version,) = bucket.versions(KEY)
    assert not bucket.delete_version(KEY, version.version)
    unlock(bucket)
    wait_for(lambda: bucket.locked_until(KEY) is None)
    assert versions.purge(bucket, KEY)
    wait_for(lambda: versions.sweep(bucket) == KeptVersions())  # by the clock of the gateway
    assert list(bucket.versions(KEY)) == []


def test_versions_are_listed_page_by_page(bucket: BotoBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGE", 2)
    names = [f"{keys.STATE}paper%20{number}" for number in range(3)]
    for name in names * 3:
        bucket.put(name, b"data")
    bucket.delete(names[1])
    found = [(each.key, each.is_latest, each.is_marker) for each in bucket.versions(keys.STATE)]
    old = (False, False)
    assert found == [
        *((names[0], *each) for each in ((True, False), old, old)),
        *((names[1], *each) for each in ((True, True), old, old, old)),
        *((names[2], *each) for each in ((True, False), old, old)),
    ]
    assert versions.sweep(bucket) == KeptVersions()
    assert [(each.key, each.is_latest) for each in bucket.versions("")] == [(names[0], True), (names[2], True)]


def test_prune_and_merge_go_on_beside_what_is_locked(tmp_path: Path) -> None:
    bucket = locking()
    receiver = BucketReceiver(tmp_path / "receiver", prefix="zfs", name=bucket._bucket)
    lacking = [each for each in probe(bucket) if each.needed and not each.holds]
    if lacking:
        receiver.folder.mkdir()
        done = receiver.fullsendd("init", *receiver.place, "--listen", f"127.0.0.1:{receiver.port}")
        assert done.returncode != 0
        assert b"use a bucket without" in done.stdout + done.stderr
        return
    receiver.init(min_free="0", tries_per_minute=1000)
    sender, guest = Sender(tmp_path / "sender", "alpha"), Sender(tmp_path / "guest", "guest")
    with started(receiver):
        for each in (sender, guest):
            each.join(receiver)
        pushed = push_chain(sender)
        push_chain(guest)
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write(POLICY)
    good(receiver.fullsendd("clock", "--accept"))
    # The second stream builds on the first, and the policy keeps the third.
    file_of_second = pushed[1]["receipt"]["file"]
    manifest = bucket.get(f"{file_of_second}.json")
    assert manifest is not None
    retain(bucket, json.loads(manifest.data)["bucket"]["data"], 3600)
    said = good(receiver.fullsendd("prune", "--yes-more")).decode()
    assert "locked until" in said
    left = receiver.list()
    assert [entry["guid"] for entry in left if entry["sender"] == "alpha"] == [each["guid"] for each in pushed]
    assert len([entry for entry in left if entry["sender"] == "guest"]) < len(pushed)
    good(receiver.fullsendd("verify", "--quiet"))
