from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.maintenance.suspicion import accept, arrived, read_accepted, suspicion

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

MIB = 1 << 20
NONE: dict[str, Any] = dict.fromkeys(Summary._fields, "")


def stream(number: int, base: int | None = None, **changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "path": f"p{number}",
        "snapshot": f"s{number}",
        "received": f"2026-11-{number:02}T00:00:00Z",
        "sequence": number,
        "guid": str(number),
        "base_guid": None if base is None else str(base),
        "kind": "full" if base is None else "incremental",
        "stream_class": "plain",
        "raw_bytes": 100 * MIB,
        "stored_bytes": 50 * MIB,
    }
    return Summary(**NONE | fields | changes)


def chain(count: int) -> list[Summary]:
    """A full, and increments on it."""
    return [stream(1), *(stream(number, number - 1) for number in range(2, count + 1))]


def test_usual_nights_are_not_suspicious() -> None:
    assert suspicion(chain(20), 0) is None
    assert suspicion([], 0) is None


def test_increment_that_is_much_larger_is() -> None:
    streams = [*chain(10), stream(11, 10, raw_bytes=501 * MIB)]
    assert suspicion(streams, 10) == (
        "@s11, received 2026-11-11T00:00:00Z, has 501.0 MiB, where such increments had 100.0 MiB"
    )
    assert suspicion(streams, 11) is None  # it was looked at before
    assert suspicion([*chain(10), stream(11, 10, raw_bytes=500 * MIB)], 10) is None


def test_full_may_be_as_large_as_it_is() -> None:
    assert suspicion([*chain(10), stream(11, raw_bytes=5000 * MIB)], 10) is None


def test_stream_that_does_not_compress_is_suspicious_where_others_did() -> None:
    streams = [*chain(10), stream(11, 10, stored_bytes=100 * MIB)]
    assert "does not compress, where those before it were stored in 50%" in (suspicion(streams, 10) or "")
    dense = [each._replace(stored_bytes=100 * MIB) for each in chain(10)]
    assert suspicion([*dense, stream(11, 10, stored_bytes=100 * MIB)], 10) is None


@pytest.mark.parametrize("changes", [{"raw_bytes": 63 * MIB, "stored_bytes": 63 * MIB}, {"kind": "package"}])
def test_small_streams_and_packages_are_not_compared(changes: dict[str, Any]) -> None:
    small = [each._replace(raw_bytes=1000, stored_bytes=500) for each in chain(10)]
    assert suspicion([*small, stream(11, 10, **changes)], 10) is None


def test_few_streams_are_nothing_to_compare_with() -> None:
    assert suspicion([*chain(7), stream(8, 7, raw_bytes=5000 * MIB)], 0) is None
    assert suspicion([*chain(8), stream(9, 8, raw_bytes=5000 * MIB)], 0) is not None


def test_other_class_has_its_own_history() -> None:
    raw: dict[str, Any] = {"stream_class": "raw"}
    streams = [*chain(10), stream(11, **raw, stored_bytes=100 * MIB), stream(12, 11, **raw, stored_bytes=100 * MIB)]
    assert suspicion([*streams, stream(13, 10)], 0) is None


def test_chain_that_grows_beside_a_newer_one_is_suspicious() -> None:
    streams = [*chain(10), stream(11), stream(12, 11)]
    assert suspicion(streams, 0) is None
    assert "builds on an older full than the newest one" in (suspicion([*streams, stream(13, 10)], 12) or "")
    assert suspicion([*streams, stream(13, 99)], 12) is None  # its base is gone


def test_full_of_a_snapshot_that_is_stored_as_an_increment_is_no_other_chain() -> None:
    again = stream(11)._replace(guid="10")
    assert suspicion([*chain(10), again, stream(12, 10)], 0) is None


def test_what_is_accepted_is_read_again(store: LocalStore) -> None:
    documents = store.documents
    assert read_accepted(documents) == {}
    accept(documents, "alpha/tank", 7, 1_800_000_000.0)
    accept(documents, "alpha/other", 8, 1_800_000_000.0)
    accept(documents, "alpha/tank", 9, 1_800_000_000.0)
    assert read_accepted(documents) == {"alpha/tank": 9, "alpha/other": 8}
    (store.state / "accepted.json").write_text("{", encoding="ascii")
    assert read_accepted(documents) == {}
    accept(documents, "alpha/tank", 9, 1_800_000_000.0)
    assert read_accepted(documents) == {"alpha/tank": 9}


# --- what was merged ----------------------------------------------------------------------------------------------


def test_streams_are_compared_with_those_that_arrived_and_not_with_what_was_made_of_them() -> None:
    """Ten nights of 100 MiB are stored as four streams of 300: a night of 600 MiB is six times the usual."""
    sizes = arrived(chain(10), 0, [])
    merged = [stream(1), *(stream(number, number - 3, raw_bytes=300 * MIB) for number in (4, 7, 10))]
    large = stream(11, 10, raw_bytes=600 * MIB)
    assert suspicion([*merged, large], 10) is None
    assert "has 600.0 MiB, where such increments had 100.0 MiB" in (suspicion([*merged, large], 10, sizes) or "")
    usual = stream(11, 10)
    assert suspicion([*merged, usual], 10, sizes) is None


def test_the_newest_sizes_of_each_kind_are_remembered() -> None:
    sizes = arrived(chain(50), 0, [])
    assert [each.kind for each in sizes] == ["full", *["incremental"] * 30]
    later = [stream(51, 50, raw_bytes=7), stream(52)]
    more = arrived([*chain(50), *later], 50, sizes)
    assert [each.kind for each in more].count("full") == 2
    assert [each.raw_bytes for each in more if each.kind == "incremental"][-2:] == [100 * MIB, 7]
    assert arrived([*chain(50), *later], 52, more) == more
