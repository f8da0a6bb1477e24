"""Notices, beside the daemon, that nothing else could say anything: the daemon is silent, or the store is away.

Without the daemon nobody finds that a sender is late. Without the store, or on a full disk, no event can be written for
a hook: then the hook `on-failure` is run at once, past the event journal. A disk that never answers, such as one of NFS
whose server is gone, keeps the thread that looks: another thread tells.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

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


class DaemonWatch:
    """Looks whether the daemon answers, and whether the store can be written to."""

    def __init__(
        self,
        store: Store,
        answers: Callable[[], bool],
        tell: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """`answers`: whether the daemon answers; blocks. `tell`: tells a person without the event journal; `clock`: in
        seconds.
        """
        self._store = store
        self._answers = answers
        self._tell = tell
        self._clock = clock
        self._patience = patience
        self._silent_since: float | None = None
        self._silent_said = False
        self._away_since: float | None = None
        self._away_said = False
        self._asked_disk: float | None = None  # since when it has not answered

    def look(self) -> None:
        """Look once, and say what has lasted too long, or is over. Blocks."""
        now = self._clock()
        away = self._why_away()
        if away is not None:
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= self._patience and not self._away_said:
                self._away_said = True
                self._tell_away(away, now - self._away_since)
            return  # the daemon, if it runs, cannot be asked: its socket is in the store
        if self._away_said:
            self._tell(StoreBack(text="the store can be written to again"))
        self._away_since, self._away_said = None, False
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
        if silent >= self._patience and not self._away_said:
            self._away_said = True  # when it answers, `look` says so
            self._tell_away("its disk does not answer", silent)

    def _tell_away(self, why: str, seconds: float) -> None:
        text = f"for {format_duration(seconds)} the store cannot be written to, and pushes are refused: {why}"
        log.error("%s", text)
        self._tell(StoreAway(text=text, state="away", why=why))

    def _why_away(self) -> str | None:
        self._asked_disk = self._clock()
        try:
            self._store.check_mounted()
            if self._store.is_read_only(by_writing=True):
                return "its disk is mounted read-only: remount it"
            if self._store.space().free < _ROOM_LEAST:
                return "its disk is full: free some space"
        except (StoreError, OSError) as error:
            return str(error)
        finally:
            self._asked_disk = None
        return None
