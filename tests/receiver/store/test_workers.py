"""Work in threads, and tasks that are cancelled while they await it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.store.workers import CALM, SLOW_SYNC, SyncTimes, Workers, uncancelled

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def workers() -> Iterator[Workers]:
    with ThreadPoolExecutor(1, thread_name_prefix="disk") as disk:
        yield Workers(cpu=disk, disk=disk, scrub=disk)


async def test_what_is_done_on_disk_is_done_in_a_thread_of_its_own(workers: Workers) -> None:
    assert (await workers.run_to_end(threading.current_thread)).name.startswith("disk")


async def test_what_it_raises_is_raised(workers: Workers) -> None:
    def fail() -> None:
        raise OSError(5, "no such disk")

    with pytest.raises(OSError, match="no such disk"):
        await workers.run_to_end(fail)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_however_often_waits_for_the_thread_and_is_cancelled_then(
    workers: Workers, *, fails: bool
) -> None:
    begun, proceed, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        proceed.wait()
        ended.set()
        if fails:
            raise OSError(5, "no such disk")

    task = asyncio.ensure_future(workers.run_to_end(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    proceed.set()
    await asyncio.wait([task])
    assert ended.is_set()
    assert task.cancelled()


async def test_who_abandons_work_is_cancelled_at_once_and_the_thread_ends_it(workers: Workers) -> None:
    begun, proceed, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        proceed.wait()
        ended.set()

    task = asyncio.ensure_future(workers.run(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not ended.is_set()
    proceed.set()
    assert await asyncio.to_thread(ended.wait)


async def test_who_is_not_cancelled_gets_what_was_awaited() -> None:
    assert await uncancelled(asyncio.sleep(0, "done")) == "done"


# --- how long arriving streams wait for the disk ------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_disk_is_busy_while_and_after_a_sync_takes_long() -> None:
    clock = Clock()
    syncs = SyncTimes(clock)
    seen = []

    def slow() -> str:
        seen.append(syncs.busy)
        clock.now += SLOW_SYNC + 0.1
        seen.append(syncs.busy)
        syncs.timed(lambda: None)  # another one is quick
        return "done"

    assert not syncs.busy
    assert syncs.timed(slow) == "done"
    assert seen == [False, True]
    clock.now += CALM - 0.1
    assert syncs.busy
    clock.now += 0.2
    assert not syncs.busy


def test_a_sync_that_fails_is_counted_and_over() -> None:
    clock = Clock()
    syncs = SyncTimes(clock)

    def fail() -> None:
        clock.now += 2 * SLOW_SYNC
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        syncs.timed(fail)
    assert syncs.busy
    clock.now += CALM
    assert not syncs.busy
