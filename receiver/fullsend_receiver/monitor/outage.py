"""Tells a person, past the event journal, that the store is away for long, and that it is back.

Without the store, or on a full disk, no event can be written for a hook. So each look at the store is noted here. If
telling fails, it is repeated at the next looks: what took the store away may have taken the way to a person, too.

A disk that never answers, such as one of NFS whose server is gone, keeps the thread that asks it: another thread calls
`look_for_hang`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from fullsend_protocol.shared.units import format_duration
from fullsend_receiver.events.records import Event, StoreAway, StoreBack

log: Final = logging.getLogger("fullsendd")

#: Seconds for which the store is away before anybody is told: longer than a restart, or a remount.
PATIENCE: Final = 600.0
#: What follows for a person if the store is away.
_REFUSED: Final = "the store cannot be written to, and pushes are refused"


class Away(NamedTuple):
    """Why no event can be written. `so`: what follows."""

    why: str
    so: str = _REFUSED


@dataclass(slots=True)
class _Notice:
    """What a person is told past the event journal, in as many tries as it takes. `at`: when it happened, in seconds
    since the epoch; `since`: the first try, by the clock of the outage; `done`: it was told, or given up.
    """

    event: Event
    at: float
    since: float
    done: bool = False


class Outage:
    """Whether the store is away, since when, and whether a person knows. One thread looks at the store; `look_for_hang`
    is for another one.
    """

    def __init__(
        self,
        tell: Callable[[Event, float], bool],
        *,
        retry_for: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """`tell`: tells a person, without the event journal, of an event that happened at this time, in seconds since
        the epoch; blocks, and returns whether that succeeded. The time is the same for each try. `retry_for`: seconds
        for which one that failed is tried again; `clock`: in seconds; `patience`: seconds until somebody is told.
        """
        self._tell = tell
        self._retry_for = retry_for
        self._clock = clock
        self._patience = patience
        self._away_since: float | None = None
        self._telling = threading.Lock()  # held while a person is told
        self._away: _Notice | None = None
        self._back: _Notice | None = None
        self._asked_disk: float | None = None  # since when it has not answered

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask the disk inside: what does not come to its end is seen by `look_for_hang`."""
        self._asked_disk = self._clock()
        try:
            yield
        finally:
            self._asked_disk = None

    def note_away(self, away: Away) -> None:
        """Note that a look has found the store away, and tell it once that has lasted too long. Blocks."""
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since >= self._patience:
            self._tell_away(away, now - self._away_since)

    def note_there(self) -> None:
        """Note that a look has found the store in order. Tell it, if somebody was told, or should have been, that the
        store is away. Blocks.
        """
        self._away_since = None
        with self._telling:
            if self._away is None:
                return
            if self._back is None:
                self._back = self._notice(StoreBack(text="the store can be written to again"))
            self._try(self._back)
            if self._back.done:
                self._away = self._back = None

    def look_for_hang(self) -> None:
        """Tell, in another thread than that of the looks, that the disk has not answered for too long. Asks no disk."""
        asked = self._asked_disk
        silent = 0.0 if asked is None else self._clock() - asked
        if silent >= self._patience:
            self._tell_away(Away("its disk does not answer"), silent)  # when it answers, the look notes so

    def _tell_away(self, away: Away, seconds: float) -> None:
        with self._telling:
            if self._away is None or self._back is not None:  # it has gone again
                text = f"for {format_duration(seconds)} {away.so}: {away.why}"
                log.error("%s", text)
                self._away, self._back = self._notice(StoreAway(text=text, state="away", why=away.why)), None
            self._try(self._away)

    def _notice(self, event: Event) -> _Notice:
        return _Notice(event, time.time(), self._clock())

    def _try(self, notice: _Notice) -> None:
        """Tell it, unless that is done. It is the same event each time: who is told twice can see it by its id."""
        if notice.done:
            return
        notice.done = self._tell(notice.event, notice.at)
        if not notice.done and self._clock() - notice.since >= self._retry_for():
            log.error("on-failure: given up, and nobody was told: %s", notice.event.text)
            notice.done = True
