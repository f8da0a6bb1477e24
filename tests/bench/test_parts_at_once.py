from __future__ import annotations

from bench.parts_at_once import Way, table


def test_each_way_has_its_median_and_its_rate() -> None:
    found = table([Way(1, 0.0, [4.0, 2.0, 3.0]), Way(2, 0.02, [1.0])], 600_000_000)
    assert found.rows == [
        ["no latency: 1 x 32 MiB", "3.00", "2.00 - 4.00", "200"],
        ["20 ms for a way and back: 2 x 16 MiB", "1.00", "1.00 - 1.00", "600"],
    ]
