from __future__ import annotations

from fullsend_receiver.store.races import pause


def test_wait_is_of_any_length_below_a_bound_that_doubles_up_to_a_second() -> None:
    bounds: list[float] = []
    waited: list[float] = []

    def jitter(least: float, most: float) -> float:
        assert least == 0
        bounds.append(most)
        return most / 2

    for lost in range(1, 9):
        pause(lost, waited.append, jitter)
    assert bounds == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert waited == [most / 2 for most in bounds]


def test_processes_that_lose_together_do_not_wait_alike() -> None:
    waited: list[float] = []
    for _process in range(20):
        pause(8, waited.append)
    assert len(set(waited)) > 1
    assert all(0 <= each <= 1 for each in waited)
