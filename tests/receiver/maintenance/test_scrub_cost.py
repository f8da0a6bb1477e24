"""A real scrub is compared with this in tests/receiver/store_s3/test_costs.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.receiver.buckets import MemoryBucket, store_in

from fullsend_receiver.maintenance.scrub_cost import scrub_cost
from fullsend_receiver.store.seekable import file_size, reads

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore


def test_scrub_reads_what_a_restore_reads_and_asks_some_more(tmp_path: Path) -> None:
    store = store_in(MemoryBucket(), tmp_path)
    chunks = [4 << 20] * 10_000
    size = file_size(chunks)
    read, found = store.read_cost(size, reads(chunks)), scrub_cost(store, chunks)
    assert found is not None
    assert read.gets < found.gets < read.gets + 20
    assert size <= read.received <= found.received < 1.01 * size
    assert found.puts == found.sent == 0


def test_scrub_of_a_disk_has_no_price(store: LocalStore) -> None:
    assert scrub_cost(store, [4 << 20]) is None
