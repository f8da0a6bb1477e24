from __future__ import annotations

import asyncio
import functools
from typing import Final

import pytest

from fullsend_transport.turns import TURN, LoopTurns

PIECE: Final = 256 << 10


async def next_turn() -> None:
    await asyncio.sleep(0)


async def test_a_turn_has_room_for_so_much_and_the_next_one_has_room_again() -> None:
    turns = LoopTurns(asyncio.get_running_loop())
    assert [turns.read(TURN // 2) for _ in range(3)] == [True, False, False]
    await next_turn()
    assert turns.read(TURN // 2)


async def test_who_waits_reads_again_in_order_and_not_all_at_once() -> None:
    turns = LoopTurns(asyncio.get_running_loop())
    turns.read(TURN)
    resumed: list[int] = []
    for number in range(3 * TURN // PIECE):
        turns.resume(functools.partial(resumed.append, number))
    assert resumed == []
    for turn in range(1, 4):
        await next_turn()
        assert resumed == list(range(turn * TURN // PIECE))


async def test_room_is_made_at_once_where_there_is_some_and_otherwise_in_a_later_turn() -> None:
    turns = LoopTurns(asyncio.get_running_loop())
    coroutine = turns.make_room(TURN)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError
    waiting = [asyncio.create_task(turns.make_room(TURN)) for _ in range(3)]
    done = []
    while not all(task.done() for task in waiting):
        await next_turn()
        done.append(sum(task.done() for task in waiting))
    assert {1, 2, 3} <= {*done}


async def test_a_chunk_larger_than_a_turn_and_one_that_nobody_waits_for_hold_up_no_other() -> None:
    turns = LoopTurns(asyncio.get_running_loop())
    turns.read(TURN)
    cancelled = turns.make_room(1)
    cancelled.send(None).cancel()
    with pytest.raises(asyncio.CancelledError):
        cancelled.send(None)
    async with asyncio.timeout(10):
        await turns.make_room(3 * TURN)
        await turns.make_room(1)


async def test_nothing_runs_while_nothing_is_read() -> None:
    turns = LoopTurns(asyncio.get_running_loop())
    turns.read(1)
    await next_turn()
    await next_turn()
    assert turns._next is None
