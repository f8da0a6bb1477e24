"""The daemon's report: the page is written on a schedule, to a file that a web server may show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Final

from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.maintenance.plans import rules_of
from fullsend_receiver.monitor.next_prune import plan_next_prune
from fullsend_receiver.monitor.overview import Overview, StreamNote
from fullsend_receiver.monitor.report_page import report_facts
from fullsend_receiver.monitor.stream_notes import StreamNotes, stream_notes
from fullsend_receiver.monitor.survey import StockSource
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import replace_file
from fullsend_receiver.store.errors import StoreError
from fullsend_report.page import render

#: The mode of the page: the web server is another user. The daemon's umask may remove the last digit.
_MODE: Final = 0o644


class ReportWriter:
    """The page of one daemon, for one thread at a time. `note` takes each overview."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], ReceiverSettings],
        source: StockSource,
    ) -> None:
        """`settings`: those of now, which a reload changes; `source`: what is stored."""
        self._store = store
        self._settings = settings
        self._source = source
        self._made: tuple[object, float] | None = None  # by which settings, and when
        self._next = 0.0

    def note(self, overview: Overview) -> None:
        """Write the page if it is due: at once after a start, and where the settings have changed. Blocks.

        Raises: StoreError, OSError; the next call tries again.
        """
        settings = self._settings()
        path = settings.report_file
        if path is None:
            self._made = None
            return
        schedule = path, settings.report_at, settings.report_every
        if self._made is not None and self._made[0] == schedule and self._made[1] <= overview.at < self._next:
            return
        following = next_page(overview.at, settings.report_at, settings.report_every)
        prune = plan_next_prune(self._store, rules_of(settings), overview.at)
        facts = report_facts(overview, self._notes(), prune, next_at=following)
        replace_file(path, render(facts).encode(), _MODE, durable=False)
        self._made, self._next = (schedule, overview.at), following

    def _notes(self) -> StreamNotes:
        found: dict[tuple[str, str], list[StreamNote]] = {}
        for sender in self._source.senders():
            # There is an alarm for one that cannot be read. Without a new page the last one, without it, would stay.
            with contextlib.suppress(StoreError, OSError):
                for part in self._source.stock(sender).holder.parts():
                    found |= stream_notes(part)
        return found


def next_page(now: float, at: time_of_day | None, every: float) -> float:
    """Return when the page after this one is due. `now`: seconds since the epoch; `at`: local time, None: after
    `every` seconds.
    """
    if at is None:
        return now + every
    here = datetime.fromtimestamp(now)  # noqa: DTZ006 - local time, without a zone: the next day's may have another
    due = here.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    if due <= here:
        due += timedelta(days=1)
    return due.timestamp()
