from __future__ import annotations

import heapq
import itertools
import random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullsend_transport.throttle import CATCH_UP, LONGEST_WAIT, Throttle

KIB: Final = 1 << 10
GIB: Final = 1 << 30
#: As the channel sends at a time.
MOST: Final = 256 * KIB
SECONDS: Final = 2.0

Sent = list[tuple[float, int, int]]


def run(throttle: Throttle, jobs: int, late: random.Random, latest: float, *, until: float = SECONDS) -> Sent:
    """Let jobs send all that they may. A timer has a resolution of a millisecond, and is late by up to `latest` s.

    Returns: when, which job, how many bytes.
    """
    piece = throttle.slice(MOST)
    sent: Sent = []
    order = itertools.count()
    turns = [(0.0, next(order), job) for job in range(jobs)]
    now = 0.0
    while turns:
        due, _order, job = heapq.heappop(turns)
        now = max(now, due)
        if now >= until:
            return sent
        wait = throttle.ask(job, piece, now)
        if wait:
            due = now + round(wait, 3) + late.uniform(0, latest)
        else:
            sent.append((now, job, piece))
            due = now
        heapq.heappush(turns, (due, next(order), job))
    return sent


def in_any_second(sent: Sent) -> list[int]:
    """Return the bytes in the second that begins with each piece, as far as there is a whole one."""
    totals, total, last = [], 0, 0
    for first, (begin, _job, size) in enumerate(sent):
        if begin + 1 > SECONDS:
            break
        while last < len(sent) and sent[last][0] < begin + 1:
            total += sent[last][2]
            last += 1
        totals.append(total)
        total -= size
        assert last > first
    return totals


@settings(max_examples=25)
@given(
    exponent=st.floats(0, 13.3),  # 100 KiB to 1 GiB a second
    jobs=st.integers(1, 16),
    latest=st.sampled_from([0, 0.001, 0.015]),
    seed=st.integers(0, 1 << 32),
)
def test_any_second_has_the_rate_to_5_percent(exponent: float, jobs: int, latest: float, seed: int) -> None:
    rate = int(100 * KIB * 2**exponent)
    throttle = Throttle(rate)
    sent = run(throttle, jobs, random.Random(seed), latest)
    totals = in_any_second(sent)
    assert 0.95 * rate <= min(totals)
    assert max(totals) <= 1.05 * rate
    by_job = [sum(size for _when, job, size in sent if job == each) for each in range(jobs)]
    assert sum(by_job) == pytest.approx(SECONDS * rate, rel=0.05)
    if latest == 0:
        assert max(by_job) - min(by_job) <= 2 * throttle.slice(MOST) + 0.01 * rate


@given(rate=st.integers(100 * KIB, GIB), idle=st.floats(0, 1e6))
def test_idle_time_saves_up_no_burst(rate: int, idle: float) -> None:
    throttle = Throttle(rate)
    piece = throttle.slice(MOST)
    throttle.ask(1, piece, 0.0)
    burst = 0
    while not throttle.ask(1, piece, idle):
        burst += piece
    assert burst <= 0.05 * rate


@settings(max_examples=30)
@given(rate=st.integers(100 * KIB, GIB), late=st.floats(0, CATCH_UP))
def test_a_late_timer_costs_nothing(rate: int, late: float) -> None:
    piece = Throttle(rate).slice(MOST)
    totals = []
    for lateness in (0.0, late):
        throttle, now, total = Throttle(rate), 0.0, 0
        while not (wait := throttle.ask(1, piece, now)):
            total += piece
        now += wait + lateness
        while now < 0.1:
            wait = throttle.ask(1, piece, now)
            now, total = (now + wait, total) if wait else (now, total + piece)
        totals.append(total)
    assert abs(totals[0] - totals[1]) <= piece + 0.001 * rate  # the shortest wait is a millisecond


def test_who_leaves_holds_nobody_back() -> None:
    throttle = Throttle(1000 * KIB)
    piece = throttle.slice(MOST)
    while not throttle.ask("first", piece, 0.0):
        pass
    alone = throttle.ask("first", piece, 0.0)
    assert throttle.ask("second", piece, 0.0) > alone  # its turn comes after the first's
    throttle.leave("first")
    throttle.leave("first")  # and again, which does nothing
    assert throttle.ask("second", piece, 0.0) == pytest.approx(alone)
    assert throttle.ask("second", piece, alone) == 0
    # It has left no debt either.
    assert throttle.ask("second", piece, alone) == pytest.approx(alone, abs=0.02)


def test_a_turn_that_is_not_taken_delays_the_others_by_its_bytes_alone() -> None:
    throttle = Throttle(100 * KIB)
    piece = throttle.slice(MOST)
    while not throttle.ask("gone", piece, 0.0):
        pass
    now, sent = 0.0, 0
    while now < 10:
        wait = throttle.ask("second", piece, now)
        now, sent = (now + wait, sent) if wait else (now, sent + piece)
    assert sent == pytest.approx(10 * 100 * KIB, rel=0.01)


def test_what_has_no_turn_counts_all_the_same() -> None:
    throttle = Throttle(1000)
    throttle.spend(500, 0.0)
    assert throttle.ask(1, 10, 0.0) == pytest.approx(0.5 - CATCH_UP)


@pytest.mark.parametrize("jobs", [1, 16])
@pytest.mark.parametrize("rate", [1, 10, 1000])
def test_no_job_waits_until_its_receiver_takes_it_for_dead(jobs: int, rate: int) -> None:
    sent = run(Throttle(rate), jobs, random.Random(1), 0.0, until=300.0)
    for job in range(jobs):
        times = [0.0, *(when for when, which, _size in sent if which == job)]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= LONGEST_WAIT + 0.01


@pytest.mark.parametrize(
    ("rate", "most", "piece"),
    [(1, 1000, 1), (4000, 500, 400), (KIB, MOST, 102), (100 * KIB, MOST, 1400), (GIB, MOST, MOST)],
)
def test_pieces_are_small_and_at_usual_rates_fill_a_packet(rate: int, most: int, piece: int) -> None:
    assert Throttle(rate).slice(most) == piece


def test_no_limit() -> None:
    assert Throttle.limited(None) is None
    assert isinstance(Throttle.limited(1), Throttle)
