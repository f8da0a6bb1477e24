"""The transfers that are under way, for `fullsendd top`. Each keeps its own counters; here is only which there are."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire.live import Activity, LiveTransfer


@dataclass(frozen=True, slots=True)
class _Running:
    """A transfer of this daemon. `number`: the next is one more."""

    number: int
    activity: Activity
    sender: str
    what: str
    count: TransferCount


class LiveTransfers:
    """All transfers of a daemon, and what commands tell of their own work. For the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._numbers = itertools.count(1)
        self._running: dict[int, _Running] = {}
        self._told: dict[object, LiveTransfer] = {}

    @contextlib.contextmanager
    def running(self, activity: Activity, sender: str, what: str, count: TransferCount) -> Iterator[None]:
        """List a transfer until the block is left. `what`: DATASET@SNAPSHOT; `count`: what it has done so far."""
        number = next(self._numbers)
        self._running[number] = _Running(number, activity, sender, what, count)
        try:
            yield
        finally:
            del self._running[number]

    def tell(self, command: object, transfer: LiveTransfer | None) -> None:
        """List what a command says that it does. `command`: tells it from others; None: it does nothing."""
        if transfer is None:
            self._told.pop(command, None)
        else:
            self._told[command] = transfer

    def all(self) -> list[LiveTransfer]:
        """Return them, the oldest first; then those of commands."""
        now = self._clock()
        own = (
            LiveTransfer.of(f"{os.getpid()}.{each.number}", each.activity, each.sender, each.what, each.count, now)
            for each in self._running.values()
        )
        return [*own, *self._told.values()]
