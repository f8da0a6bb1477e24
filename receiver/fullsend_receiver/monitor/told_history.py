"""What a sender is told about the history of its own datasets: of an overview, the answer to `history?`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire.messages import DatasetHistory, NightEntry
from fullsend_receiver.monitor.overview import DatasetOverview, Night, Overview


def told_history(overview: Overview, sender: str) -> Iterator[DatasetHistory]:
    """Yield the histories of a sender's datasets, in order of their names, and nothing of others."""
    mine = [each for one in overview.senders if one.name == sender for each in one.datasets]
    yield from map(_told, sorted(mine, key=lambda each: each.dataset))


def _told(about: DatasetOverview) -> DatasetHistory:
    expectation, history = about.expectation, about.history
    return DatasetHistory(
        dataset=about.dataset,
        since=None if history.since is None else format_time(history.since),
        every=_seconds(expectation.every),
        limit=_seconds(expectation.limit),
        source=expectation.source,
        late=about.is_late,
        age=_seconds(about.age),
        nights=[_night(each) for each in tuple(history.nights)[-limits.HISTORY_NIGHTS :]],
    )


def _night(night: Night) -> NightEntry:
    return NightEntry(
        day=date.fromordinal(night.day).isoformat(),
        received=night.received,
        unchanged=night.unchanged,
        raw_bytes=min(night.raw_bytes, limits.OFFSET_END - 1),
        stored_bytes=min(night.stored_bytes, limits.OFFSET_END - 1),
    )


def _seconds(value: float | None) -> int | None:
    return None if value is None else max(0, round(value))
