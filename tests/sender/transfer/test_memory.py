"""The memory of a push, and the threads and levels that fit into it."""

from __future__ import annotations

import os

import pytest

from fullsend_protocol.shared.limits import MIB
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, compression_memory
from fullsend_sender.transfer.adaptive_level import LADDER
from fullsend_sender.transfer.buffers import FIRST, LARGEST
from fullsend_sender.transfer.memory import (
    BUDGET,
    THREAD_COSTS,
    compressing,
    contexts,
    default_threads,
    push_memory,
    raw_in_flight,
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A host with so many permitted CPUs, and so many bytes of memory."""
    has = {"cpus": 64, "memory": 512 * MIB}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(has["cpus"])))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": has["memory"] >> 12}.get)
    return has


def test_four_threads_whatever_the_memory(host: dict[str, int]) -> None:
    assert default_threads() == default_threads(16) == 4
    host["cpus"] = 1
    assert default_threads() == 1


def test_more_threads_where_there_is_memory(host: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = 64 * 6 * THREAD_COSTS
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.get)
    assert [default_threads(jobs) for jobs in (1, 2, 3, 6, 7)] == [10, 7, 6, 5, 4]
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 100 * memory}.get)
    assert default_threads() == 16
    host["cpus"] = 7
    assert default_threads() == 7


def test_raw_in_flight() -> None:
    assert raw_in_flight(1) == raw_in_flight(2) == 24 * MIB >= LARGEST
    assert raw_in_flight(30) > raw_in_flight(4) == 6 * FIRST


@pytest.mark.parametrize("threads", range(1, 17))
def test_no_level_exceeds_the_budget(threads: int) -> None:
    budget = BUDGET + max(0, threads - 4) * THREAD_COSTS
    assert push_memory(None, threads, 1) == budget
    for level, many in compressing(threads, LADDER).items():
        assert 1 <= many <= threads
        assert many * compression_memory(level) + threads * compression_memory(LIGHT) <= contexts(threads)
    assert compressing(threads, LADDER)[LEVEL_DEFAULT] == threads
    # A chunk that does not compress gets LIGHT, whatever the level is.
    assert threads * (compression_memory(LIGHT) + compression_memory(LEVEL_DEFAULT)) <= contexts(threads)


def test_few_threads_have_room_for_high_levels() -> None:
    assert compressing(2, LADDER) == {1: 2, LIGHT: 2, 3: 2, 5: 2, 6: 2, 7: 2, 9: 1}
    assert compressing(4, LADDER) == {1: 4, LIGHT: 4, 3: 4, 5: 1, 6: 1}


def test_a_level_that_the_user_sets_costs_what_it_costs() -> None:
    assert push_memory(LEVEL_DEFAULT, 4, 1) < BUDGET < push_memory(22, 1, 1) < push_memory(22, 4, 1)
    assert push_memory(LEVEL_DEFAULT, 2, 3) > 2 * push_memory(LEVEL_DEFAULT, 2, 1)
