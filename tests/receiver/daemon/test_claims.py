from __future__ import annotations

import asyncio
from typing import Any, cast

from fullsend_receiver.daemon.claims import Claims
from fullsend_receiver.daemon.session import SharedState


def shared_state() -> SharedState:
    shared: SharedState = cast("Any", SharedState)(*[None] * 8)
    return shared


async def test_claim_lasts_as_long_as_its_context() -> None:
    shared = shared_state()
    claims = Claims(shared, asyncio.get_running_loop())
    seen: list[Any] = []

    def delete() -> None:
        with claims.claim("key") as is_mine:
            seen.extend([is_mine, [*shared.deleting]])

    await asyncio.to_thread(delete)
    assert seen == [True, ["key"]]
    await asyncio.sleep(0)
    assert shared.deleting == {}


async def test_partial_that_has_arrived_since_the_sweep_began_is_not_claimed() -> None:
    """What the sweep knows of it is of before."""
    shared = shared_state()
    shared.begun.add("key")
    claims = Claims(shared, asyncio.get_running_loop())

    def delete() -> bool:
        with claims.claim("key") as is_mine:
            return is_mine

    assert not await asyncio.to_thread(delete)
    assert shared.deleting == {}
