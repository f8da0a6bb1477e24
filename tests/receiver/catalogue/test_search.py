from __future__ import annotations

from typing import TYPE_CHECKING

from tests.receiver.buckets import FILE, MemoryBucket, store_in, store_raw

from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.catalogue.search import Searches, find_streams
from fullsend_receiver.catalogue.summaries import FolderSearch

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore


def test_streams_in_a_bucket_are_found(tmp_path: Path) -> None:
    store = store_in(MemoryBucket(least_part=0), tmp_path)
    assert store_raw(store)
    found = find_streams(store, "alpha")
    assert [each.path for each in found.summaries] == [str(FILE)]
    assert (found.orphans, found.problems, found.lacking) == ([], [], frozenset())
    assert find_streams(store, "beta").summaries == []


def test_search_fits_the_store(store: LocalStore, tmp_path: Path) -> None:
    assert isinstance(Searches(store).of("alpha"), FolderSearch)
    assert isinstance(Searches(store_in(MemoryBucket(), tmp_path)).of("alpha"), ObjectSearch)
