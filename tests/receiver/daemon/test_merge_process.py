"""The process that merges beside the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import push_of, small_stream

from fullsend_receiver.daemon.merge_process import MergeProcess
from fullsend_receiver.store.opened import open_offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@contextlib.asynccontextmanager
async def running(merges: MergeProcess) -> AsyncIterator[None]:
    task = asyncio.create_task(merges.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(log: pytest.LogCaptureFixture, text: str) -> None:
    while text not in log.text:
        await asyncio.sleep(0.01)


async def test_it_runs_when_it_is_wanted_and_logs_what_is_said(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = "import sys; print('one is merged'); print('two', file=sys.stderr); sys.exit(3)"
    merges = MergeProcess(store, [sys.executable, "-c", script], thread)
    async with running(merges):
        merges.begin()
        await until(caplog, "merges: the process has ended with 3")
    assert "one is merged" in caplog.text
    assert "two" in caplog.text


async def test_what_a_killed_process_has_left_is_removed(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_offer("alpha", push_of(small_stream("tank/data", 1))).model_copy(update={"merge": True})
    store.begin("ab" * 16, opened).close(keep=True)
    merges = MergeProcess(store, [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], thread)
    async with running(merges):
        merges.begin()
        await until(caplog, "merges: the process has ended with -9")
        while list(store.partial.iterdir()):
            await asyncio.sleep(0.01)


async def test_the_daemon_s_end_ends_it(store: LocalStore, thread: ThreadPoolExecutor, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    merges = MergeProcess(store, [sys.executable, "-c", script], thread)
    async with running(merges):
        merges.begin()
        while not (note.exists() and note.read_text()):
            await asyncio.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_a_program_that_is_missing_is_logged_and_the_next_one_is_tried(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    merges = MergeProcess(store, ["/no/such/program"], thread)
    async with running(merges):
        for count in (1, 2):
            merges.begin()
            while caplog.text.count("merges: have failed") < count:
                await asyncio.sleep(0.01)


async def test_without_a_command_nothing_runs(store: LocalStore, thread: ThreadPoolExecutor) -> None:
    merges = MergeProcess(store, (), thread)
    async with running(merges):
        merges.begin()
        await asyncio.sleep(0)
