"""JSON rows by file, in few bytes: what counts is what a dictionary of them would have."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fullsend_receiver.catalogue.folded import Folded

FILES = st.sampled_from(["a/@1", "a/@2", "a/b/@1", "c", "\udc80/@1"])
ROWS = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3) | st.lists(st.booleans()))


def merged(before: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    return (before or {}) | row


@given(st.lists(st.lists(st.tuples(FILES, ROWS), max_size=4), max_size=6))
def test_rows_are_those_of_a_dictionary(batches: list[list[tuple[str, dict[str, Any]]]]) -> None:
    folded = Folded()
    plain: dict[str, dict[str, Any]] = {}
    for batch in batches:
        folded.add(batch, merged)
        for file, row in batch:
            plain[file] = merged(plain.get(file), row)
        assert len(folded) == len(plain)
        for file in ("a/@1", "a/@2", "a/b/@1", "c", "\udc80/@1", "a/@3", "nowhere/@1", ""):
            assert folded.get(file) == plain.get(file)
            assert folded.get(file) == plain.get(file)  # from what is open now
    assert sorted(map(repr, folded.rows())) == sorted(map(repr, plain.values()))


def test_rows_take_few_bytes() -> None:
    folded = Folded()
    rows: list[tuple[str, dict[str, Any]]] = []
    for number in range(1000):
        file = f"alpha/tank/home/@fullsend-0123abcd-20261127T{number:06}Z.{number * 7919 % 2**64:016x}.full.zfs.zst"
        at = f"2026-11-27T{number % 24:02}:{number % 60:02}:00Z"
        rows.append((file, {"file": file, "received": at, "at": at, "damage": [], "sha256": None}))
    folded.add(rows[:1], merged)
    tracemalloc.start()
    try:
        before, _peak = tracemalloc.get_traced_memory()
        folded.add(rows, merged)
        gc.collect()  # also of what Python keeps at hand for later
        after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(rows) < 60
