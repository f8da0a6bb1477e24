"""How far a transfer is, and for which stage it waits: counters that cost next to nothing, so they always run.

    StageWaits      seconds waited for each stage
    TransferCount   bytes so far, and these
    Recently        the rate of the last seconds, and the stage that limited it

A transfer is a row of stages with little room between them. Its head reads. While the head has room, it waits for what
it reads from; without room, it waits for the stage at which the work behind it is. So each second is waited for one
stage, and the stage with the most seconds limits the transfer. A stage that is busy but keeps up with the head has
none.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Seconds of a transfer that tell which stage limits it. A chunk is 4 MiB, and a slow wire needs seconds for one.
LEAST: Final = 3.0
#: Seconds that count as lately.
WINDOW: Final = 10.0
#: Seconds that tell a rate.
_RATE_LEAST: Final = 1.0


class StageWaits:
    """Seconds waited for each stage, by its name.

    The head of the transfer calls `head`, and what works behind it calls `behind`, each from one thread at a time; any
    thread may read. There is no lock: two that change it at the same moment may misplace the time since the last
    change.
    """

    __slots__ = ("_behind", "_clock", "_head", "_metered", "_seconds", "_since", "_split")

    def __init__(self, head: str | None, behind: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """`head`, `behind`: as for the methods; `clock`: seconds."""
        self._head = head
        self._behind = behind
        self._clock = clock
        self._since = clock()
        self._seconds: dict[str, float] = {}
        self._split: tuple[str, str, Callable[[], float]] | None = None
        self._metered = 0.0  # by the meter of `split`, at the last change

    def split(self, stage: str, into: str, meter: Callable[[], float]) -> None:
        """From now on a part of the time at `stage` counts for the stage `into`: what `meter` tells in seconds, from
        which only differences count.
        """
        self._turn()
        self._split = stage, into, meter
        self._metered = meter()

    def restart(self) -> None:
        """Forget all seconds until now."""
        self._since = self._clock()
        self._seconds = {}
        self._meter()

    def head(self, stage: str | None) -> None:
        """From now on the head waits for this stage; None: it has no room, and waits for what is behind it."""
        if stage != self._head:
            self._turn()
            self._head = stage
            self._meter()

    def behind(self, stage: str) -> None:
        """From now on the work behind the head is at this stage."""
        if stage != self._behind:
            self._turn()
            self._behind = stage
            self._meter()

    def seconds(self) -> dict[str, float]:
        """Return the seconds waited for each stage until now."""
        since, now_at = self._since, self._now_at
        found = dict(self._seconds)
        self._count(found, now_at, max(0.0, self._clock() - since))
        return found

    @property
    def _now_at(self) -> str:
        return self._behind if self._head is None else self._head

    def _turn(self) -> None:
        now = self._clock()
        since, self._since = self._since, now
        self._count(self._seconds, self._now_at, now - since)

    def _count(self, seconds: dict[str, float], stage: str, spent: float) -> None:
        split = self._split
        if split is not None and split[0] == stage:
            part = min(spent, max(0.0, split[2]() - self._metered))
            if part:
                seconds[split[1]] = seconds.get(split[1], 0.0) + part
            spent -= part
        if spent:
            seconds[stage] = seconds.get(stage, 0.0) + spent

    def _meter(self) -> None:
        """Read the meter, if its stage begins."""
        if self._split is not None and self._split[0] == self._now_at:
            self._metered = self._split[2]()


class TransferCount:
    """What a transfer has done. `raw`, `wire`: raw bytes, and bytes on the wire or in the store; `size`: expected raw
    bytes, None: unknown; `before`: raw bytes that were there when it began; `began`: seconds of a monotonic clock;
    `waits`: None: not measured.
    """

    def __init__(self, began: float, size: int | None = None, waits: StageWaits | None = None) -> None:
        self.raw = 0
        self.wire = 0
        self.before = 0
        self.size = size
        self.began = began
        self.waits = waits

    def add(self, raw: int, wire: int) -> None:
        """Count bytes that were done."""
        self.raw += raw
        self.wire += wire

    def skip(self, raw: int) -> None:
        """Count raw bytes that were there before, and take no time."""
        self.raw += raw
        self.before += raw

    def waited(self) -> dict[str, float]:
        """Return the seconds waited for each stage."""
        return {} if self.waits is None else self.waits.seconds()


class Recently:
    """The rate of a transfer, and the stage that limits it, over the last seconds. Each look at the transfer is added;
    the first is compared with its beginning.
    """

    def __init__(self, began: float, before: int = 0) -> None:
        """`began`: when the transfer began, seconds of any clock; `before`: the raw bytes that were there by then."""
        self._looks: deque[tuple[float, int, Mapping[str, float]]] = deque([(began, before, {})])
        self._from_beginning = True

    def add(self, now: float, raw: int, waited: Mapping[str, float]) -> None:
        """Add a look. `now`: by the same clock; `raw`: raw bytes so far; `waited`: seconds by stage, so far."""
        looks = self._looks
        looks.append((now, raw, waited))
        # Own looks count as soon as there are enough of them: the average since the beginning says little of now.
        if self._from_beginning and now - looks[1][0] >= LEAST:
            self._from_beginning = False
            looks.popleft()
        while len(looks) > 2 and looks[1][0] <= now - WINDOW:  # noqa: PLR2004 - two make a rate
            self._from_beginning = False
            looks.popleft()

    @property
    def rate(self) -> float | None:
        """Raw bytes a second; None: not known yet."""
        (then, before, _), (now, raw, _) = self._looks[0], self._looks[-1]
        return max(0, raw - before) / (now - then) if now - then >= _RATE_LEAST else None

    @property
    def limit(self) -> str | None:
        """The stage that was waited for longest; None: not known yet."""
        (then, _, before), (now, _, waited) = self._looks[0], self._looks[-1]
        if now - then < LEAST:
            return None
        return longest({stage: seconds - before.get(stage, 0.0) for stage, seconds in waited.items()})


def longest(waited: Mapping[str, float]) -> str | None:
    """Return the stage that was waited for longest; None: none was."""
    stage = max(waited, key=waited.__getitem__, default=None)
    return stage if stage is not None and waited[stage] > 0 else None
