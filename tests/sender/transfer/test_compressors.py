"""Contexts of zstd, lent to threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, Compressor, Level, compression_memory
from fullsend_sender.transfer.adaptive_level import LADDER
from fullsend_sender.transfer.compressors import Compressors
from fullsend_sender.transfer.memory import room_for_levels


def test_no_more_are_lent_than_there_is_room_for() -> None:
    lender = Compressors(2 * compression_memory(9) + 1)
    most = lent = 0
    changed = threading.Lock()
    seen: set[int] = set()

    def use(number: int) -> bytes:
        nonlocal most, lent
        with lender.lend(9) as compressor:
            with changed:
                lent += 1
                most = max(most, lent)
                seen.add(id(compressor))
            frame = compressor.compress(b"%d" % number * 100_000)
            with changed:
                lent -= 1
        return frame

    with ThreadPoolExecutor(6) as pool:
        frames = list(pool.map(use, range(30)))
    assert frames == [Compressor(9).compress(b"%d" % number * 100_000) for number in range(30)]
    assert most <= 2
    assert len(seen) <= 2
    assert lent == 0


def memory(lender: Compressors) -> int:
    """Bytes of the contexts that exist, but for those of LIGHT."""
    unused = sum(compression_memory(level) * len(free) for level, free in lender._free.items() if level != LIGHT)
    return lender._lent + unused


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_all_together_fit_while_levels_change(threads: int) -> None:
    room = room_for_levels(threads)
    lender = Compressors(room)
    most = 0

    def use(level: Level) -> None:
        nonlocal most
        for each in (LIGHT, level, LEVEL_DEFAULT):
            with lender.lend(each) as compressor:
                compressor.compress(b"x" * 1000)
                with lender._returned:
                    most = max(most, memory(lender))

    fitting = [level for level in LADDER if compression_memory(level) <= room]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(use, [level for level in (*fitting, *reversed(fitting)) for _ in range(2 * threads)]))
    assert 0 < most <= room


def test_contexts_that_fit_are_kept() -> None:
    lender = Compressors(room_for_levels(2))
    for _ in range(2):
        for level in (LIGHT, 9):
            with lender.lend(level) as compressor:
                kept = compressor
    with lender.lend(LIGHT), lender.lend(9) as compressor:
        assert compressor is kept


def test_one_that_is_larger_than_the_room_is_lent_alone() -> None:
    lender = Compressors(1)
    for level in (LEVEL_DEFAULT, 9):
        with lender.lend(level) as compressor:
            assert compressor.compress(b"x")


def test_a_failure_returns_the_context() -> None:
    lender = Compressors(compression_memory(3))
    for _ in range(2):
        with pytest.raises(TypeError), lender.lend(3) as compressor:
            compressor.compress("not bytes")  # type: ignore[arg-type]
    assert len(lender._free[3]) == 1
