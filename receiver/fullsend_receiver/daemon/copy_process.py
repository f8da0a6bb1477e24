"""Copies into another store beside the daemon, when it is time: a process of its own, one at a time.

The process is `fullsendd copy`, which notes what it has done. The daemon decides when, logs what it says, and notes the
end of one that could not. So nothing that the other store does, or does not, keeps the daemon from its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_time, printable
from fullsend_receiver.access.config import load
from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.daemon.processes import end, start
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import CopyFailed
from fullsend_receiver.maintenance.copy_records import CopyRecord, note_failed, note_wanted, read_record
from fullsend_receiver.maintenance.copy_schedule import AGAIN, is_due
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.workers import run_to_end

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks at the time.
_LOOK_EVERY: Final = 60.0
#: Bytes of a line of its output; names have up to 4 KiB each.
_LINE_MAX: Final = 1 << 20
#: Seconds that the process has to end by itself: it gives its claim back, and notes how far it came.
_END_WITHIN: Final = 10.0


class CopyProcess:
    """The copies of one daemon."""

    def __init__(
        self,
        store: Store,
        settings: CopySettings | None,
        command: Sequence[str],
        thread: Executor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`settings`: None: there are no copies; `command`: the program, with its arguments, empty: the same; `thread`:
        one for it alone; `clock`: seconds since the epoch.
        """
        self._store = store
        self._settings = settings
        self._command = command
        self._thread = thread
        self._clock = clock
        self._process: Process | None = None  # that runs
        self._busy_until = 0.0  # another host copies, by the clock that nobody sets
        self._interrupted = False  # by new settings: it begins again by them
        self._said = ""
        self._changed = asyncio.Event()  # look at once

    def change(self, settings: CopySettings | None) -> None:
        """Copy by these settings from now on. A copy that runs by other ones ends; it is resumed by the next."""
        if settings == self._settings:
            return
        self._settings = settings
        self._busy_until = 0.0
        self._changed.set()
        if self._process is not None:
            log.info("copy: ends, because receiver.toml has changed")
            self._interrupted = True
            with contextlib.suppress(ProcessLookupError):  # it has ended at this moment
                self._process.terminate()

    async def run(self, look_every: float = _LOOK_EVERY) -> None:
        """Copy whenever it is time, until cancelled; then the process ends, too."""
        while True:
            self._changed.clear()
            if self._command and time.monotonic() >= self._busy_until:
                try:
                    store_id = await run_to_end(self._thread, self._look)
                    if store_id is not None:
                        await self._run_once(store_id)
                except Exception as error:  # noqa: BLE001 - the daemon serves others, whatever becomes of the copies
                    self._complain(f"{type(error).__name__}: {error}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_every):
                    await self._changed.wait()

    def _look(self) -> str | None:
        """Return the id of the store into which it is time to copy; None: it is not. Blocks. Raises: OSError."""
        settings = self._settings
        if settings is None:
            return None
        try:
            self._store.check_mounted()
        except StoreError:  # the daemon says so, once
            return None
        try:
            store_id = load(settings.to).store_id
        except FullsendError as error:
            self._complain(str(error))
            return None
        record = note_wanted(self._store.documents, store_id, settings.scope, self._clock())
        interrupted, self._interrupted = self._interrupted, False
        return store_id if interrupted or is_due(record, settings, self._clock()) else None

    async def _run_once(self, store_id: str) -> None:
        before = await run_to_end(self._thread, lambda: read_record(self._store.documents, store_id))
        last, code = "", None
        process = await start(*self._command, stdout=PIPE, stderr=STDOUT, limit=_LINE_MAX)
        self._process = process
        try:
            assert process.stdout is not None  # noqa: S101 - for mypy: it was asked for
            while line := await process.stdout.readline():
                last = line.decode(errors="replace").rstrip()
                log.info("copy: %s", last)
            code = await process.wait()
        finally:
            self._process = None
            await _end_soon(process)
        if code == Exit.RUNNING:
            self._busy_until = time.monotonic() + AGAIN
        elif code:
            await run_to_end(self._thread, lambda: self._note_end(store_id, before, code, last))

    def _note_end(self, store_id: str, before: CopyRecord, code: int, last: str) -> None:
        """Note how a process ended that has noted nothing. `last`: the last line that it said. Blocks. Raises:
        OSError.
        """
        record = read_record(self._store.documents, store_id)
        if record.has_ended and record != before:
            return
        why = f"its process was killed by signal {-code}" if code < 0 else last or f"its process has ended with {code}"
        note_failed(self._store.documents, store_id, why, self._clock())
        self._emit(why)

    def _complain(self, why: str) -> None:
        """Say this once a day: it is tried again and again."""
        said = f"{format_time(self._clock())[:10]} {why}"
        if said != self._said:
            self._said = said
            self._emit(why)

    def _emit(self, why: str) -> None:
        to = "" if self._settings is None else str(self._settings.to)
        text = f"copy: has failed: {why}"
        emit(CopyFailed(text=printable(text), to=to, why=printable(why)), logging.ERROR)


async def _end_soon(process: Process) -> None:
    """End a process that still runs: it is told to, and killed if it does not."""
    try:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_WITHIN):
                    await process.wait()
    finally:
        await end(process)
