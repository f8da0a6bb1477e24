"""The delay before a retry after a lost connection: short at first, then growing to a limit, with jitter."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import TRANSIENT_CODES, ConnectionLost, FullsendError, PeerError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Seconds before the first retry, and between two retries at most.
FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
#: The random part of a delay, so that many senders do not retry at once when a receiver returns.
_JITTER: Final = (0.5, 1.0)

#: Reconnections without progress, after which the receiver counts as failing, not as away. A receiver may need hours
#: without an acknowledgement (to compare or hash a file), in which a connection may well be lost some times.
VAIN_MAX: Final = 20


def is_transient(error: FullsendError) -> bool:
    """Whether a connection's error may be over at a retry."""
    match error:
        case Unreachable() | ConnectionLost():
            return True
        case PeerError(code=code):
            return code in TRANSIENT_CODES
        case _:
            return False


class RetryTimer:
    """The time that one transfer waits for its receiver: while it is away, or reconnects without progress."""

    def __init__(
        self,
        retry_for: float,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,  # noqa: S311 - no secret
    ) -> None:
        """`retry_for`: seconds; 0: no retry. `clock`: default the loop's, which a change of the date does not move."""
        self._retry_for = retry_for
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._jitter = jitter
        self._away_since: float | None = None  # when the connection was lost
        self._stuck_since: float | None = None  # when it was first lost since the last progress
        self._vain = 0  # reconnections since the last progress
        self._delay = FIRST_DELAY
        self._is_last = False

    @property
    def lost(self) -> bool:
        """Whether the receiver is away."""
        return self._away_since is not None

    def reconnected(self) -> None:
        """Note that the receiver has accepted the stream again. Whether it makes progress is not known yet."""
        self._away_since, self._is_last = None, False
        self._vain += 1

    def progressed(self) -> None:
        """Note that the receiver has made progress: the next loss is a new one."""
        self.reconnected()
        self._stuck_since, self._vain = None, 0
        self._delay = FIRST_DELAY

    async def wait(self, error: FullsendError) -> None:
        """Wait before the next retry. Raises: `error` itself, if it is not transient or the time is up."""
        if not is_transient(error):
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
        # Not by the clock: a loop may wake a sleeper slightly early, by its resolution or by rounding.
        self._is_last = delay >= left
        await self._sleep(min(delay, left))
