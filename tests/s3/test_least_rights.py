"""The policy of docs/s3-policy.json suffices, with a user who has no other rights."""

from __future__ import annotations

import math
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from tests import streams
from tests.programs import Sender, good, rows, started
from tests.receiver.buckets import BUCKET, gateways
from tests.s3.hosts import BucketReceiver
from tests.s3.test_object_lock import hold, locking

from fullsend_receiver.store.api import KeptVersions
from fullsend_receiver.store_s3 import keys, versions
from fullsend_receiver.store_s3.bucket import BucketError, LockRule
from fullsend_receiver.store_s3.client import Access, BotoBucket

pytestmark = pytest.mark.s3

#: The user that tests/s3/ceph-start has made.
USER, ACCESS_KEY, SECRET_KEY = "least", "leastkey", "leastsecret"
POLICY = Path(__file__).parents[2] / "docs" / "s3-policy.json"


def grant(owner: BotoBucket, name: str, prefix: str, *without: str) -> None:
    """Give the user the rights of the policy, except `without`."""
    text = POLICY.read_text(encoding="ascii")
    for action in without:
        text = re.sub(rf'"{action}",?\s*', "", text)
    for what, real in (("USER", USER), ("BUCKET", name), ("PREFIX", prefix)):
        text = text.replace(what, real)
    owner._client.put_bucket_policy(Bucket=name, Policy=re.sub(r",(\s*\])", r"\1", text))


def stream(number: int) -> bytes:
    """A stream of two chunks and more."""
    records = (streams.write(1, index << 20, bytes(1 << 20)) for index in range(9))
    return streams.substream(streams.object_(1), *records, name=f"tank/data@s{number}", guid=number)


def push(sender: Sender, number: int) -> str:
    (pushed,) = sender.push("--stdin", "--allow-orphan", stdin=stream(number))
    return str(pushed["receipt"]["file"])


def test_store_works_with_the_least_rights(tmp_path: Path) -> None:
    """Another user has made the store: by the rights of an owner of objects, this one could do more with its own."""
    receiver = BucketReceiver(tmp_path / "receiver", prefix=f"least/{secrets.token_hex(8)}")
    receiver.init(min_free="0", tries_per_minute=1000, when_suspicious="prune", prune_at="never", undelete_within="0s")
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write('[retention]\nlast = 1\nminimum-count = 0\nminimum-age = "0s"\n')
    sender = Sender(tmp_path / "sender", "alpha")
    with started(receiver):
        sender.join(receiver)
        first = [push(sender, number) for number in (1, 2, 3)]
    keys_ = f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    (receiver.folder / "credentials").write_text(keys_, encoding="ascii")
    assert receiver.fullsendd("check").returncode
    grant(receiver.bucket, BUCKET, receiver.prefix)
    with started(receiver):
        second = push(sender, 4)
        assert good(sender.fullsend("cat", first[-1])) == stream(3)
        assert good(sender.fullsend("cat", second)) == stream(4)
        good(receiver.fullsendd("verify"))
        pruned = rows(good(receiver.fullsendd("prune", "--yes-more", "--json")))
        assert sum(row["dropped"] for row in pruned) == 2
        said: list[Any] = rows(good(receiver.fullsendd("check", "--json")))
    assert {row["result"] for row in said} == {"ok"}
    assert [row["cost"] for row in said if "cost" in row] == ["push", "restore", "scrub"]
    receiver.bucket._client.delete_bucket_policy(Bucket=BUCKET)


@pytest.fixture
def least() -> tuple[BotoBucket, BotoBucket]:
    """A bucket with Object Lock, as its owner and as the other user see it."""
    owner = locking()
    access = Access(gateways()[0], "us-east-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    return owner, BotoBucket(owner._bucket, "zfs", access)


def test_versions_and_locks_need_no_more_rights(least: tuple[BotoBucket, BotoBucket]) -> None:
    owner, bucket = least
    grant(owner, owner._bucket, "zfs")
    assert (bucket.versioning(), bucket.object_lock()) == ("Enabled", LockRule())
    bucket.put("free", b"data")
    owner.put("free", b"more data")
    assert bucket.locked_until("free") is None
    assert versions.purge(bucket, "free")
    assert list(bucket.versions("free")) == []
    key = f"{keys.STATE}paper"
    owner.put(key, b"data")
    hold(owner, key, "ON")
    assert bucket.locked_until(key) == math.inf
    assert versions.purge(bucket, key)
    assert versions.sweep(bucket).count


@pytest.mark.parametrize("right", ["s3:GetObjectRetention", "s3:GetObjectLegalHold"])
def test_missing_right_is_no_missing_lock(least: tuple[BotoBucket, BotoBucket], right: str) -> None:
    owner, bucket = least
    grant(owner, owner._bucket, "zfs", right, "s3:GetBucketObjectLockConfiguration")
    owner.put("key", b"data")
    assert bucket.object_lock() == LockRule(readable=False)
    with pytest.raises(BucketError, match=f"{right.removeprefix('s3:')} is refused"):
        bucket.locked_until("key")


def test_versions_stay_without_the_right_to_delete_them(least: tuple[BotoBucket, BotoBucket]) -> None:
    owner, bucket = least
    grant(owner, owner._bucket, "zfs", "s3:DeleteObjectVersion")
    owner.put("key", b"data")
    assert versions.purge(bucket, "key")
    assert bucket.head("key") is None
    assert versions.left(bucket) == KeptVersions(1, 4)
