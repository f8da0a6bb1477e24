from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.folders import make_folder

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore


def test_folder_is_made_with_those_above_it(store: LocalStore) -> None:
    folder = store.root / "alpha" / "tank" / "data"
    make_folder(store, folder)
    make_folder(store, folder)
    assert folder.is_dir()


def test_folder_on_another_file_system_is_refused(store: LocalStore) -> None:
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == store.root.stat().st_dev:
            pytest.skip("the tests' own folder is on /dev/shm, too")
        (store.root / "alpha").symlink_to(elsewhere)
        with pytest.raises(StoreError, match="a store must be one file system"):
            make_folder(store, store.root / "alpha")
