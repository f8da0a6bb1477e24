from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import MemoryBucket, names

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.access import bucket_setup, identity
from fullsend_receiver.access.config import BucketSettings
from fullsend_receiver.store.errors import StoreError, StoreMissing
from fullsend_receiver.store_s3.place import BucketPlace

if TYPE_CHECKING:
    from pathlib import Path

PLACE = BucketPlace("backups", "zfs")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    made = MemoryBucket()
    monkeypatch.setattr(bucket_setup, "reach", lambda _place, _settings: made)
    return made


def settings(folder: Path) -> BucketSettings:
    return BucketSettings(home=folder)


def test_store_gets_a_key_that_stays_on_this_host(bucket: MemoryBucket, tmp_path: Path) -> None:
    store, store_id = bucket_setup.make(PLACE, settings(tmp_path / "home"), adopt=False)
    assert store.home == tmp_path / "home" / ".state"
    assert len(identity.fingerprint(store)) == 64
    key = identity.key_file(store).read_bytes()
    assert all(key not in data for data, _etag, _time in bucket.objects.values())
    assert names(bucket) == [".fullsend", ".state/certificate.pem"]
    assert len(store_id) == 32


def test_no_store_is_made_within_another_one(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = MemoryBucket()
    buckets = {PLACE: bucket, BucketPlace("backups", "zfs/two"): below, BucketPlace("backups", ""): MemoryBucket()}
    monkeypatch.setattr(bucket_setup, "reach", lambda place, _settings: buckets[place])
    bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    with pytest.raises(UsageError, match="is within the store s3://memory"):
        bucket_setup.make(BucketPlace("backups", "zfs/two"), settings(tmp_path / "two"), adopt=False)
    assert not below.objects


def test_other_host_takes_the_same_key(bucket: MemoryBucket, tmp_path: Path) -> None:
    first, store_id = bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    with pytest.raises(UsageError, match=r"copy key\.pem and certificate\.pem into it"):
        bucket_setup.make(PLACE, settings(tmp_path / "two"), adopt=True)
    shutil.copytree(first.home, tmp_path / "two" / ".state")
    second, same_id = bucket_setup.make(PLACE, settings(tmp_path / "two"), adopt=True)
    assert same_id == store_id
    assert identity.fingerprint(second) == identity.fingerprint(first)


def test_host_with_another_key_is_refused(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    monkeypatch.setattr(bucket_setup, "reach", lambda _place, _settings: MemoryBucket())
    other, _store_id = bucket_setup.make(PLACE, settings(tmp_path / "two"), adopt=False)
    monkeypatch.setattr(bucket_setup, "reach", lambda _place, _settings: bucket)
    with pytest.raises(UsageError, match="is not the certificate of s3://memory"):
        bucket_setup.make(PLACE, settings(tmp_path / "two"), adopt=True)
    shutil.copy(tmp_path / "one" / ".state" / "certificate.pem", identity.certificate_file(other))
    with pytest.raises(StoreError, match="key and certificate cannot be used"):
        bucket_setup.make(PLACE, settings(tmp_path / "two"), adopt=True)


def test_nothing_is_taken_over_where_no_store_is(bucket: MemoryBucket, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="no store here"):
        bucket_setup.make(PLACE, settings(tmp_path / "home"), adopt=True)
    assert not (tmp_path / "home").exists()
