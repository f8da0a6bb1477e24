"""Merges beside the daemon: a process of its own, after each daily prune, one at a time.

The daemon only starts it, logs what it says, and completes or discards what it has left if it was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

from fullsend_receiver.store.api import Store
from fullsend_receiver.store.workers import run_to_end

log: Final = logging.getLogger("fullsendd")

#: Bytes of a line of its output; names have up to 4 KiB each.
_LINE_MAX: Final = 1 << 20
#: Seconds until a process that was asked to end is killed. It holds nothing that it must release.
_END_WITHIN: Final = 10.0


class MergeProcess:
    """Runs the merges of one daemon."""

    def __init__(self, store: Store, command: Sequence[str], thread: Executor) -> None:
        """`command`: the program, with its arguments, empty: nothing is merged; `thread`: that of prunes."""
        self._store = store
        self._thread = thread
        self._command = command
        self._wanted = asyncio.Event()

    def begin(self) -> None:
        """Merge what is due, once the merges that run have ended."""
        self._wanted.set()

    async def run(self) -> None:
        """Merge whenever it is wanted, until cancelled; then the process ends, too."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._command:
                try:
                    await self._run_once(self._command)
                except Exception as error:  # noqa: BLE001 - the daemon serves others, whatever this process makes of it
                    log.warning("merges: have failed: %s: %s", type(error).__name__, error)

    async def _run_once(self, command: Sequence[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, limit=_LINE_MAX
        )
        try:
            await self._log_output(process)
            code = await process.wait()
        except BaseException:
            await _end(process)
            raise
        if code:
            log.warning("merges: the process has ended with %d", code)
        await run_to_end(self._thread, self._tidy)

    async def _log_output(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 - for mypy: it was asked for
        while line := await process.stdout.readline():
            log.info("%s", line.decode(errors="replace").rstrip())

    def _tidy(self) -> None:
        """Complete or discard what a process has left that was killed. Blocks."""
        try:
            with self._store.alone("merge") as alone:
                for line in self._store.recover_merges() if alone else ():
                    log.info("%s", line)
        except OSError as error:
            log.warning("merges: what the last one has left cannot be removed: %s", error)


async def _end(process: Process) -> None:
    """End a process, and wait until it has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_END_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
