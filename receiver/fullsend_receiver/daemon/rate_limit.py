"""Limits how often an address may try something: a sliding window of one minute."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

_WINDOW: Final = 60.0
#: Number of addresses; beyond it the one with the oldest last try is forgotten. This bounds memory against a flood.
_ADDRESSES_MAX: Final = 4096


class Limiter:
    """Counts attempts by address. The caller passes the time, in seconds."""

    def __init__(self, most: int) -> None:
        """`most`: attempts per minute."""
        self._most = most
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def may_try(self, address: str, now: float) -> bool:
        """Count an attempt. Returns: whether it is within the limit; otherwise it is not counted."""
        tries = self._tries.setdefault(address, deque(maxlen=self._most))
        self._tries.move_to_end(address)
        if len(self._tries) > _ADDRESSES_MAX:
            self._tries.popitem(last=False)
        if len(tries) == self._most and now - tries[0] < _WINDOW:
            return False
        tries.append(now)
        return True

    def forgive(self, address: str) -> None:
        """Do not count an address's last attempt: it was legitimate."""
        tries = self._tries.get(address)
        if tries:
            tries.pop()
