from __future__ import annotations

from typing import TYPE_CHECKING

from tests.receiver.arriving import KEY, begun
from tests.receiver.helpers import SENDER, make_store, plant

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.arrival.bounds import Fill
from fullsend_receiver.arrival.usage import find_fills
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fills(store: LocalStore, quota_of: Callable[[str], int | None]) -> list[Fill]:
    summaries = (stored.summary for stored in read_catalogue(store).streams)
    return list(find_fills(store, summaries, min_free=SizeOrShare(share=0.5), quota_of=quota_of))


def test_all_that_counts_is_counted_for_the_senders_that_have_a_quota(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    plant(store, "s1", 1, stored_bytes=100)
    plant(store, "s2", 2, 1, stored_bytes=50)
    plant(store, "s1", 1, sender="beta", stored_bytes=7)
    begun(store)
    ((key, partial),) = store.uploads(lambda upload: upload.journal.stored)
    assert key == KEY
    trash = store.state / "trash" / "day" / SENDER
    trash.mkdir(parents=True)
    (trash / "@s.00000000000000aa.full.zfs.zst").write_bytes(bytes(1000))

    disk, alpha = fills(store, lambda sender: 5000 if sender == SENDER else None)

    free, total = store.space()
    assert (disk.what, disk.total, disk.kept) == ("the store's disk", total, total // 2)
    assert abs(disk.free - free) < total // 100
    assert alpha == Fill("the quota of alpha", 1150 + partial, 5000)
