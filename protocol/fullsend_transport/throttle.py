"""`--bwlimit`: how long to wait before the next bytes go out. It has no clock: the caller passes the time."""

from __future__ import annotations

from typing import Final

#: Pieces a second at a low rate: often enough that the receiver does not count a slow sender as dead.
_PIECES: Final = 4


class Throttle:
    """Keeps a rate in bytes a second, over any period, without saving up for a burst."""

    def __init__(self, rate: int) -> None:
        """`rate`: bytes a second, 1 or more."""
        self._rate = rate
        self._free_at = 0.0  # seconds: when all bytes so far would have gone out at the rate

    def slice(self, most: int) -> int:
        """Return how many bytes to send at a time, at most `most`."""
        return max(1, min(most, self._rate // _PIECES))

    def delay(self, count: int, now: float) -> float:
        """Account for `count` bytes. Returns: seconds to wait before they are sent. `now`: seconds, monotonic."""
        wait = max(0.0, self._free_at - now)
        self._free_at = max(self._free_at, now) + count / self._rate
        return wait
