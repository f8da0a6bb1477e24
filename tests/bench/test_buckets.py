from __future__ import annotations

import os

from bench.buckets import MemoryOverTime, memory_bound, table, tenths
from bench.measure import Cost, Run
from bench.report import Row

GIB = 1 << 30


def test_the_bound_grows_by_the_same_for_each_stream_and_by_less_where_no_more_are_stored_at_once() -> None:
    assert memory_bound(2) - memory_bound(1) == memory_bound(32) - memory_bound(31)
    assert memory_bound(64) - memory_bound(63) < memory_bound(2) - memory_bound(1)


def test_each_tenth_has_its_highest_peak_or_that_of_the_one_before() -> None:
    peaks = [(0.5, 3), (0.9, 5), (2.5, 4), (10.0, 9)]
    assert tenths(peaks) == [5, 5, 4, 4, 4, 4, 4, 4, 4, 9]


def test_a_peak_is_seen_although_the_memory_is_free_again() -> None:
    with MemoryOverTime(os.getpid()) as memory:
        held = bytearray(64 << 20)
        held[::4096] = b"x" * len(held[::4096])
        del held
    assert max(peak for _when, peak in memory.peaks) > 64 << 20


def test_a_program_that_is_not_installed_has_a_row_that_says_so() -> None:
    run = Run(2.0, Cost(3.0, 1 << 20), Cost(1.5, 2 << 20), 0, 0.25, 500_000_000, Cost(7.0, 3 << 20))
    found = table([Row("push", GIB // 2, [run]), Row("rclone", GIB)], ["aws-cli 2"])
    assert all(len(line) == len(found.columns) for line in found.rows)
    push, rclone = (dict(zip(found.columns, line, strict=True)) for line in found.rows)
    assert [push[f"CPU s ({end})"] for end in (1, 2, 3)] == ["6.00", "3.00", "14.00"]
    assert [push[f"MiB ({end})"] for end in (1, 2, 3)] == ["1", "2", "3"]
    assert push["stored MB"] == "500"
    assert rclone["seconds"] == "not installed"
    assert "aws-cli 2" in found.legend
