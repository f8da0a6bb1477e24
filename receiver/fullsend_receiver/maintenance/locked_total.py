"""Adds up what a prune leaves, because an object store lets nobody delete it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fullsend_protocol.shared.units import format_size, plural
from fullsend_receiver.store.locks import lock_end

if TYPE_CHECKING:
    from fullsend_receiver.maintenance.prune import Judged


@dataclass(slots=True)
class LockedTotal:
    """Streams that no rule keeps, and a lock does. `until`: the last end of a lock, as `Store.locked`."""

    streams: int = 0
    stored_bytes: int = 0
    until: float = -math.inf

    def add(self, judged: Judged) -> None:
        """Count a stream, if a lock alone keeps it."""
        if judged.locked is not None:
            self.streams += 1
            self.stored_bytes += judged.decision.stream.stored_bytes
            self.until = max(self.until, judged.locked)

    @property
    def end(self) -> str:
        """The last end of a lock, in words; empty: nothing is locked."""
        return lock_end(self.until) if self.streams else ""

    @property
    def line(self) -> str:
        """What is locked, in words; empty: nothing."""
        if not self.streams:
            return ""
        size = format_size(self.stored_bytes)
        return f"{plural(self.streams, 'stream')} of {size} cannot go yet: locked, the last until {self.end}"
