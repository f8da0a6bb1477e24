"""Until when an object store lets nobody delete a stream (Object Lock), in words."""

from __future__ import annotations

import math

from fullsend_protocol.shared.units import format_time


def lock_end(until: float) -> str:
    """Return the end of a lock. `until`: seconds since the epoch; `math.inf`: somebody must end a legal hold."""
    return "its legal hold is removed" if until == math.inf else format_time(until)
