"""Notices, beside the daemon, that nothing else could say anything: the daemon is silent, or the store is away.

Without the daemon nobody finds that a sender is late: that is an event. Without the store, or on a full disk, no event
can be written for a hook: `Outage` tells then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from fullsend_protocol.shared.units import format_duration
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DaemonAnswers, DaemonSilent
from fullsend_receiver.monitor.outage import PATIENCE, Away, Outage
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError

#: Seconds between two looks.
EVERY: Final = 60.0
#: Free bytes without which a batch of events may not fit.
_ROOM_LEAST: Final = 1 << 20
#: What follows, for a person, if only the event journal takes nothing. It may be on another disk than the store, as
#: with a store in a bucket.
_UNHEARD: Final = "no event can be written, so no other hook is run"


class DaemonWatch:
    """Looks whether the daemon answers, and whether the store can be written to."""

    def __init__(
        self,
        store: Store,
        outage: Outage,
        answers: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """`outage`: is told of each look at the store; `answers`: whether the daemon answers; blocks; `clock`: in
        seconds; `patience`: seconds for which the daemon is silent before anybody is told.
        """
        self._store = store
        self._outage = outage
        self._answers = answers
        self._clock = clock
        self._patience = patience
        self._silent_since: float | None = None
        self._silent_said = False

    def look(self) -> None:
        """Look once, and say what has lasted too long, or is over. Blocks."""
        now = self._clock()
        with self._outage.asking():
            away = self._why_away()
        if away is not None:
            self._outage.note_away(away)
            return  # the daemon, if it runs, cannot be asked: its socket is in the store
        self._outage.note_there()
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

    def _why_away(self) -> Away | None:
        try:
            self._store.check_mounted()
            if self._store.is_read_only(by_writing=True):
                return Away("its disk is mounted read-only: remount it")
            if self._store.space().free < _ROOM_LEAST:
                return Away("its disk is full: free some space")
        except (StoreError, OSError) as error:
            return Away(str(error))
        try:
            self._store.events.check_writable()
        except (StoreError, OSError) as error:
            return Away(str(error), _UNHEARD)
        return None
