"""`--bwlimit`: how long to wait before the next bytes go out. No clock of its own: the time is passed in."""

from __future__ import annotations

from typing import Final

#: Pieces a second at a low rate: often enough that the receiver never takes a slow wire for a dead one.
_PIECES: Final = 4


class Throttle:
    """Keeps a rate of bytes a second, over any stretch of time, without saving up for a burst."""

    def __init__(self, rate: int) -> None:
        """`rate`: bytes a second, 1 or more."""
        self._rate = rate
        self._free_at = 0.0  # when all that was let through would have gone out at the rate

    def slice(self, most: int) -> int:
        """Return how many bytes to send at a time, `most` at most."""
        return max(1, min(most, self._rate // _PIECES))

    def delay(self, count: int, now: float) -> float:
        """Let `count` bytes through. Returns: seconds to wait before they are sent."""
        wait = max(0.0, self._free_at - now)
        self._free_at = max(self._free_at, now) + count / self._rate
        return wait
