"""Notices, beside the daemon, that nothing else could say anything: the daemon is silent, or the store is away.

Without the daemon nobody finds that a sender is late. Without the store, or on a full disk, no event can be written for
a hook: then the hook `on-failure` is run at once, past the event journal. If it fails, it is run again at the next
looks: what took the store away may have taken the way to a person, too. A disk that never answers, such as one of NFS
whose server is gone, keeps the thread that looks: another thread tells.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from fullsend_protocol.shared.units import format_duration
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DaemonAnswers, DaemonSilent, Event, StoreAway, StoreBack
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks.
EVERY: Final = 60.0
#: Seconds for which it is silent, or away, before anybody is told: longer than a restart, or a remount.
PATIENCE: Final = 600.0
#: Free bytes without which a batch of events may not fit.
_ROOM_LEAST: Final = 1 << 20
#: What follows, for a person: without the store, and without its event journal alone. That may be on another disk, as
#: with a store in a bucket.
_REFUSED: Final = "the store cannot be written to, and pushes are refused"
_UNHEARD: Final = "no event can be written, so no other hook is run"


@dataclass(slots=True)
class _Notice:
    """What a person is told past the event journal, in as many tries as it takes. `at`: when it happened, in seconds
    since the epoch; `since`: the first try, by the clock of the watch; `done`: it was told, or given up.
    """

    event: Event
    at: float
    since: float
    done: bool = False


class _Away(NamedTuple):
    """Why no event can be written. `so`: what follows."""

    why: str
    so: str = _REFUSED


class DaemonWatch:
    """Looks whether the daemon answers, and whether the store can be written to."""

    def __init__(
        self,
        store: Store,
        answers: Callable[[], bool],
        tell: Callable[[Event, float], bool],
        *,
        retry_for: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """`answers`: whether the daemon answers; blocks. `tell`: tells a person, without the event journal, of an event
        that happened at this time, in seconds since the epoch; blocks, and returns whether that succeeded. The time is
        the same for each try. `retry_for`: seconds for which one that failed is tried again; `clock`: in seconds.
        """
        self._store = store
        self._answers = answers
        self._tell = tell
        self._retry_for = retry_for
        self._clock = clock
        self._patience = patience
        self._silent_since: float | None = None
        self._silent_said = False
        self._away_since: float | None = None
        self._telling = threading.Lock()  # held while a person is told
        self._away: _Notice | None = None
        self._back: _Notice | None = None
        self._asked_disk: float | None = None  # since when it has not answered

    def look(self) -> None:
        """Look once, and say what has lasted too long, or is over. Blocks."""
        now = self._clock()
        away = self._why_away()
        if away is not None:
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= self._patience:
                self._tell_away(away, now - self._away_since)
            return  # the daemon, if it runs, cannot be asked: its socket is in the store
        self._away_since = None
        self._tell_back()
        if self._answers():
            if self._silent_said:
                emit(DaemonAnswers(text="the daemon answers again"), logging.WARNING)
            self._silent_since, self._silent_said = None, False
            return
        self._silent_since = now if self._silent_since is None else self._silent_since
        silent = now - self._silent_since
        if silent >= self._patience and not self._silent_said:
            self._silent_said = True
            text = (
                f"for {format_duration(silent)} the daemon does not answer, so nothing is received, and nobody is told"
                " of what is late: see `systemctl status fullsendd`"
            )
            emit(DaemonSilent(text=text, seconds=round(silent, 1)), logging.ERROR)

    def look_for_hang(self) -> None:
        """Say, in another thread than that of `look`, that the disk has not answered for too long. Asks no disk."""
        asked = self._asked_disk
        silent = 0.0 if asked is None else self._clock() - asked
        if silent >= self._patience:
            self._tell_away(_Away("its disk does not answer"), silent)  # when it answers, `look` says so

    def _tell_away(self, away: _Away, seconds: float) -> None:
        with self._telling:
            if self._away is None or self._back is not None:  # it has gone again
                text = f"for {format_duration(seconds)} {away.so}: {away.why}"
                log.error("%s", text)
                self._away, self._back = self._notice(StoreAway(text=text, state="away", why=away.why)), None
            self._try(self._away)

    def _tell_back(self) -> None:
        """Say that the store is back, if somebody was told, or should have been, that it is away."""
        with self._telling:
            if self._away is None:
                return
            if self._back is None:
                self._back = self._notice(StoreBack(text="the store can be written to again"))
            self._try(self._back)
            if self._back.done:
                self._away = self._back = None

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

    def _why_away(self) -> _Away | None:
        self._asked_disk = self._clock()
        so = _REFUSED
        try:
            self._store.check_mounted()
            if self._store.is_read_only(by_writing=True):
                return _Away("its disk is mounted read-only: remount it")
            if self._store.space().free < _ROOM_LEAST:
                return _Away("its disk is full: free some space")
            so = _UNHEARD
            self._store.events.check_writable()
        except (StoreError, OSError) as error:
            return _Away(str(error), so)
        finally:
            self._asked_disk = None
        return None
