from __future__ import annotations

from typing import TYPE_CHECKING

from tests.receiver.buckets import FILE, store_in, store_raw
from tests.receiver.helpers import plant
from tests.receiver.versioned_bucket import VersionedBucket

from fullsend_receiver.maintenance.trash import empty_merged, expire_trash, trash_name, trashed_at
from fullsend_receiver.store_s3 import manifests

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from fullsend_receiver.store.local import LocalStore

DAY = 86400.0
NOW = 1_800_000_000.0


def test_name_of_a_folder_tells_when_its_streams_were_dropped() -> None:
    assert trashed_at(trash_name(NOW)) == NOW
    assert trash_name(NOW) != trash_name(NOW)
    assert trashed_at("mine") is None


def test_what_has_waited_long_enough_is_deleted(store: LocalStore) -> None:
    for age in range(3):
        file = plant(store, f"s{age}", 1 + age)
        store.remove(lambda: [file], trash=trash_name(NOW - age * DAY))  # noqa: B023 - called at once
    assert len(expire_trash(store, 2 * DAY, NOW)) == 1
    assert len(expire_trash(store, 2 * DAY, NOW)) == 0
    assert len(list(store.trashed())) == 2
    assert len(expire_trash(store, 0.0, NOW - 10 * DAY)) == 2  # none is wanted any more


def test_folder_that_tells_no_time_stays(store: LocalStore) -> None:
    (store.trash_folder / "mine").mkdir(parents=True)
    assert expire_trash(store, 0.0, NOW) == []


def test_what_is_locked_stays_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bucket = VersionedBucket(retention=0.0)
    store = store_in(bucket, tmp_path)
    assert store_raw(store)
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert found.data is not None
    assert store.remove(lambda: [FILE], trash=trash_name(0.0, merged=True)) == [FILE]
    bucket.lock(found.data)
    caplog.set_level("INFO")
    assert expire_trash(store, 1.0, 100.0, undelete_merged=1.0) == []
    assert f"{FILE}: stays in the trash: locked until its legal hold is removed" in caplog.text
    assert empty_merged(store) == 0  # nothing of it became free
    bucket.lock(found.data, 0.0)
    assert empty_merged(store) > 0
    assert list(store.trashed()) == []
