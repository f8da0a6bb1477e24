"""When to try again after a lost connection: soon, then later and later, up to a limit, not in step with others."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import TRANSIENT_CODES, ConnectionLost, FullsendError, PeerError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Seconds before the first try, and between two of them at most.
FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
#: A delay is as much of it, at random, that many senders do not come back at once when a receiver does.
_JITTER: Final = (0.5, 1.0)

#: One that is there again and again, and gets no further, is not away: it fails at something. What it does without
#: acknowledging may take hours (comparing what it has, hashing a file), in which a wire may well be lost some times.
VAIN_MAX: Final = 20


def passes(error: FullsendError) -> bool:
    """Whether what went wrong with a connection may be over when it is tried again."""
    match error:
        case Unreachable() | ConnectionLost():
            return True
        case PeerError(code=code):
            return code in TRANSIENT_CODES
        case _:
            return False


class Patience:
    """The time that one transfer waits for its receiver: while it stays away, or is there and gets no further."""

    def __init__(
        self,
        retry_for: float,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,  # noqa: S311 - no secret
    ) -> None:
        """`retry_for`: seconds; 0: no second try. The clock is the loop's, which no change of the date moves."""
        self._retry_for = retry_for
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._jitter = jitter
        self._away_since: float | None = None  # when it was lost
        self._stuck_since: float | None = None  # when it was lost first, since it got further
        self._vain = 0  # times that it was met since
        self._delay = FIRST_DELAY
        self._is_last = False

    @property
    def lost(self) -> bool:
        """Whether the receiver is away."""
        return self._away_since is not None

    def met(self) -> None:
        """The receiver is there, and ready to go on. Whether it gets anywhere is not known yet."""
        self._away_since, self._is_last = None, False
        self._vain += 1

    def recovered(self) -> None:
        """The receiver has got further: the next loss is a new one."""
        self.met()
        self._stuck_since, self._vain = None, 0
        self._delay = FIRST_DELAY

    async def wait(self, error: FullsendError) -> None:
        """Wait before the next try. Raises: `error` itself, where it does not pass or the time is up."""
        if not passes(error):
            raise error
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        if self._stuck_since is None:
            self._stuck_since = now
        left = self._away_since + self._retry_for - now
        stuck = self._vain > VAIN_MAX and now >= self._stuck_since + self._retry_for
        if left <= 0 or self._is_last or stuck:
            raise error
        delay = self._delay * self._jitter(*_JITTER)
        self._delay = min(2 * self._delay, LONGEST_DELAY)
        # Not left to the clock: a loop may wake a sleeper a hair before its time, by its resolution or by rounding.
        self._is_last = delay >= left
        await self._sleep(min(delay, left))
