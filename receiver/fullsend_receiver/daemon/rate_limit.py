"""How often an address may try something: a sliding window of one minute."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

_WINDOW: Final = 60.0
#: Addresses remembered; beyond it the one that tried longest ago is forgotten. Bounds memory against a flood.
_ADDRESSES_MAX: Final = 4096


class Limiter:
    """Counts tries by address. The clock is passed in, in seconds."""

    def __init__(self, most: int) -> None:
        """`most`: tries a minute."""
        self._most = most
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def may_try(self, address: str, now: float) -> bool:
        """Count a try. Returns: whether it is within the limit; one that is not is not counted."""
        tries = self._tries.setdefault(address, deque(maxlen=self._most))
        self._tries.move_to_end(address)
        if len(self._tries) > _ADDRESSES_MAX:
            self._tries.popitem(last=False)
        if len(tries) == self._most and now - tries[0] < _WINDOW:
            return False
        tries.append(now)
        return True

    def forgive(self, address: str) -> None:
        """Take an address's last try back: it was a good one."""
        tries = self._tries.get(address)
        if tries:
            tries.pop()
