"""An open file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import plant

from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore


def test_file_that_is_open_is_read_though_it_is_removed(store: LocalStore) -> None:
    path = store.root / plant(store, "s1", 1)
    blob = LocalBlob(path)
    path.unlink()
    assert blob.read(0, 100) == b"no data"
    blob.close()


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(FileDamaged, match="the file is missing"):
        LocalBlob(tmp_path / "x")


def test_parts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(100)))
    blob = LocalBlob(tmp_path / "x")
    assert (blob.size, blob.read(10, 3), blob.read(98, 10), blob.read(200, 1)) == (100, b"\n\v\f", b"bc", b"")
    blob.forget(0, 100)
    blob.close()
