"""Chunks between the wire and the disk: decoded in parallel, given out in order, and never more than there is room."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.helpers import chunks_of, cut, long_stream

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError
from fullsend_protocol.wire.connection import Chunk, ChunkArriving
from fullsend_receiver.arrival.decode_queue import CHUNK_ROOM, CHUNKS_HELD, DecodeQueue, chunks_held, decode_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: So many that CHUNKS_HELD chunks are held.
PROCESSORS = 4
RAW = long_stream(CHUNKS_HELD - 1, tail=2)  # so many chunks as are held


class ByHand(Executor):
    """Threads that do what they were given when the test says so. `given`: what waits, in the order of `submit`."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[explicit-override]
        future: Future[Any] = Future()
        self.given.append((future, lambda: fn(*args, **kwargs)))
        return future

    def do(self, number: int) -> None:
        future, work = self.given[number]
        try:
            result = work()
        except ChunkError as error:
            future.set_exception(error)
        else:
            future.set_result(result)


@pytest.fixture
def hands() -> ByHand:
    return ByHand()


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def announced(chunk: Chunk) -> ChunkArriving:
    return ChunkArriving(len(chunk.frame) + limits.DIGEST_SIZE, chunk.raw_length)


async def arrive(queue: DecodeQueue, chunk: Chunk) -> None:
    await queue.claim(announced(chunk))
    queue.put(announced(chunk), chunk)


async def turns(waiting: asyncio.Future[Any]) -> None:
    """Let the loop do all that it can do without the one that waits."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()


async def test_chunks_come_out_decoded_and_in_order_with_how_they_were_announced(threads: Executor) -> None:
    queue = DecodeQueue(threads, PROCESSORS)
    chunks = list(chunks_of(RAW))
    for chunk in chunks:
        await arrive(queue, chunk)
    queue.end()
    for chunk, (_at, piece) in zip(chunks, cut(RAW), strict=True):
        arrived = await queue.get()
        assert arrived is not None
        assert (arrived.arriving, arrived.chunk, arrived.raw()) == (announced(chunk), chunk, piece)
        queue.release(arrived.arriving)
    assert await queue.get() is None
    assert await queue.get() is None


async def test_all_are_decoded_at_once_and_the_order_is_kept_whichever_is_first(hands: ByHand) -> None:
    queue = DecodeQueue(hands, PROCESSORS)
    first, second, *_rest = chunks_of(RAW)
    await arrive(queue, first)
    await arrive(queue, second)
    assert len(hands.given) == 2
    getting = asyncio.ensure_future(queue.get())
    hands.do(1)
    await turns(getting)
    hands.do(0)
    arrived = await getting
    assert arrived is not None
    assert arrived.chunk is first


async def test_who_waits_for_a_chunk_gets_the_one_that_comes_and_decodes_it_himself(hands: ByHand) -> None:
    queue = DecodeQueue(hands, PROCESSORS)
    getting = asyncio.ensure_future(queue.get())
    await turns(getting)
    first, second, third, *_rest = chunks_of(RAW)
    pieces = [piece for _at, piece in cut(RAW)]
    await arrive(queue, first)
    assert hands.given == []
    arrived = await getting
    assert arrived is not None
    assert arrived.decoded is None
    assert arrived.raw() == pieces[0]
    # It is at work: what comes now has to wait, and is decoded meanwhile.
    await arrive(queue, second)
    await arrive(queue, third)
    assert len(hands.given) == 2
    for number in (0, 1):
        hands.do(number)
        arrived = await queue.get()
        assert arrived is not None
        assert arrived.decoded == pieces[number + 1]
    getting = asyncio.ensure_future(queue.get())
    await turns(getting)
    queue.end()
    assert await getting is None


async def test_a_chunk_that_does_not_decode_fails_in_its_turn(threads: Executor) -> None:
    queue = DecodeQueue(threads, PROCESSORS)
    first, second, *_rest = chunks_of(RAW)
    await arrive(queue, first)
    await arrive(queue, replace(second, frame=bytes(second.frame)[:-1]))
    assert await queue.get() is not None
    with pytest.raises(ChunkError, match="zstd frame"):
        await queue.get()


async def test_what_is_dropped_is_waited_for(hands: ByHand) -> None:
    queue = DecodeQueue(hands, PROCESSORS)
    first, second, *_rest = chunks_of(RAW)
    await arrive(queue, first)
    await arrive(queue, replace(second, frame=b"no frame"))
    closing = asyncio.ensure_future(queue.close())
    hands.do(1)
    await turns(closing)
    hands.do(0)
    await closing
    queue.end()
    assert await queue.get() is None


async def test_a_queue_that_is_stopped_gives_nothing_out_any_more(hands: ByHand) -> None:
    queue = DecodeQueue(hands, PROCESSORS)
    getting = asyncio.ensure_future(queue.get())
    await turns(getting)
    queue.stop()
    assert await getting is None
    await arrive(queue, next(chunks_of(RAW)))
    assert await queue.get() is None
    closing = asyncio.ensure_future(queue.close())
    for number in range(len(hands.given)):
        hands.do(number)
    await closing


@pytest.mark.parametrize(("processors", "held"), [(1, 3), (2, 3), (3, 4), (4, CHUNKS_HELD), (64, CHUNKS_HELD)])
async def test_more_processors_hold_more_chunks(hands: ByHand, processors: int, held: int) -> None:
    assert chunks_held(processors) == held
    queue = DecodeQueue(hands, processors)
    arriving = ChunkArriving(2 * limits.MIB, 4 * limits.MIB)
    for _ in range(held):
        assert queue.has_room(arriving)
        await queue.claim(arriving)
    assert not queue.has_room(arriving)


@pytest.mark.parametrize(
    ("arriving", "fit"),
    [
        (ChunkArriving(4 * limits.MIB, 4 * limits.MIB), CHUNKS_HELD),
        (ChunkArriving(2 * limits.MIB, 4 * limits.MIB), CHUNKS_HELD),
        (ChunkArriving(10 * limits.MIB, 10 * limits.MIB), CHUNK_ROOM // (20 * limits.MIB)),
        (ChunkArriving(limits.CHUNK_FRAME_MAX + limits.DIGEST_SIZE, limits.CHUNK_MAX), 1),
        (ChunkArriving(limits.CHUNK_FRAME_MAX, 1 << 40), 1),  # what is larger than the room comes alone
    ],
)
async def test_so_many_fit_and_the_next_one_waits_for_one_that_goes(
    hands: ByHand, arriving: ChunkArriving, fit: int
) -> None:
    queue = DecodeQueue(hands, PROCESSORS)
    for _ in range(fit):
        assert queue.has_room(arriving)
        await queue.claim(arriving)
    assert not queue.has_room(arriving)
    claiming = asyncio.ensure_future(queue.claim(arriving))
    await turns(claiming)
    queue.release(arriving)
    await claiming
    assert not queue.has_room(arriving)


async def test_who_is_cancelled_while_waiting_has_claimed_nothing(hands: ByHand) -> None:
    queue = DecodeQueue(hands, PROCESSORS)
    arriving = ChunkArriving(limits.CHUNK_FRAME_MAX, limits.CHUNK_MAX)
    await queue.claim(arriving)
    claiming = asyncio.ensure_future(queue.claim(arriving))
    await turns(claiming)
    claiming.cancel()
    await asyncio.wait([claiming])
    queue.release(arriving)
    assert queue.has_room(arriving)


def test_a_chunk_is_decoded_to_its_raw_bytes() -> None:
    assert b"".join(map(decode_chunk, chunks_of(RAW))) == RAW
