from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop

from fullsend_protocol.shared.errors import Interrupted
from fullsend_sender.host.runtime import run


def test_result_and_loop() -> None:
    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert run(main())


def test_errors_come_through() -> None:
    async def main() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        run(main())


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_orderly_end(number: signal.Signals, before: signal.Handlers) -> None:
    cleaned = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    found = signal.signal(number, before)
    try:
        with pytest.raises(Interrupted, match=f"interrupted by {number.name}"):
            run(main())
        assert cleaned
        assert signal.getsignal(number) == before
    finally:
        signal.signal(number, found)


def test_cancelled_without_a_signal() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        run(main())
