"""Reading ahead of the wire: two chunks, in order, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fullsend_protocol.shared import limits
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.daemon.read_ahead import CHUNKS_AHEAD, FRAMES_HELD, read_ahead
from fullsend_receiver.store.seekable import FileDamaged
from fullsend_receiver.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Disk:
    """A stored stream whose frames have these sizes. `begun`: chunks whose reading has begun; `closed`: its file is.

    A `size` of -1 is damage.
    """

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes
        self.begun = 0
        self.closed = False
        self.proceed = threading.Event()
        self.proceed.set()
        self.at_work = threading.Event()

    def chunks(self) -> Generator[Chunk, None, None]:
        try:
            for number, size in enumerate(self._sizes):
                self.begun += 1
                self.at_work.set()
                self.proceed.wait()
                if size < 0:
                    raise FileDamaged(f"chunk {number}")
                yield Chunk(number, 1, bytes(32), bytes(size))
        finally:
            self.closed = True


class AtOnce(Executor):
    """A thread that has done its work before anybody can look."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[explicit-override]
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except FileDamaged as error:
            future.set_exception(error)
        return future


@pytest.fixture
def workers() -> Workers:
    return Workers(cpu=AtOnce(), disk=AtOnce(), scrub=AtOnce())


async def turns() -> None:
    """Let the loop do all that can be done without us."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_all_chunks_come_in_order(workers: Workers) -> None:
    disk = Disk(*range(1, 20))
    found = [(chunk.raw_offset, len(chunk.frame)) async for chunk in read_ahead(workers, disk.chunks())]
    assert found == list(enumerate(range(1, 20)))
    assert disk.closed


@pytest.mark.parametrize(
    ("size", "ahead"),
    [
        (2 * limits.MIB, CHUNKS_AHEAD),
        (4 * limits.MIB, CHUNKS_AHEAD),
        (FRAMES_HELD // 2, 1),
        (FRAMES_HELD - 1, 1),
        (FRAMES_HELD, 0),
        (limits.CHUNK_MAX, 0),
    ],
)
async def test_so_many_are_read_while_one_is_sent_and_no_more(workers: Workers, size: int, ahead: int) -> None:
    disk = Disk(*[size] * 6)
    async with contextlib.aclosing(read_ahead(workers, disk.chunks())) as chunks:
        for sent in range(1, 4):
            await anext(chunks)
            await turns()
            assert disk.begun == sent + ahead
    assert disk.closed


async def test_what_is_wrong_is_raised_behind_what_was_right(workers: Workers) -> None:
    disk = Disk(1, 1, -1, 1)
    chunks = read_ahead(workers, disk.chunks())
    assert (await anext(chunks)).raw_offset == 0
    await turns()
    assert disk.closed  # the fault is found while the first one is sent
    assert (await anext(chunks)).raw_offset == 1
    with pytest.raises(FileDamaged, match="chunk 2"):
        await anext(chunks)


async def test_who_leaves_early_is_not_told_of_what_is_wrong_further_on(workers: Workers) -> None:
    disk = Disk(1, -1)
    async with contextlib.aclosing(read_ahead(workers, disk.chunks())) as chunks:
        await anext(chunks)
        await turns()
        assert disk.closed


async def test_what_is_cancelled_waits_for_the_thread_and_closes_the_file() -> None:
    disk = Disk(1, 1)
    disk.proceed.clear()
    before = asyncio.all_tasks()
    with ThreadPoolExecutor(1) as thread:

        async def send() -> None:
            workers = Workers(cpu=thread, disk=thread, scrub=thread)
            async with contextlib.aclosing(read_ahead(workers, disk.chunks())) as chunks:
                async for _chunk in chunks:
                    pass

        sending: asyncio.Task[Any] = asyncio.create_task(send())
        await asyncio.to_thread(disk.at_work.wait)
        for _ in range(3):
            sending.cancel()
            await turns()
            assert not sending.done()
            assert not disk.closed
        disk.proceed.set()
        await asyncio.wait([sending])
    assert sending.cancelled()
    assert disk.closed
    assert disk.begun == 1
    assert asyncio.all_tasks() == before


async def test_what_is_closed_before_it_has_begun_reads_nothing(workers: Workers) -> None:
    disk = Disk(1)
    async with contextlib.aclosing(read_ahead(workers, disk.chunks())):
        pass
    assert disk.begun == 0
