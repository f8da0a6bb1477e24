from __future__ import annotations

import logging
from dataclasses import replace

from fullsend_receiver.events.records import AlarmCleared, AlarmRaised
from fullsend_receiver.monitor.alarm_events import alarm_changes
from fullsend_receiver.monitor.overview import Alarm

LATE = Alarm(code="late", level="warning", text="tank/home is late", sender="alpha", dataset="tank/home", since=0.0)
FULL = Alarm(code="low-space", level="warning", text="the disk is nearly full")


def test_an_alarm_that_begins_is_raised_once() -> None:
    ((event, level),) = alarm_changes([], [LATE])
    assert isinstance(event, AlarmRaised)
    assert level == logging.WARNING
    assert (event.code, event.severity, event.sender, event.dataset) == ("late", "warning", "alpha", "tank/home")
    assert event.since == "1970-01-01T00:00:00Z"
    assert event.text == "late: tank/home is late"
    assert not list(alarm_changes([LATE], [replace(LATE, text="tank/home is late for 3 days")]))


def test_an_alarm_that_ends_is_cleared() -> None:
    (cleared, level), (raised, _warning) = alarm_changes([LATE], [FULL])
    assert level == logging.INFO
    assert isinstance(cleared, AlarmCleared)
    assert (cleared.text, cleared.lasting) == ("late: has ended: tank/home is late", 1)
    assert isinstance(raised, AlarmRaised)
    assert (raised.sender, raised.dataset, raised.since) == ("", "", "")


def test_an_alarm_that_becomes_critical_is_raised_again_and_not_the_other_way() -> None:
    critical = replace(LATE, level="critical")
    ((event, level),) = alarm_changes([LATE], [critical])
    assert (event.name, event.severity, level) == ("alarm-raised", "critical", logging.ERROR)
    assert not list(alarm_changes([critical], [LATE]))


def test_an_alarm_is_raised_again_when_it_tells_of_more_streams_and_not_of_less() -> None:
    orphan = Alarm(code="damage", level="critical", text="1 stream damaged", sender="alpha", dataset="tank", count=1)
    worse = replace(orphan, text="3 streams damaged", count=3)
    ((event, level),) = alarm_changes([orphan], [worse])
    assert (event.name, event.text, level) == ("alarm-raised", "damage: 3 streams damaged", logging.ERROR)
    assert not list(alarm_changes([worse], [replace(worse, text="3 streams are damaged")]))
    assert not list(alarm_changes([worse], [orphan]))


def test_the_same_code_of_two_datasets_is_two_alarms() -> None:
    other = replace(LATE, dataset="tank/vm")
    ((event, _level),) = alarm_changes([LATE], [LATE, other])
    assert event.dataset == "tank/vm"


def test_a_name_cannot_break_the_line() -> None:
    ((event, _level),) = alarm_changes([], [replace(LATE, text="a\nb\x1b[2J")])
    assert event.text == r"late: a\nb\x1b[2J"
