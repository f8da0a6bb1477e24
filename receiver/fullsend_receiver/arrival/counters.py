"""What the daemon counts since its start, for its metrics.

The event loop counts, and any thread may read.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from fullsend_protocol.shared.errors import ConnectionLost, ErrorCode, FullsendError, PeerError, Unreachable
from fullsend_protocol.shared.stages import TransferCount
from fullsend_receiver.store.errors import disk_error
from fullsend_transport.channel import Traffic

#: What arriving streams wait for. See `Receiving`.
STAGES: Final = ("wire", "decode", "hash", "disk")
#: How a push failed: `lost`: the connection; `stopped`: its sender has ended it, such as after an error of `zfs send`;
#: else the code of the error that the sender was told.
FAILURES: Final = ("lost", "stopped", *(code.value for code in ErrorCode))


@dataclass(slots=True)
class Counters:
    """What has happened since the daemon's start, `started` (seconds since the epoch).

    `open_connections`: now, with those that are not identified; `connections`: all that were accepted; `pushes`:
    streams that were stored; `push_failures`: pushes that ended otherwise, by one of FAILURES; `scrubbed_bytes`: stored
    bytes that the daemon has read to check them.
    """

    started: float = field(default_factory=time.time)
    open_connections: int = 0
    connections: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    pushes: int = 0
    push_failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILURES, 0))
    scrubbed_bytes: int = 0
    _receiving: set[TransferCount] = field(default_factory=set)
    _waited: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))  # by those that have ended
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def receiving(self, count: TransferCount) -> Iterator[None]:
        """A stream arrives inside. `count`: counts what it waits for."""
        with self._guard:
            self._receiving.add(count)
        try:
            yield
        finally:
            with self._guard:
                self._receiving.remove(count)
                _add(self._waited, count)

    def waited(self) -> dict[str, float]:
        """Return the seconds for which arriving streams have waited, by stage; those that still arrive among them."""
        with self._guard:
            found = dict(self._waited)
            for count in self._receiving:
                _add(found, count)
        return found

    def push_failed(self, error: Exception) -> None:
        """Count a push that this error has ended."""
        self.push_failures[_failure(error)] += 1


def _add(waited: dict[str, float], count: TransferCount) -> None:
    for stage, seconds in count.waited().items():
        waited[stage] = waited.get(stage, 0.0) + seconds


def _failure(error: Exception) -> str:
    match error:
        case ConnectionLost() | Unreachable():
            return "lost"
        case PeerError():
            return "stopped"
        case OSError():
            return disk_error(error).code
        case FullsendError():
            return error.code
        case _:
            return ErrorCode.INTERNAL
