from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import get_args

import pytest
from tests.receiver.events.test_records import FAILED, all_events

from fullsend_receiver.access.hook_settings import HOOK_NAMES, HookSettings
from fullsend_receiver.events.records import facts_of
from fullsend_receiver.monitor.alarm_events import alarm_changes
from fullsend_receiver.monitor.alarm_log import AlarmLog, read_alarms
from fullsend_receiver.monitor.hook_events import HOOK_OF_ALARM, HOOK_OF_EVENT, hook_of
from fullsend_receiver.monitor.hook_follower import HookFollower
from fullsend_receiver.monitor.overview import Alarm, AlarmCode, Overview, ScrubOverview
from fullsend_receiver.store.event_recorder import EventRecorder, recording
from fullsend_receiver.store.local import LocalStore

EXPECTED = {
    "late": "on-late",
    "gone": "on-late",
    "damage": "on-damage",
    "unread": "on-damage",
    "scrub-stopped": "on-damage",
    "low-space": "on-low-space",
    "refusing": "on-low-space",
}


@pytest.mark.parametrize("code", get_args(AlarmCode))
def test_each_alarm_reaches_its_hook_when_it_begins_and_when_it_ends(code: AlarmCode) -> None:
    alarm = Alarm(code=code, level="critical", text="x")
    raised, cleared = [*alarm_changes([], [alarm]), *alarm_changes([alarm], [])]
    wanted = EXPECTED.get(code, "on-failure")
    assert [hook_of(facts_of(event, at=0, level="error")) for event, _level in (raised, cleared)] == [wanted, wanted]


def test_all_alarms_and_all_hooks_are_there() -> None:
    assert set(HOOK_OF_ALARM) == set(get_args(AlarmCode))
    assert {*HOOK_OF_ALARM.values(), *HOOK_OF_EVENT.values()} == set(HOOK_NAMES)
    assert set(HOOK_OF_EVENT) <= {each.name for each in all_events()}


@pytest.mark.parametrize(("code", "hook"), [("quota", "on-failure"), ("lost", None), ("busy", None)])
def test_what_the_sender_mends_itself_is_no_failure(code: str, hook: str | None) -> None:
    assert hook_of(facts_of(FAILED, at=0, level="info") | {"code": code}) == hook


def test_an_alarm_of_a_later_version_is_a_failure_and_an_unknown_event_nothing() -> None:
    assert hook_of({"event": "alarm-raised", "code": "meteor"}) == "on-failure"
    assert hook_of({"event": "eclipse"}) is None
    assert hook_of({}) is None


def overview(*alarms: Alarm) -> Overview:
    return Overview(
        at=0, program="x", store="x", free=1, size=1, min_free=0, scrub=ScrubOverview(every=0), alarms=alarms
    )


@pytest.mark.parametrize("code", get_args(AlarmCode))
def test_each_alarm_goes_all_the_way_to_its_hook_once(
    store: LocalStore, code: AlarmCode, caplog: pytest.LogCaptureFixture
) -> None:
    """From the daemon's look to the command; a restart of the daemon repeats none."""
    caplog.set_level(logging.INFO)
    name = HOOK_OF_ALARM[code]
    seen: list[tuple[object, object]] = []

    def run(command: tuple[str, ...], facts: Mapping[str, object], **_options: object) -> None:
        seen.append((facts["event"], facts["text"]))

    settings = HookSettings.model_validate(dict.fromkeys(HOOK_NAMES, "x"))
    follower = HookFollower(name, store, lambda: settings, threading.Event(), run=run)
    follower.step()
    alarm = Alarm(code=code, level="critical", text="what is wrong")
    with recording(store):
        first = AlarmLog(store.documents)
        first.note(overview(alarm))
        first.note(overview(alarm))
        AlarmLog(store.documents).note(overview(alarm))
        AlarmLog(store.documents).note(overview())
    while follower.step():
        pass
    assert seen == [
        ("alarm-raised", f"{code}: what is wrong"),
        ("alarm-cleared", f"{code}: has ended: what is wrong"),
    ]


def test_an_alarm_that_was_not_written_for_hooks_is_said_again_by_the_next_daemon(store: LocalStore) -> None:
    """Killed before its event was durable: it is not known, so it is raised again."""
    alarm = Alarm(code="late", level="critical", text="what is wrong")
    waiting = logging.getLogger("fullsendd")
    recorder = Waiting(store)
    waiting.addHandler(recorder)
    try:
        AlarmLog(store.documents).note(overview(alarm))
    finally:
        waiting.removeHandler(recorder)
        recorder.close()
    assert read_alarms(store.documents) == ()


class Waiting(EventRecorder):
    """A recorder whose events are not durable yet."""

    def settle(self, within: float) -> bool:  # type: ignore[explicit-override]  # typing.override is younger
        return False


def test_a_hook_that_failed_runs_no_hook() -> None:
    """It would fail for that again, without an end."""
    assert hook_of({"event": "hook-failed"}) is None
