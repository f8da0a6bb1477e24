from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.store.errors import StoreError, StoreMissing
from fullsend_receiver.store.layout import MARKER, Layout
from fullsend_receiver.store.local import LocalStore, make_store
from fullsend_receiver.store.marker import check_id, check_mounted, read_id

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made(tmp_path: Path) -> LocalStore:
    store, store_id = make_store(tmp_path / "store", lambda _store: None)
    return LocalStore(store.root, store_id)


def test_the_store_that_was_opened_is_there(made: LocalStore) -> None:
    assert read_id(made.root) == made.store_id
    check_id(made.root, made.store_id)
    check_mounted(made)
    made.check_mounted()


def test_an_empty_mount_point_is_no_store(made: LocalStore) -> None:
    shutil.rmtree(made.root)
    made.root.mkdir()
    with pytest.raises(StoreMissing, match="is its disk mounted"):
        made.check_mounted()
    made.root.rmdir()
    with pytest.raises(StoreMissing, match="is its disk mounted"):
        made.check_mounted()


def test_another_store_in_its_place_is_not_it(made: LocalStore) -> None:
    made.marker.write_text(json.dumps({"format": 1, "id": "other"}), encoding="ascii")
    with pytest.raises(
        StoreMissing, match=f"is store other, but the configuration names {made.store_id}: another disk"
    ):
        made.check_mounted()


def test_a_store_of_unknown_id_is_not_looked_for(tmp_path: Path) -> None:
    check_mounted(Layout(tmp_path))


@pytest.mark.parametrize(
    ("marker", "says"), [("{}", "cannot be read"), ("x", "cannot be read"), ('{"format": 2, "id": "a"}', "of format 2")]
)
def test_a_marker_that_is_not_understood_is_named(tmp_path: Path, marker: str, says: str) -> None:
    (tmp_path / MARKER).write_text(marker, encoding="ascii")
    with pytest.raises(StoreError, match=says):
        read_id(tmp_path)


def test_a_marker_that_the_disk_does_not_give_is_the_disks_fault(tmp_path: Path) -> None:
    (tmp_path / MARKER).mkdir()
    with pytest.raises(StoreError, match=r"^the store cannot be used \(Is a directory"):
        read_id(tmp_path)
