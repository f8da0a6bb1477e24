from __future__ import annotations

import threading
from itertools import count

from fullsend_receiver.maintenance.pace import Pace


class Waiting(threading.Event):
    """An event whose waits are recorded, and take no time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:  # type: ignore[explicit-override]
        self.waits.append(timeout or 0.0)
        self._clock.now += timeout or 0.0
        return self.is_set()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_bytes_a_second_are_read() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    pace = Pace(1000, lambda: False, clock)
    for _ in range(10):
        pace.keep(500, waiting)
        clock.now += 0.1  # the reading itself
    assert round(clock.now - 100, 6) == 5.1


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    pace = Pace(1000, lambda: False, clock)
    pace.keep(1000, waiting)
    clock.now += 3600
    pace.keep(1000, waiting)
    pace.keep(1000, waiting)
    assert waiting.waits == [1.0, 1.0]


def test_without_a_rate_nothing_waits() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    Pace(0, lambda: False, clock).keep(1 << 40, waiting)
    assert waiting.waits == []


def test_nothing_is_read_while_the_disk_is_busy() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    looks = count()
    Pace(0, lambda: next(looks) < 5, clock).keep(1, waiting)
    assert len(waiting.waits) == 5


def test_an_interruption_ends_a_pause() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.set()
    Pace(0, lambda: True, clock).keep(1, waiting)
    assert len(waiting.waits) == 1


def test_another_rate_counts_from_now_on() -> None:
    """Also where the old one had a wait of days ahead."""
    clock = Clock()
    waiting = Waiting(clock)
    pace = Pace(1, lambda: False, clock)

    def change(timeout: float | None = None) -> bool:
        waiting.waits.append(timeout or 0.0)
        pace.change(1000)
        waiting.set()
        return True

    waiting.wait = change  # type: ignore[method-assign]
    pace.keep(1_000_000, waiting)
    assert waiting.waits == [1_000_000.0]
    del waiting.wait
    pace.keep(500, waiting)
    pace.change(0)
    pace.keep(1 << 40, waiting)
    assert waiting.waits == [1_000_000.0, 0.5]
