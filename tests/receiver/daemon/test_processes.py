from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.daemon.processes import end, start

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_process_that_runs_is_ended() -> None:
    process = await start(sys.executable, "-c", "import time; time.sleep(1000)")
    await end(process)
    assert process.returncode == -9
    await end(process)


async def test_a_program_that_is_missing_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await start("/no/such/program")


@pytest.mark.parametrize("turns", range(6))
async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path, turns: int) -> None:
    note = tmp_path / "pid"
    script = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    task = asyncio.create_task(start(sys.executable, "-c", script))
    for _turn in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, asyncio.subprocess.Process):
        await end(result)
    if note.exists() and note.read_text():
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)
