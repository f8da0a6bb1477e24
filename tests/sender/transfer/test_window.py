from __future__ import annotations

import asyncio

import pytest

from fullsend_protocol.stream.chunks import SegmentHash
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.transfer.segments import Ready
from fullsend_sender.transfer.window import WINDOW, Window

#: Bytes of the chunks' frames, and where the chunks end: odd sizes, none of which is another's.
SIZES = [100, 37, 250, 1]
ENDS = [sum(SIZES[: at + 1]) for at in range(len(SIZES))]
FIRST, SECOND, THIRD, FOURTH = (
    Ready(Chunk(end - size, size, bytes(32), bytes(size)), SegmentHash(0))
    for size, end in zip(SIZES, ENDS, strict=True)
)


async def waits(waiting: asyncio.Task[None]) -> bool:
    for _turn in range(5):
        await asyncio.sleep(0)
    return not waiting.done()


def test_the_limit_is_more_than_a_batch_of_the_receiver() -> None:
    """And no more than the design allows."""
    assert 32 << 20 < WINDOW <= 64 << 20


async def test_keeping_waits_for_room() -> None:
    window = Window(SIZES[0] + SIZES[1])
    await window.keep(FIRST)
    await window.keep(SECOND)
    waiting = asyncio.create_task(window.keep(THIRD))
    assert await waits(waiting)
    window.acknowledge(ENDS[0] - 1)  # not all of it
    assert await waits(waiting)
    window.acknowledge(ENDS[0])
    assert await waits(waiting)  # the third is larger than the first
    window.acknowledge(ENDS[1])
    await waiting
    assert window.unacknowledged == [THIRD]


async def test_one_chunk_that_is_larger_than_the_limit_has_room() -> None:
    window = Window(1)
    await window.keep(FIRST)
    waiting = asyncio.create_task(window.keep(SECOND))
    assert await waits(waiting)
    window.acknowledge(ENDS[0])
    await waiting


async def test_a_chunk_is_kept_also_where_the_waiting_is_cancelled() -> None:
    window = Window(1)
    await window.keep(FIRST)
    waiting = asyncio.create_task(window.keep(SECOND))
    assert await waits(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert window.unacknowledged == [FIRST, SECOND]


async def test_what_is_acknowledged_is_let_go_of() -> None:
    window = Window()
    for ready in (FIRST, SECOND, THIRD, FOURTH):
        await window.keep(ready)
    offsets = [ready.chunk.raw_offset for ready in window.unacknowledged]
    assert offsets == [0, *ENDS[:3]]
    for offset, left in ((0, 4), (ENDS[1], 2), (ENDS[2] - 1, 2), (ENDS[2], 1), (ENDS[3], 0)):
        window.acknowledge(offset)
        assert len(window.unacknowledged) == left
    assert window._used == 0
