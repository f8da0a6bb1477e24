"""What is gathered, when it is done, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from fullsend_sender.push.cleaner import Cleaner
from fullsend_sender.push.prune_source import EndedPush


def ended(name: str) -> EndedPush:
    return EndedPush(cast("Any", name), "now", stored=True)


class Log:
    """Takes down what it is given. `go`: what it waits for."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.go = asyncio.Event()

    async def __call__(self, batch: Sequence[EndedPush]) -> None:
        self.batches.append([each.item for each in batch])
        await self.go.wait()


async def test_what_comes_within_the_time_is_one_batch() -> None:
    log = Log()
    log.go.set()
    cleaner = Cleaner(log, gather=1000)
    cleaner.add(ended("before it is entered"))
    async with asyncio.timeout(30), cleaner:
        cleaner.add(ended("a"))
        await asyncio.sleep(0)
        cleaner.add(ended("b"))
    assert log.batches == [["before it is entered", "a", "b"]]


async def test_what_comes_meanwhile_is_the_next_batch() -> None:
    log = Log()
    async with asyncio.timeout(30), Cleaner(log, gather=0) as cleaner:
        cleaner.add(ended("a"))
        while not log.batches:
            await asyncio.sleep(0)
        for name in ("b", "c"):
            cleaner.add(ended(name))
        assert log.batches == [["a"]]
        log.go.set()
    assert log.batches == [["a"], ["b", "c"]]


async def test_nothing_to_do() -> None:
    log = Log()
    async with asyncio.timeout(30), Cleaner(log, gather=1000):
        pass
    assert log.batches == []


async def test_an_error_ends_it_at_once() -> None:
    log = Log()

    async def run() -> None:
        async with Cleaner(log, gather=0) as cleaner:
            cleaner.add(ended("a"))
            while not log.batches:
                await asyncio.sleep(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run(), 30)
    assert log.batches == [["a"]]


async def test_its_own_error_is_raised() -> None:
    async def fail(_batch: Sequence[EndedPush]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(30), Cleaner(fail, gather=0) as cleaner:
            cleaner.add(ended("a"))
