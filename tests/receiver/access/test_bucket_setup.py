from __future__ import annotations

import shutil
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import MemoryBucket, names

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.access import bucket_setup, identity
from fullsend_receiver.access.config import BucketSettings
from fullsend_receiver.store.errors import StoreError, StoreMissing
from fullsend_receiver.store_s3.bucket import BucketError
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


def test_store_whose_key_is_lost_gets_a_new_one(bucket: MemoryBucket, tmp_path: Path) -> None:
    first, store_id = bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    lost = identity.fingerprint(first)
    with pytest.raises(UsageError, match="if nobody has them any more, use --new-key"):
        bucket_setup.make(PLACE, settings(tmp_path / "two"), adopt=True)
    store, same_id = bucket_setup.adopt_with_new_key(PLACE, settings(tmp_path / "two"), [])
    assert same_id == store_id
    assert identity.fingerprint(store) != lost
    assert store.home.stat().st_mode & 0o777 == 0o700
    bucket_setup.check_certificate(store)
    with pytest.raises(UsageError, match="is not the certificate of s3://memory"):
        bucket_setup.check_certificate(first)


def test_new_key_replaces_no_key_that_is_there(bucket: MemoryBucket, tmp_path: Path) -> None:
    first, _store_id = bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    before = identity.key_file(first).read_bytes()
    with pytest.raises(UsageError, match=r"key\.pem: exists already: leave out --new-key"):
        bucket_setup.adopt_with_new_key(PLACE, settings(tmp_path / "one"), [])
    assert identity.key_file(first).read_bytes() == before
    bucket_setup.check_certificate(first)


def test_no_new_key_is_made_while_a_daemon_has_the_old_one(bucket: MemoryBucket, tmp_path: Path) -> None:
    first, _store_id = bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    context = identity.server_context(first, [])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = ("127.0.0.1", listening.getsockname()[1])

        def serve() -> None:
            connection, _peer = listening.accept()
            with connection, context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UsageError, match=r"127\.0\.0\.1:\d+: a daemon with the key of s3://memory answers"):
            bucket_setup.adopt_with_new_key(PLACE, settings(tmp_path / "two"), [address])
        thread.join()
    assert not (tmp_path / "two" / ".state").exists()
    bucket_setup.check_certificate(first)


@pytest.mark.parametrize("was_there", [False, True])
def test_new_key_that_cannot_be_published_is_removed(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, was_there: bool
) -> None:
    bucket_setup.make(PLACE, settings(tmp_path / "one"), adopt=False)
    home = tmp_path / "two" / ".state"
    if was_there:
        home.mkdir(parents=True)

    def refuse(*_arguments: object, **_named: object) -> None:
        raise BucketError("s3://memory: PutObject is refused")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryBucket, "put", refuse)
        with pytest.raises(StoreError, match="PutObject is refused"):
            bucket_setup.adopt_with_new_key(PLACE, settings(tmp_path / "two"), [])
    assert home.exists() == was_there
    assert not was_there or list(home.iterdir()) == []


def test_nothing_is_taken_over_where_no_store_is(bucket: MemoryBucket, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="no store here"):
        bucket_setup.make(PLACE, settings(tmp_path / "home"), adopt=True)
    with pytest.raises(StoreMissing, match="no store here"):
        bucket_setup.adopt_with_new_key(PLACE, settings(tmp_path / "home"), [])
    assert not (tmp_path / "home").exists()
