from __future__ import annotations

from typing import TYPE_CHECKING

from tests.receiver.arriving import KEY, begun, data_of, journal_of
from tests.receiver.helpers import SENDER, make_store

from fullsend_receiver.store.aside import count
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_is_aside_in_a_new_store(tmp_path: Path) -> None:
    assert count(make_store(tmp_path)) == {}


def test_the_trash_counts_for_each_sender(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for sender, size in (("alpha", 10), ("beta", 5)):
        for folder in ("2026-11-27", "2026-11-28"):
            place = store.state / "trash" / folder / sender / "tank"
            place.mkdir(parents=True)
            (place / "@s.00000000000000aa.full.zfs.zst").write_bytes(bytes(size))
            (place / "@s.00000000000000aa.full.zfs.zst.json").write_bytes(bytes(100))  # small files do not count
    (store.state / "trash" / "left").write_bytes(b"no stream")
    assert store.aside() == {"alpha": 20, "beta": 10}


def test_a_partial_that_is_damaged_counts_for_its_sender(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    begun(store)
    size = data_of(store).stat().st_size
    for path in (data_of(store), journal_of(store)):
        path.rename(f"{path}.damaged")
    assert store.aside() == {SENDER: size}
    (store.partial / f"{KEY}.journal.damaged").write_bytes(b"no journal\n")
    assert LocalStore(store.root).aside() == {}  # nobody knows whose it is
