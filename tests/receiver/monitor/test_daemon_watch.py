from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.receiver.helpers import make_store

from fullsend_receiver.events.emit import event_of
from fullsend_receiver.events.records import Event
from fullsend_receiver.monitor.daemon_watch import DaemonWatch
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.local import LocalStore, open_store
from fullsend_receiver.store.marker import read_id


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store that knows its id."""
    root = make_store(tmp_path).root
    return open_store(root, read_id(root))


@dataclass
class Watched:
    """A watch whose time the test sets."""

    store: LocalStore
    answers: bool = True
    now: float = 0.0
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = DaemonWatch(
            self.store, lambda: self.answers, self.told.append, clock=lambda: self.now, patience=600
        )

    def look(self, now: float) -> None:
        self.now = now
        self.watch.look()


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [event.name for record in caplog.records if (event := event_of(record)) is not None]


def test_a_daemon_that_is_silent_for_long_is_said_once_and_that_it_is_back(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched = Watched(store)
    watched.look(0)
    watched.answers = False
    watched.look(60)
    watched.look(659)
    assert names(caplog) == []
    watched.look(660)
    watched.look(900)
    assert names(caplog) == ["daemon-silent"]
    watched.answers = True
    watched.look(960)
    watched.look(1020)
    assert names(caplog) == ["daemon-silent", "daemon-answers"]
    assert watched.told == []  # the event journal has it


def test_a_restart_is_nothing_to_tell(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(store, answers=False)
    watched.look(0)
    watched.answers = True
    watched.look(500)
    watched.answers = False
    watched.look(560)
    watched.look(1100)
    assert names(caplog) == []


def test_a_store_that_is_away_is_told_past_the_journal(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(store)
    away = store.marker.rename(store.root / "away")
    watched.look(0)
    watched.look(599)
    assert watched.told == []
    watched.look(600)
    watched.look(2000)
    (event,) = watched.told
    assert event.name == "store-away"
    assert "cannot be written to" in event.text
    away.rename(store.marker)
    watched.look(2060)
    assert [each.name for each in watched.told] == ["store-away", "store-back"]
    assert names(caplog) == []


def test_a_full_disk_that_takes_no_event_is_told_past_the_journal(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(store)
    free = [4096]
    monkeypatch.setattr(LocalStore, "space", lambda _store: DiskSpace(free[0], 1 << 40))
    watched.look(0)
    watched.look(600)
    (event,) = watched.told
    assert (event.name, "is full" in event.text) == ("store-away", True)
    free[0] = 1 << 30
    watched.look(660)
    assert [each.name for each in watched.told] == ["store-away", "store-back"]


def test_a_disk_that_never_answers_is_told_by_another_thread(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(store)
    hanging, answer = threading.Event(), threading.Event()

    def hang(_store: LocalStore) -> None:
        hanging.set()
        answer.wait()

    monkeypatch.setattr(LocalStore, "check_mounted", hang)
    thread = threading.Thread(target=watched.look, args=(0,))
    thread.start()
    hanging.wait()
    for now in (599, 600, 900):
        watched.now = now
        watched.watch.look_for_hang()
    (event,) = watched.told
    assert (event.name, "does not answer" in event.text) == ("store-away", True)
    answer.set()
    thread.join()
    assert [each.name for each in watched.told] == ["store-away", "store-back"]
    watched.watch.look_for_hang()
    assert len(watched.told) == 2
