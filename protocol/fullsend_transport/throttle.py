"""`--bwlimit`: which connection may send its next bytes, and when. It has no clock: the caller passes the time.

One throttle serves all connections of a run, so that their sum keeps the rate. A connection asks before each piece:

    wait = throttle.ask(connection, count, now)   # 0.0: send these bytes now; else ask again after so many seconds
    throttle.leave(connection)                    # it has nothing to send now, or has ended

Connections take turns, in the order in which they asked. Nothing is reserved: a connection that leaves gives up its
turn, and no bytes.

In any period of T seconds at most rate * (T + CATCH_UP) bytes and one piece go out. That is the generic cell rate
algorithm (GCRA, ITU-T I.371): `_free_at` is when all bytes so far would have gone out at the rate, and may be in the
past by CATCH_UP. So a timer that is late by less costs nothing, and a long idle time saves up no more than that.
"""

from __future__ import annotations

import math
from typing import Final, Self

#: Seconds of the rate that may be caught up, after a late timer or between two chunks. With one piece on top, a burst
#: is below 50 ms of the rate, which is 5 % of a second.
CATCH_UP: Final = 0.035
#: Seconds of the rate in one piece.
_PIECE: Final = 0.01
#: Bytes: about what a packet has room for. Smaller pieces cost more headers than they smooth.
_LEAST_PIECE: Final = 1400
#: Seconds of the rate in one piece, at rates so low that even `_LEAST_PIECE` takes longer. All jobs of a push have had
#: a turn long before a receiver counts one of them as dead.
_SLOWEST_PIECE: Final = 0.1
#: Seconds. Timers have a resolution of a millisecond; a shorter wait would keep the processor busy.
_SHORTEST_WAIT: Final = 0.001
#: Seconds that a connection waits at most, whatever the rate: a third of the silence after which it is lost. At rates
#: of some bytes a second the limit is exceeded instead.
LONGEST_WAIT: Final = 10.0
#: Seconds of the rate that may wait in buffers for a network that has stopped. They leave in one burst.
_BUFFERED: Final = 0.05


class Throttle:
    """Keeps the rate of all connections that share it, in bytes a second."""

    def __init__(self, rate: int) -> None:
        """`rate`: bytes a second, 1 or more."""
        self._rate = rate
        self._free_at = -math.inf  # seconds: when all bytes so far would have gone out at the rate
        self._waiting: dict[object, tuple[int, float]] = {}  # in turn: bytes, and since when

    @classmethod
    def limited(cls, rate: int | None) -> Self | None:
        """Return a throttle; None if there is no limit."""
        return None if rate is None else cls(rate)

    @property
    def buffered(self) -> int:
        """How many bytes may wait in buffers. More would leave in a burst after the network has stopped for a while."""
        return max(_LEAST_PIECE, int(self._rate * _BUFFERED))

    def slice(self, most: int) -> int:
        """Return how many bytes to send at a time, at most `most`."""
        least = min(_LEAST_PIECE, self._rate * _SLOWEST_PIECE)
        return max(1, min(most, int(max(self._rate * _PIECE, least))))

    def ask(self, connection: object, count: int, now: float) -> float:
        """Ask whether a connection may send `count` bytes. `now`: seconds, monotonic.

        Returns: 0.0, and the bytes count as sent; or the seconds after which it must ask again, or leave.
        """
        _count, since = self._waiting.get(connection, (0, now))
        self._waiting[connection] = count, since
        ahead = 0  # bytes of those whose turn comes first; if the rate has room for these too, there is no need to wait
        for other, (theirs, _since) in self._waiting.items():
            if other == connection:
                break
            ahead += theirs
        wait = self._free_at - now + ahead / self._rate
        patience = since + LONGEST_WAIT - now
        if wait > 0 and patience > 0:
            return min(max(wait, _SHORTEST_WAIT), patience)
        self.leave(connection)
        self.spend(count, now)
        return 0.0

    def spend(self, count: int, now: float) -> None:
        """Count bytes that are sent without a turn: messages and heartbeats."""
        free_at = max(self._free_at, now - CATCH_UP) + count / self._rate
        self._free_at = min(free_at, now + LONGEST_WAIT)

    def leave(self, connection: object) -> None:
        """A connection waits no longer. Does nothing if it does not wait."""
        self._waiting.pop(connection, None)
