from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from fullsend_receiver.monitor.alarm_log import AlarmLog, read_alarms
from fullsend_receiver.monitor.overview import Alarm, Overview, ScrubOverview

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

LATE: Final = Alarm(code="late", level="warning", text="alpha is\x1b late", sender="alpha", dataset="tank", since=1.0)
FULL: Final = Alarm(code="refusing", level="critical", text="it is full", since=2.0)


def overview(*alarms: Alarm) -> Overview:
    scrub = ScrubOverview(every=0)
    return Overview(at=0.0, program="x", store="/s", free=1, size=2, min_free=0, scrub=scrub, alarms=alarms)


class Daemon:
    def __init__(self, store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self._store = store
        self.restart()

    def restart(self) -> None:
        self.log = AlarmLog(self._store.documents)

    def look(self, *alarms: Alarm) -> list[tuple[str, str]]:
        """Return the levels and messages that are logged for these alarms."""
        self._caplog.clear()
        self.log.note(overview(*alarms))
        return [(record.levelname, record.getMessage()) for record in self._caplog.records]


@pytest.fixture
def daemon(store: LocalStore, caplog: pytest.LogCaptureFixture) -> Daemon:
    return Daemon(store, caplog)


def test_an_alarm_is_logged_when_it_begins_and_when_it_has_ended(daemon: Daemon) -> None:
    assert daemon.look() == []
    assert daemon.look(LATE) == [("WARNING", r"late: alpha is\x1b late")]
    assert daemon.look(replace(LATE, text="later")) == []
    assert daemon.look(LATE, FULL) == [("ERROR", "refusing: it is full")]
    assert daemon.look(FULL) == [("INFO", r"late: has ended: alpha is\x1b late")]
    assert daemon.look(LATE) == [
        ("INFO", "refusing: has ended: it is full"),
        ("WARNING", r"late: alpha is\x1b late"),
    ]


def test_an_alarm_that_becomes_worse_is_logged_again(daemon: Daemon) -> None:
    daemon.look(LATE)
    assert daemon.look(replace(LATE, level="critical")) == [("ERROR", r"late: alpha is\x1b late")]
    assert daemon.look(LATE) == []


def test_a_restart_repeats_none(daemon: Daemon, store: LocalStore) -> None:
    daemon.look(LATE, FULL)
    daemon.restart()
    assert daemon.log.known() == (LATE, FULL) == read_alarms(store.documents)
    assert daemon.look(FULL) == [("INFO", r"late: has ended: alpha is\x1b late")]
    daemon.restart()
    assert daemon.look(FULL) == []
    assert daemon.log.known() == (FULL,)


def test_new_damage_is_logged_beside_the_old_one_also_after_a_restart(daemon: Daemon, store: LocalStore) -> None:
    orphan = Alarm(code="damage", level="critical", text="1 stream damaged", sender="alpha", dataset="tank", count=1)
    daemon.look(orphan)
    worse = replace(orphan, text="2 streams damaged", count=2)
    assert daemon.look(worse) == [("ERROR", "damage: 2 streams damaged")]
    daemon.restart()
    assert daemon.look(worse) == []
    assert daemon.look(orphan) == []  # one was repaired
    daemon.restart()
    assert daemon.look(worse) == [("ERROR", "damage: 2 streams damaged")]
    assert read_alarms(store.documents) == (worse,)


def test_a_document_of_an_earlier_version_has_no_counts(daemon: Daemon, store: LocalStore) -> None:
    (store.state / "alarms.json").write_bytes(
        b'{"format": 1, "alarms": [{"code": "damage", "level": "critical", "text": "x", "sender": "a", "dataset": "b",'
        b' "since": 1.0}]}'
    )
    (before,) = read_alarms(store.documents)
    assert before == Alarm(code="damage", level="critical", text="x", sender="a", dataset="b", since=1.0)
    # What came meanwhile was told to nobody.
    assert daemon.look(replace(before, text="y", count=2)) == [("ERROR", "damage: y")]
    assert daemon.look(replace(before, text="y", count=2)) == []


def test_the_document_is_written_only_for_what_has_changed(daemon: Daemon, store: LocalStore) -> None:
    path = store.state / "alarms.json"
    daemon.look()
    assert not path.exists()
    daemon.look(LATE)
    first = path.stat().st_ino
    daemon.look(replace(LATE, text="later"))
    assert path.stat().st_ino == first


def test_a_document_that_is_spoilt_is_made_anew_and_a_later_one_is_understood(
    daemon: Daemon, store: LocalStore
) -> None:
    path = store.state / "alarms.json"
    path.write_bytes(b"{")
    assert daemon.look(FULL) == [
        ("WARNING", ".state/alarms.json: cannot be read, and is made anew"),
        ("ERROR", "refusing: it is full"),
    ]
    path.write_bytes(
        b'{"format": 1, "new": 1, "alarms": [{"code": "later", "level": "warning", "text": "x"},'
        b' {"code": "late", "level": "warning", "text": "y", "new": 2}]}'
    )
    assert read_alarms(store.documents) == (Alarm(code="late", level="warning", text="y"),)


def test_a_disk_that_cannot_be_written_is_tried_again(
    daemon: Daemon, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_said: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fullsend_receiver.monitor.alarm_log.update", full)
        assert daemon.look(FULL) == [("ERROR", "refusing: it is full")]
    assert read_alarms(store.documents) == ()
    assert daemon.look(FULL) == []
    assert read_alarms(store.documents) == (FULL,)


def test_a_look_that_fails_is_an_alarm_and_ends_none_of_the_others(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.look(LATE)
    caplog.clear()
    daemon.log.note_failure("the store cannot be surveyed: a bad disk")
    daemon.log.note_failure("the store cannot be surveyed: a bad disk")
    assert [record.getMessage() for record in caplog.records] == ["unread: the store cannot be surveyed: a bad disk"]
    assert [each.code for each in daemon.log.known()] == ["late", "unread"]
    assert daemon.look(LATE) == [("INFO", "unread: has ended: the store cannot be surveyed: a bad disk")]


def test_a_disk_that_cannot_read_the_document_hides_no_alarm(daemon: Daemon, store: LocalStore) -> None:
    daemon.look(LATE)
    path = store.state / "alarms.json"
    path.unlink()
    path.mkdir()  # reading it is an error, as of a bad sector
    daemon.restart()
    assert ("WARNING", r"late: alpha is\x1b late") in daemon.look(LATE)
    assert daemon.look(LATE) == []
