from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests import streams
from tests.receiver.arriving import KEY, begun, data_of, journal_of
from tests.receiver.helpers import SENDER, checked, make_store, store_stream

from fullsend_receiver.catalogue.streams import read_catalogue
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


def test_a_stream_that_was_replaced_counts_until_it_is_deleted(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    file = store_stream(store, SENDER, streams.named("full").read())
    data = bytearray((store.root / file).read_bytes())
    data[60] ^= 1
    (store.root / file).write_bytes(data)
    catalogue = read_catalogue(store)
    catalogue.scrubbed.add(checked(store, catalogue.streams[0]))
    assert count(store) == {}
    assert store_stream(store, SENDER, streams.named("full").read()) == file
    assert count(store) == {SENDER: len(data)}
    (record,) = store.partial.glob("*.about.damaged")
    record.write_bytes(b"no record\n")
    assert count(store) == {}  # nobody knows whose it is
    store.discard_damaged(time.time() + 10)
    assert not list(store.set_aside())
