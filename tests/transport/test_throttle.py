from __future__ import annotations

import pytest

from fullsend_transport.throttle import Throttle


def test_first_bytes_go_at_once_and_the_next_wait_for_them() -> None:
    throttle = Throttle(100)
    assert throttle.delay(50, now=10.0) == 0
    assert throttle.delay(50, now=10.0) == pytest.approx(0.5)
    assert throttle.delay(10, now=10.0) == pytest.approx(1.0)


def test_idleness_saves_nothing_up() -> None:
    throttle = Throttle(100)
    throttle.delay(100, now=0.0)
    assert throttle.delay(100, now=1000.0) == 0
    assert throttle.delay(1, now=1000.0) == pytest.approx(1.0)


def test_rate_is_kept_over_time() -> None:
    throttle = Throttle(1000)
    now = 0.0
    for _ in range(100):
        now += throttle.delay(300, now)
    assert now == pytest.approx(99 * 300 / 1000)


@pytest.mark.parametrize(("rate", "most", "expected"), [(1, 1000, 1), (4000, 500, 500), (4000, 5000, 1000)])
def test_low_rates_go_in_small_pieces(rate: int, most: int, expected: int) -> None:
    assert Throttle(rate).slice(most) == expected
