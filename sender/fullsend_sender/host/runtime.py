"""Runs a command's coroutine on uvloop. SIGINT and SIGTERM cancel it, so that it can clean up."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final, TypeVar

import uvloop

from fullsend_cli.memory import keep_blocks
from fullsend_protocol.shared.errors import Interrupted
from fullsend_protocol.shared.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

_T = TypeVar("_T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main` to its end. Returns: its result.

    Raises: what it raises; Interrupted if a signal came, after `main` was cancelled and has cleaned up.
    """
    # Keep blocks of all chunks, also the largest: the process is short-lived, and limits its chunks in bytes.
    keep_blocks(32 * MIB, 128 * MIB)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_supervise(main))


async def _supervise(main: Coroutine[Any, Any, _T]) -> _T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    came: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        came.append(number)
        task.cancel()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if came:
            raise Interrupted(f"interrupted by {came[0].name}") from None
        raise
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # the loop sets Python's own handler, but the signal may have been ignored
