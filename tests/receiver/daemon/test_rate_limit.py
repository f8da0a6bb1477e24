from __future__ import annotations

from fullsend_receiver.daemon.rate_limit import Limiter


def test_so_many_tries_a_minute_and_no_more() -> None:
    limiter = Limiter(3)
    assert [limiter.may_try("a", now) for now in (0.0, 1.0, 2.0, 3.0, 59.9)] == [True, True, True, False, False]


def test_the_window_slides() -> None:
    limiter = Limiter(2)
    assert [limiter.may_try("a", now) for now in (0.0, 30.0, 60.0, 61.0, 90.0)] == [True, True, True, False, True]


def test_a_refused_try_does_not_count() -> None:
    limiter = Limiter(1)
    assert limiter.may_try("a", 0.0)
    assert not any(limiter.may_try("a", float(now)) for now in range(1, 60))
    assert limiter.may_try("a", 60.0)


def test_addresses_do_not_count_against_each_other() -> None:
    limiter = Limiter(1)
    assert limiter.may_try("a", 0.0)
    assert limiter.may_try("b", 0.0)
    assert not limiter.may_try("a", 0.0)


def test_a_good_try_may_be_forgiven() -> None:
    limiter = Limiter(1)
    assert limiter.may_try("a", 0.0)
    limiter.forgive("a")
    assert limiter.may_try("a", 0.0)
    assert not limiter.may_try("a", 0.0)
    limiter.forgive("nobody")


def test_a_flood_of_addresses_is_forgotten_oldest_first() -> None:
    limiter = Limiter(1)
    for number in range(5000):
        assert limiter.may_try(f"address {number}", 0.0)
    assert not limiter.may_try("address 4999", 0.0)
    assert limiter.may_try("address 0", 0.0)
