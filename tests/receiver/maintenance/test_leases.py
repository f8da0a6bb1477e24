from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tests.receiver.helpers import SENDER, long_stream, plant, push_of

from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.leases import arriving_leases, hidden_leases, reading_leases
from fullsend_receiver.maintenance.retention import Lease
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore


def test_partials_lease_their_bases_open_or_not(store: LocalStore) -> None:
    uploads = []
    for number, (sender, base) in enumerate([(SENDER, "7"), (SENDER, None), ("beta", "8"), (SENDER, "9")]):
        push = push_of(long_stream(1)).model_copy(update={"snapshot": f"s{number}", "base_guid": base})
        uploads.append(store.begin(partial_key(sender, push), open_offer(sender, push)))
    uploads[0].close(keep=True)
    expected = [Lease("7", "the partial of tank/data@s0"), Lease("9", "the partial of tank/data@s3")]
    assert sorted(arriving_leases(store, SENDER), key=lambda lease: lease.guid) == expected
    for upload in uploads[1:]:
        upload.close(keep=False)
    store.discard(uploads[0].key)
    assert arriving_leases(store, SENDER) == []


def test_reader_leases_what_it_reads_and_what_builds_on_it(store: LocalStore) -> None:
    files = [plant(store, f"s{guid}", guid, base) for guid, base in ((1, None), (2, 1), (3, 2), (4, 1), (5, None))]
    part = read_catalogue(store)
    gone = PurePosixPath("alpha/tank/@gone.zfs.zst")
    assert {lease.guid for lease in reading_leases(part, [files[1], gone])} == {"2", "3"}
    assert {lease.guid for lease in reading_leases(part, files[:1])} == {"1", "2", "3", "4"}
    assert reading_leases(part, []) == []


def test_name_of_a_file_that_cannot_be_read_leases_its_base() -> None:
    names = [
        "alpha/tank/@s.0000000000000007.from.000000000000000a.Lep.zfs.zst",
        "alpha/tank/@s.from.x.0000000000000007.package.from.00000000000000ff.zfs.zst.json",
        "alpha/tank/@s.0000000000000007.full.zfs.zst",
        "alpha/tank",
    ]
    assert [lease.guid for lease in hidden_leases(names)] == ["10", "255"]
