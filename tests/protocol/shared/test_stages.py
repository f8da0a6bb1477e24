"""Which stage a transfer waits for, by a clock that the test sets."""

from __future__ import annotations

import pytest

from fullsend_protocol.shared.stages import LEAST, WINDOW, Recently, StageWaits, TransferCount, longest


class Hand:
    """A clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_head_waits_for_what_it_reads_from_or_for_what_is_behind() -> None:
    clock = Hand()
    waits = StageWaits("wire", "decode", clock)
    clock.now += 1
    waits.behind("hash")  # keeps up with the head, so it counts for nothing
    clock.now += 2
    waits.head(None)
    clock.now += 4
    waits.behind("disk")
    clock.now += 8
    waits.head("wire")
    clock.now += 16
    assert waits.seconds() == {"wire": 19, "hash": 4, "disk": 8}
    assert waits.seconds() == {"wire": 19, "hash": 4, "disk": 8}  # a look changes nothing


def test_every_second_is_waited_for_one_stage() -> None:
    clock = Hand()
    waits = StageWaits("a", "b", clock)
    for step in range(50):
        clock.now += 1
        (waits.head if step % 3 else waits.behind)("abcd"[step % 4])
        if step % 7 == 0:
            waits.head(None)
        assert sum(waits.seconds().values()) == pytest.approx(step + 1)


def test_a_part_of_a_stage_counts_for_another() -> None:
    clock, meter = Hand(), [3.0]
    waits = StageWaits("source", "wire", clock)
    waits.split("wire", "receiver", lambda: meter[0])
    clock.now, meter[0] = clock.now + 1, 4.0  # the head reads, so it is no matter what the meter says
    waits.head(None)
    clock.now, meter[0] = clock.now + 10, 10.0
    assert waits.seconds() == {"source": 1, "wire": 4, "receiver": 6}
    waits.behind("compression")
    meter[0] = 20.0
    waits.behind("wire")
    clock.now, meter[0] = clock.now + 1, 25.0  # a meter that is ahead of the clock
    waits.head("source")
    assert waits.seconds() == {"source": 1, "wire": 4, "receiver": 7}
    waits.split("wire", "receiver", lambda: 0.0)  # another connection, whose meter begins anew
    waits.head(None)
    clock.now += 2
    assert waits.seconds() == {"source": 1, "wire": 6, "receiver": 7}


def test_what_is_skipped_was_there_before() -> None:
    count = TransferCount(0.0, 100)
    count.skip(40)
    count.add(10, 5)
    assert (count.raw, count.wire, count.before) == (50, 5, 40)
    assert count.waited() == {}


def test_the_first_seconds_tell_nothing() -> None:
    recently = Recently(0.0)
    recently.add(0.5, 1000, {"wire": 0.5})
    assert (recently.rate, recently.limit) == (None, None)
    recently.add(LEAST - 0.5, 1000, {"wire": 2.5})
    assert (recently.rate, recently.limit) == (400.0, None)
    recently.add(LEAST, 1000, {"wire": 3.0})
    assert recently.limit == "wire"


def test_of_an_old_transfer_the_first_look_tells_the_average_and_later_ones_what_is_now() -> None:
    recently = Recently(0.0, before=500)
    recently.add(1000.0, 1500, {"wire": 990.0, "disk": 10.0})
    assert (recently.rate, recently.limit) == (1.0, "wire")
    for second in range(1, 21):
        recently.add(1000.0 + second, 1500 + 7 * second, {"wire": 990.0, "disk": 10.0 + second})
        expected = ((7.0, "disk"), (pytest.approx(1.0, abs=0.1), "wire"))[second < LEAST]
        assert (recently.rate, recently.limit) == expected
    recently.add(1020.0 + WINDOW, 1640, {"wire": 1000.0, "disk": 30.0})
    assert (recently.rate, recently.limit) == (0.0, "wire")


def test_a_second_pass_has_no_negative_rate() -> None:
    recently = Recently(0.0)
    recently.add(5.0, 100, {})
    recently.add(9.0, 10, {})
    assert (recently.rate, recently.limit) == (0.0, None)


def test_the_longest() -> None:
    assert longest({}) is None
    assert longest({"a": 0.0}) is None
    assert longest({"a": 0.1, "b": 0.3, "c": 0.2}) == "b"
