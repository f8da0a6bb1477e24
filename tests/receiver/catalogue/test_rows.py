"""The rows of a folder in few bytes: what comes out is what went in."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.format.manifest import Manifest
from fullsend_receiver.catalogue.rows import COPIED, NAME, NO_STAMP, Row, Shelf, Summary
from fullsend_receiver.store.names import encode_component

GUIDS = st.integers(0, (1 << 64) - 1).map(str)
#: Names with what stands for something else on a shelf, and that no UTF-8 has.
NAMES = st.text(st.characters(), max_size=30) | st.sampled_from(["\1", "\2\3", "\0x", "0" * 16, "\udc80"])
NUMBERS = st.integers(0, (1 << 63) - 1)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row of a manifest with any values, whose file is called as its manifest says, or otherwise."""
    guid, base, snapshot = draw(GUIDS), draw(st.none() | GUIDS), draw(NAMES)
    usual = f"@{snapshot}.{int(guid):016x}.from.{int(base or 0):016x}.zfs.zst"
    fields: dict[str, Any] = {
        "dataset": draw(st.sampled_from(["tank/a", "tank/b"])),
        "snapshot": snapshot,
        "guid": guid,
        "base_guid": base,
        "kind": draw(st.sampled_from(["full", "incremental", "package"])),
        "dataset_type": "filesystem",
        "stream_class": "plain",
        "flags": draw(st.sampled_from(["", "L", "Lec"])),
        "created": draw(NAMES),
        "received": "2026-11-24T00:00:00Z",
        "begun": draw(st.none() | NAMES),
        "sequence": draw(st.none() | NUMBERS),
        "raw_bytes": draw(NUMBERS),
        "stored_bytes": draw(NUMBERS),
        "sha256": draw(st.none() | st.sampled_from(["11" * 32, "AB" * 32, "0", "zz", "1 1", ""])),
        "lost_spill_count": draw(st.integers(0, 9)),
        "proven_by": draw(st.sampled_from(["both", "receiver", "merge"])),
        "ivset_guid": draw(st.none() | GUIDS),
        "base_ivset_guid": draw(st.none() | GUIDS),
    }
    stamp = draw(st.just(NO_STAMP) | st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=4, max_size=4))
    return [*stamp, draw(st.just(usual) | NAMES), *(fields[name] for name in COPIED)]


@pytest.mark.parametrize("snapshot", ["\1", "\2", "\3", "a\1b", "\0", "%01"])
def test_a_snapshot_that_is_a_mark_changes_no_name(snapshot: str) -> None:
    """Its file has a printable name, in which GUIDs become marks."""
    values: dict[str, Any] = {"snapshot": snapshot, "guid": "17", "base_guid": "18", "sequence": 1, "stored_bytes": 1}
    name = f"@{encode_component(snapshot)}.{17:016x}.from.{18:016x}.zfs.zst"
    assert name.isprintable()
    row: Row = [*NO_STAMP, name, *(values.get(each, "") for each in COPIED)]
    (found,) = Shelf.of("alpha/tank/a", [row], None)
    assert found[NAME] == name


@given(st.lists(rows(), max_size=8))
def test_what_was_put_on_a_shelf_is_there(given_rows: list[Row]) -> None:
    shelf = Shelf.of("alpha/tank/a", given_rows, None)
    assert list(shelf) == given_rows
    assert list(shelf) == given_rows  # again
    assert len(shelf) == len(given_rows)
    summaries = list(shelf.summaries())
    assert summaries == [Summary(f"alpha/tank/a/{row[NAME]}", "alpha", *row[NAME + 1 :]) for row in given_rows]
    guids = {int(each.guid) for each in summaries}
    bases = {int(each.base_guid) for each in summaries if each.base_guid is not None}
    for number in {0, 1, *guids, *bases, *(guid + 1 for guid in guids)}:
        assert shelf.has(number) == (number in guids)
        assert shelf.mentions(number) == (number in guids | bases)
    assert shelf.datasets == tuple(sorted({each.dataset for each in summaries}))
    assert shelf.sequence == max((each.sequence or 0 for each in summaries), default=0)
    assert shelf.unhashed == sum(each.sha256 is None for each in summaries)


def test_shelf_of_which_others_are_lacking_is_another() -> None:
    shelf = Shelf.of("alpha/tank", [usual_row(1)], frozenset())
    other = shelf.with_lacking(frozenset({"@x.zfs.zst"}))
    assert (shelf.lacking, other.lacking) == (frozenset(), frozenset({"@x.zfs.zst"}))
    assert list(other) == list(shelf)


def usual_row(number: int) -> Row:
    """A row as a backup each night makes it: what cannot be guessed is as if drawn."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    guid = int(sha256[:16], 16)
    base = int(hashlib.sha256(str(number - 1).encode()).hexdigest()[:16], 16)
    raw = guid % 10**10
    snapshot = f"fullsend-0123abcd-2026{number // 28 % 12 + 1:02}{number % 28 + 1:02}T0230{number % 60:02}Z"
    name = f"@{snapshot}.{guid:016x}.from.{base:016x}.Lep.zfs.zst"
    at = 1_795_750_171_426_110_738 + 86_400_000_000_000 * number + guid % 10**9
    values: dict[str, Any] = {
        "dataset": "tank/home/user-0007",
        "snapshot": snapshot,
        "guid": str(guid),
        "base_guid": str(base),
        "kind": "incremental",
        "dataset_type": "filesystem",
        "stream_class": "plain",
        "flags": "Lep",
        "created": snapshot[18:],
        "received": f"{snapshot[18:]}+",
        "begun": snapshot[18:],
        "sequence": number * 1000,
        "raw_bytes": raw,
        "stored_bytes": raw // 3,
        "sha256": sha256,
        "lost_spill_count": 0,
        "proven_by": "both",
        "ivset_guid": None,
        "base_ivset_guid": None,
    }
    return [guid % 10**7, 800 + guid % 20, at, at + guid % 10**7, name, *(values[each] for each in COPIED)]


@pytest.mark.parametrize("streams", [100, 1000])
def test_shelf_takes_few_bytes_a_stream(streams: int) -> None:
    usual = [usual_row(number) for number in range(streams)]
    Shelf.of("alpha/tank/home", usual, frozenset())  # what is made once is no part of it
    tracemalloc.start()
    try:
        before, _peak = tracemalloc.get_traced_memory()
        shelf = Shelf.of("alpha/tank/home", usual, frozenset())
        after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(shelf) == streams
    assert (after - before) / streams < 130


def test_a_field_of_a_summary_means_what_it_means_in_the_manifest() -> None:
    said = get_type_hints(Manifest) | {"lost_spill_count": int}
    hints = get_type_hints(Summary)
    assert {name: hints[name] for name in ("sender", *COPIED)} == {name: said[name] for name in ("sender", *COPIED)}
