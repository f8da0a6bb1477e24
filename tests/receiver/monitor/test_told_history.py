from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fullsend_protocol.shared import limits
from fullsend_protocol.wire.messages import DatasetHistory, NightEntry
from fullsend_receiver.monitor.overview import (
    DatasetOverview,
    Expectation,
    History,
    Night,
    Overview,
    ScrubOverview,
    SenderOverview,
)
from fullsend_receiver.monitor.told_history import told_history

DAY: Final = 86400.0
MONDAY: Final = 739943  # 2026-11-23
KNOWN: Final = DatasetOverview(
    sender="alpha",
    dataset="tank/b",
    age=3600.4,
    expectation=Expectation(every=DAY, source="learnt"),
    history=History(nights=(Night(day=MONDAY, received=2, unchanged=1, raw_bytes=9, stored_bytes=5),), since=0.0),
)


def overview(*datasets: DatasetOverview) -> Overview:
    senders = {each.sender: SenderOverview(name=each.sender, enrolled=True) for each in datasets}
    found = [
        replace(each, datasets=tuple(one for one in datasets if one.sender == name)) for name, each in senders.items()
    ]
    return Overview(
        at=0.0, program="", store="", free=0, size=0, min_free=0, senders=tuple(found), scrub=ScrubOverview(every=0.0)
    )


def told(*datasets: DatasetOverview) -> list[DatasetHistory]:
    return list(told_history(overview(*datasets), "alpha"))


def changed(**changes: Any) -> DatasetHistory:
    return told(replace(KNOWN, **changes))[0]


def test_a_history_is_told() -> None:
    assert told(KNOWN) == [
        DatasetHistory(
            dataset="tank/b",
            since="1970-01-01T00:00:00Z",
            every=86400,
            limit=129600,
            source="learnt",
            late=False,
            age=3600,
            nights=[NightEntry(day="2026-11-23", received=2, unchanged=1, raw_bytes=9, stored_bytes=5)],
        )
    ]


def test_a_sender_is_told_its_own_by_name() -> None:
    names = [each.dataset for each in told(KNOWN, replace(KNOWN, sender="bravo"), replace(KNOWN, dataset="tank/a"))]
    assert names == ["tank/a", "tank/b"]


def test_what_is_not_known_is_null() -> None:
    unknown = changed(age=None, expectation=Expectation(every=35 * DAY, source="unknown"), history=History())
    assert (unknown.age, unknown.since, unknown.nights) == (None, None, [])
    assert (unknown.every, unknown.limit, unknown.source) == (35 * 86400, 35 * 86400, "unknown")


def test_what_nobody_waits_for_has_no_limit() -> None:
    never = changed(expectation=Expectation(every=None, source="configured"))
    assert (never.every, never.limit, never.source) == (None, None, "configured")


def test_what_is_overdue_is_late() -> None:
    assert changed(age=2 * DAY).late


def test_the_newest_nights_are_told() -> None:
    many = tuple(Night(day=MONDAY - 400 + number, received=1) for number in range(401))
    nights = changed(history=History(nights=many)).nights
    assert len(nights) == limits.HISTORY_NIGHTS
    assert nights[-1].day == "2026-11-23"


def test_a_sum_beyond_what_a_message_can_say_is_its_most() -> None:
    night = Night(day=MONDAY, received=1, raw_bytes=1 << 70, stored_bytes=1)
    assert changed(history=History(nights=(night,))).nights[0].raw_bytes == limits.OFFSET_END - 1
