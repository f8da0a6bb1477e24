from __future__ import annotations

import asyncio

import pytest

from fullsend_receiver.daemon.shared_look import SharedLook


class HeldLook:
    """Ends when the test says so. `begun`: how many have begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.faults = 0
        self._begins = asyncio.Event()
        self._ends = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        self._begins.set()
        await self._ends.wait()
        if self.faults:
            self.faults -= 1
            raise OSError("lost")

    async def has_begun(self) -> None:
        await self._begins.wait()

    def end(self) -> None:
        self._ends.set()


async def ask_many(look: HeldLook, shared: SharedLook, many: int) -> list[asyncio.Task[None]]:
    """Ask once, and many times more while that look runs."""
    first = asyncio.create_task(shared.ask())
    await look.has_begun()
    others = [asyncio.create_task(shared.ask()) for _ in range(many)]
    await asyncio.sleep(0)  # each has asked now
    return [first, *others]


async def test_all_that_ask_during_a_look_share_the_next_one() -> None:
    look = HeldLook()
    asked = await ask_many(look, SharedLook(look), 64)
    assert not any(each.done() for each in asked)
    look.end()
    await asyncio.gather(*asked)
    assert look.begun == 2


async def test_who_asks_later_looks_again() -> None:
    look = HeldLook()
    look.end()
    shared = SharedLook(look)
    await shared.ask()
    await shared.ask()
    assert look.begun == 2


async def test_one_that_gives_up_amid_a_look_leaves_the_others_to_theirs() -> None:
    look = HeldLook()
    first, *others = await ask_many(look, SharedLook(look), 3)
    first.cancel()
    look.end()
    await asyncio.gather(*others)
    assert first.cancelled()
    assert look.begun == 2


async def test_a_look_that_fails_serves_nobody() -> None:
    look = HeldLook()
    look.faults = 1
    first, *others = await ask_many(look, SharedLook(look), 3)
    look.end()
    with pytest.raises(OSError, match="lost"):
        await first
    await asyncio.gather(*others)
    assert look.begun == 2
