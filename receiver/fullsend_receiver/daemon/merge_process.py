"""Merges beside the daemon: a process of its own, after each daily prune, one at a time.

The daemon only starts it, and logs what it says. It notes the end of one that has not noted by itself that it came to
its end. It completes or discards what one has left that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from fullsend_protocol.shared.units import printable
from fullsend_receiver.daemon.processes import end, start
from fullsend_receiver.maintenance.merge_records import note_merge_run, read_merge_run
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.workers import run_to_end

log: Final = logging.getLogger("fullsendd")

#: Bytes of a line of its output; names have up to 4 KiB each.
_LINE_MAX: Final = 1 << 20


class MergeProcess:
    """Runs the merges of one daemon."""

    def __init__(self, store: Store, command: Sequence[str], thread: Executor) -> None:
        """`command`: the program, with its arguments, empty: nothing is merged; `thread`: that of prunes."""
        self._store = store
        self._thread = thread
        self._command = command
        self._wanted = asyncio.Event()
        self._process: Process | None = None  # that runs, and was not interrupted

    def begin(self) -> None:
        """Merge what is due, once the merges that run have ended."""
        self._wanted.set()

    def interrupt(self) -> bool:
        """End the merges that run, because their rules have changed. Returns: whether any ran."""
        process, self._process = self._process, None
        if process is None:
            return False
        with contextlib.suppress(ProcessLookupError):  # it has ended at this moment
            process.terminate()
        log.info("merges: end, because receiver.toml has changed")
        return True

    async def run(self) -> None:
        """Merge whenever it is wanted, until cancelled; then the process ends, too."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._command:
                try:
                    await self._run_once(self._command)
                except Exception as error:  # noqa: BLE001 - the daemon serves others, whatever this process makes of it
                    why = f"{type(error).__name__}: {error}"
                    log.warning("merges: have failed: %s", why)
                    await run_to_end(self._thread, partial(self._note, why))

    async def _run_once(self, command: Sequence[str]) -> None:
        ends = await run_to_end(self._thread, self._count_ends)
        self._process = process = await start(*command, stdout=PIPE, stderr=STDOUT, limit=_LINE_MAX)
        try:
            last = await self._log_output(process)
            code = await process.wait()
            interrupted = self._process is None
        finally:
            self._process = None
            await end(process)
        if code and not interrupted:
            log.warning("merges: the process has ended with %d", code)
        await run_to_end(self._thread, self._tidy)
        if not interrupted:
            await run_to_end(self._thread, lambda: self._note_end(code, last, ends))

    async def _log_output(self, process: Process) -> str:
        """Log what it says. Returns: its last line."""
        assert process.stdout is not None  # noqa: S101 - for mypy: it was asked for
        last = ""
        while line := await process.stdout.readline():
            last = line.decode(errors="replace").rstrip()
            log.info("%s", last)
        return last

    def _note_end(self, code: int, last: str, ends: int | None) -> None:
        """Note how a process has ended that has not noted by itself that it came to its end. `last`: the last line that
        it said; `ends`: as noted before it, None: not known. Blocks. Logs what goes wrong.
        """
        if ends is not None and self._count_ends() not in {ends, None}:
            return
        if code < 0:
            self._note(f"its process was killed by signal {-code}")
        else:
            self._note((last or f"its process has ended with {code}") if code else None)

    def _count_ends(self) -> int | None:
        """Return how many runs have noted that they came to their end; None: it cannot be read. Blocks."""
        try:
            return read_merge_run(self._store.documents).ends
        except (StoreError, OSError):
            return None

    def _note(self, why: str | None) -> None:
        try:
            note_merge_run(self._store.documents, None if why is None else printable(why), time.time())
        except (StoreError, OSError) as error:
            log.warning("merges: how they have ended cannot be noted: %s", error)

    def _tidy(self) -> None:
        """Complete or discard what a process has left that was killed. Blocks."""
        try:
            with self._store.alone("merge") as alone:
                for line in self._store.recover_merges() if alone else ():
                    log.info("%s", line)
        except OSError as error:
            log.warning("merges: what the last one has left cannot be removed: %s", error)
